// Files that nobody should send. The sanitizers judge what the readers do with them.
#include <map>
#include <random>

#include "bundle.h"
#include "failure.h"
#include "files.h"
#include "groups.h"
#include "images.h"
#include "onnx_header.h"

namespace dibr::test {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Some bytes changed, taken out, put in or doubled, or the end cut off.
runtime::Bytes damaged(runtime::Bytes content, std::mt19937& random) {
  const auto below = [&](std::size_t count) { return count > 0 ? random() % count : 0; };
  const int changes = 1 + static_cast<int>(below(4));
  for (int change = 0; change < changes && !content.empty(); ++change) {
    const std::size_t place = below(content.size());
    const auto at = content.begin() + static_cast<std::ptrdiff_t>(place);
    const std::size_t count = std::min<std::size_t>(1 + below(8), content.size() - place);
    switch (below(6)) {
      case 0:
        content.resize(place);
        break;
      case 1:
        content[place] ^= static_cast<unsigned char>(1 << below(8));
        break;
      case 2:
        content.erase(at, at + static_cast<std::ptrdiff_t>(count));
        break;
      case 3:
        content.insert(at, count, static_cast<unsigned char>(below(256)));
        break;
      case 4: {
        constexpr unsigned char extremes[] = {0x00, 0xFF, 0x7F, 0x80};
        std::fill_n(at, count, extremes[below(4)]);
        break;
      }
      default: {
        const runtime::Bytes part(at, at + static_cast<std::ptrdiff_t>(count));
        content.insert(content.begin() + static_cast<std::ptrdiff_t>(below(content.size())), part.begin(), part.end());
      }
    }
  }
  return content;
}

void read(const std::string& name, const runtime::Bytes& content, const std::string& scratch) {
  if (ends_with(name, ".json")) {
    runtime::parse_manifest(content, "bundle");
  } else if (ends_with(name, ".onnx")) {
    runtime::parse_onnx_header(content, "model");
  } else if (ends_with(name, ".zip")) {
    runtime::write_atomically(scratch, content, "zip");
    const runtime::Bundle bundle(scratch);
    for (const auto& [file, entry] : bundle.manifest().files) bundle.read(file);
  } else {
    runtime::fit_square(runtime::decode_image(content, "image"), 16);
  }
}

}  // namespace

void test_hostile(const std::string& folder, int iterations) {
  std::mt19937 random(11);
  std::map<std::string, int> refused;
  for (const std::string& name : runtime::list_folder(folder)) {
    const std::string path = folder + "/" + name;
    if (!runtime::is_file(path)) continue;
    const runtime::Bytes content = runtime::InputFile(path, name).read_all();
    read(name, content, path + ".scratch");
    for (int i = 0; i < iterations; ++i) {
      try {
        read(name, damaged(content, random), path + ".scratch");
      } catch (const runtime::Failure& failure) {
        const bool has_words = !failure.sentence.empty() && failure.sentence.size() < 2000 &&
                               failure.sentence.find('\n') == std::string::npos;
        if (!has_words || failure.status == DIBR_RUNTIME_INTERNAL) expect(false, name + ": " + failure.sentence);
        ++refused[name];
      }
    }
    std::remove((path + ".scratch").c_str());
    expect(refused[name] > iterations / 20, name + ": only " + std::to_string(refused[name]) + " were refused");
    std::printf("%s: %d of %d refused\n", name.c_str(), refused[name], iterations);
  }
  expect(!refused.empty(), "there is a file to damage");
}

}  // namespace dibr::test
