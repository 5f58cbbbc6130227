// sample_texture FOLDER CHANNELS TEXTURE_HEIGHT TEXTURE_WIDTH BATCH HEIGHT WIDTH: one trilinear texture, sampled where
// FOLDER/uv says on the levels of FOLDER/mip_level, for comparison with Python. Files are raw float32.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "dibr/renderer.hpp"

namespace {

std::vector<float> read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  std::vector<float> values(static_cast<std::size_t>(stream.tellg()) / sizeof(float));
  stream.seekg(0);
  stream.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  const std::string folder = std::string(argv[1]) + "/";
  const auto size = [&](int index) { return static_cast<std::int64_t>(std::atoll(argv[index])); };
  dibr::Renderer::Raster raster{size(5), size(6), size(7), {}, {}, {}};
  dibr::Renderer renderer(2);
  const std::vector<float> output =
      renderer.texture(read(folder + "texture"), size(2), size(3), size(4), read(folder + "uv"), raster,
                       {DIBR_FILTER_TRILINEAR, DIBR_WRAP_REPEAT}, read(folder + "mip_level"));
  std::ofstream stream(folder + "output", std::ios::binary);
  stream.write(reinterpret_cast<const char*>(output.data()),
               static_cast<std::streamsize>(output.size() * sizeof(float)));
}
