// preprocess MODEL IMAGE OUTPUT: the bytes of the model's input that its bundle makes of the image, and their name,
// type and shape on standard output. What fails is printed with its status, and the exit code is 3.
#include <cstdio>
#include <fstream>

#include "dibr/runtime.hpp"

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  const dibr::Session session(argv[1], {"cpu"});
  const dibr::Result image = dibr::read_image(argv[2]);
  const dibr::Result prepared = session.preprocess(image.tensors()[0]);
  for (const dibr::TensorView& tensor : prepared.tensors()) {
    std::ofstream(argv[3], std::ios::binary)
        .write(static_cast<const char*>(tensor.data()), static_cast<std::streamsize>(tensor.bytes()));
    std::printf("%d %s %s", static_cast<int>(session.can_preprocess()), tensor.name().c_str(),
                dibr_element_name(tensor.element()));
    for (const std::int64_t size : tensor.shape()) std::printf(" %lld", static_cast<long long>(size));
  }
  return 0;
} catch (const dibr::RuntimeError& error) {
  std::printf("%d %s\n", static_cast<int>(error.status()), error.what());
  return 3;
}
