// render_image MODEL IMAGE FOLDER [PROVIDER]: a photo through a model that `dibr export` wrote, to pictures and a mesh.
//
// MODEL: a bundle or an .onnx file; IMAGE: a PNG or JPEG of any size. Writes what `dibr render` writes: input.png (the
// photo as the network saw it), prediction.png and mask.png (the predicted mesh from in front) and mesh.glb.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "dibr/cameras.hpp"
#include "dibr/runtime.hpp"

namespace {

// S of a model that takes an image [B, 3, S, S] and a camera [B, 4, 4].
std::int64_t input_size(const dibr::Session& session) {
  const auto& inputs = session.inputs();
  const bool fits = inputs.size() == 2 && inputs[0].shape.size() == 4 && inputs[0].shape[1] == 3 &&
                    inputs[0].shape[2] > 0 && inputs[0].shape[2] == inputs[0].shape[3] &&
                    inputs[0].element == DIBR_ELEMENT_FLOAT32 && inputs[1].shape.size() == 3 &&
                    inputs[1].shape[1] == 4 && inputs[1].shape[2] == 4;
  if (!fits) throw dibr::Error("the model's inputs must be an image [B, 3, S, S] and a camera [B, 4, 4]");
  return inputs[0].shape[2];
}

std::vector<float> to_float(const dibr::Matrix4& matrix) { return {matrix.begin(), matrix.end()}; }

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: render_image MODEL IMAGE FOLDER [PROVIDER]\n");
    return 2;
  }
  const std::string folder = argv[3];
  dibr::SessionOptions options;
  if (argc == 5) options.provider = argv[4];
  const dibr::Session session(argv[1], options);
  std::fprintf(stderr, "%s", session.notes().c_str());

  const std::int64_t size = input_size(session);
  const std::vector<std::uint8_t> pixels = dibr::read_square(argv[2], size);
  const std::vector<float> photo = dibr::to_planes(pixels);
  const auto run = [&](const dibr::Matrix4& camera) {
    const std::vector<float> world_to_clip = to_float(camera);
    return session.run({dibr::tensor(photo, {1, 3, size, size}), dibr::tensor(world_to_clip, {1, 4, 4})});
  };

  // The mesh does not depend on the camera: once for where it is, and once more to see it.
  constexpr dibr::Matrix4 identity{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const dibr::Result prediction = run(identity);
  const auto& image_shape = prediction["image"].shape();  // [1, H, W, 3]
  const std::int64_t height = image_shape.at(1), width = image_shape.at(2);
  const dibr::Span<const float> vertices = prediction["vertices"].values<float>();
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  const dibr::Result seen = run(dibr::view_of(vertices, aspect));

  std::vector<float> input(photo.size());
  std::transform(pixels.begin(), pixels.end(), input.begin(),
                 [](std::uint8_t x) { return static_cast<float>(x) / 255; });
  dibr::write_png(folder + "/input.png", input, size, size);
  dibr::write_png(folder + "/prediction.png", seen["image"].values<float>(), height, width);
  dibr::write_png(folder + "/mask.png", seen["mask"].values<float>(), height, width, 1);
  const auto& texture_shape = prediction["texture"].shape();  // [1, 3, Ht, Wt]
  dibr::write_glb(folder + "/mesh.glb", vertices, dibr::indices(prediction["faces"]), prediction["uvs"].values<float>(),
                  dibr::indices(prediction["uv_faces"]), prediction["texture"].values<float>(), texture_shape.at(2),
                  texture_shape.at(3));
  std::printf("provider %s: input.png, prediction.png, mask.png and mesh.glb in %s\n", session.provider().c_str(),
              folder.c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "render_image: %s\n", error.what());
  return 1;
}
