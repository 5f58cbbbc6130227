// run_bundle MODEL PROVIDER THREADS FOLDER [INPUT:DTYPE:SIZES=FILE]...: runs a model on raw arrays, for comparison with
// Python.
//
// MODEL may be renderer:BUNDLE for the bundle's renderer alone. INPUT may be empty; SIZES are separated by commas, ""
// for a scalar. Writes the bytes of each output to FOLDER/NAME and prints its name, dtype and shape. What fails is
// printed with its status, and the exit code is 3.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "dibr/runtime.hpp"

namespace {

dibr_element element_named(const std::string& name) {
  for (int element = DIBR_ELEMENT_FLOAT16; element <= DIBR_ELEMENT_BOOL; ++element) {
    if (name == dibr_element_name(static_cast<dibr_element>(element))) return static_cast<dibr_element>(element);
  }
  return static_cast<dibr_element>(0);
}

dibr::Session open(const std::string& model, const dibr::SessionOptions& options) {
  const std::string prefix = "renderer:";
  if (model.rfind(prefix, 0) != 0) return dibr::Session(model, options);
  const dibr::Session whole(model.substr(prefix.size()), options);
  return whole.open_renderer();
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 5) return 2;
  dibr::SessionOptions options;
  options.provider = argv[2];
  options.threads = std::atoi(argv[3]);
  const dibr::Session session = open(argv[1], options);
  std::vector<std::vector<char>> contents;
  std::vector<dibr::TensorView> inputs;
  for (int i = 5; i < argc; ++i) {
    std::istringstream words(argv[i]);
    std::string name, dtype, sizes, file;
    std::getline(words, name, ':');
    std::getline(words, dtype, ':');
    std::getline(words, sizes, '=');
    std::getline(words, file);
    std::vector<std::int64_t> shape;
    std::istringstream numbers(sizes);
    for (std::string size; std::getline(numbers, size, ',');) shape.push_back(std::stoll(size));
    std::ifstream stream(file, std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    inputs.emplace_back(element_named(dtype), contents.back().data(), contents.back().size(), shape, name);
  }
  const dibr::Result outputs = session.run(inputs);
  for (const dibr::TensorView& output : outputs.tensors()) {
    std::ofstream stream(std::string(argv[4]) + "/" + output.name(), std::ios::binary);
    stream.write(static_cast<const char*>(output.data()), static_cast<std::streamsize>(output.bytes()));
    std::printf("%s %s", output.name().c_str(), dibr_element_name(output.element()));
    for (const std::int64_t size : output.shape()) std::printf(" %lld", static_cast<long long>(size));
    std::printf("\n");
  }
  return 0;
} catch (const dibr::RuntimeError& error) {
  std::printf("%d %s\n", static_cast<int>(error.status()), error.what());
  return 3;
}
