// Somebody's program: a triangle on the left half of an image, and then a bundle, where one is given.
#include <cstdio>

#include "dibr/renderer.hpp"
#include "dibr/runtime.hpp"

int main(int argc, char** argv) try {
  const std::vector<float> positions = {-1, -1, 0, 1, 0, -1, 0, 1, 0, 1, 0, 1, -1, 1, 0, 1};  // [1, 4, 4]
  const std::vector<std::int32_t> faces = {0, 1, 2, 0, 2, 3};
  dibr::Renderer renderer(2);
  const auto raster = renderer.rasterize({positions, faces}, 4, 8);
  int covered = 0;
  for (const std::int32_t face : raster.face_index) covered += face >= 0;
  std::printf("%d of %zu pixels\n", covered, raster.face_index.size());
  if (argc > 1) {
    dibr::check_bundle(argv[1]);
    const dibr::Session session(argv[1], {"cpu"});
    const std::vector<float> offset(3), camera = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const auto outputs = session.run({dibr::tensor(offset, {1, 1, 3}), dibr::tensor(camera, {1, 4, 4})});
    for (const auto& output : outputs.tensors()) {
      std::printf("%s", output.name().c_str());
      for (const auto size : output.shape()) std::printf(" %lld", static_cast<long long>(size));
      std::printf("\n");
    }
  }
  return covered == 16 ? 0 : 1;
} catch (const dibr::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
