// render_image MODEL IMAGE FOLDER [PROVIDER]: a photo through a model that `dibr export` wrote, to pictures and a mesh.
//
// MODEL: a bundle or an .onnx file; IMAGE: a PNG or JPEG of any size. Writes what `dibr render` writes: input.png (the
// photo as the network saw it), prediction.png and mask.png (the predicted mesh from in front) and mesh.glb.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "dibr/cameras.hpp"
#include "dibr/runtime.hpp"

namespace {

// The photo as the model's first input, and as a picture to look at.
struct Photo {
  std::vector<std::uint8_t> bytes;  // [1, S, S, 3], where the model takes bytes
  std::vector<float> planes;        // [1, 3, S, S] in 0..1, where it takes numbers
  std::vector<float> shown;         // [S, S, 3] in 0..1
  std::int64_t size = 0;

  dibr::TensorView view() const {
    return bytes.empty() ? dibr::tensor(planes, {1, 3, size, size}) : dibr::tensor(bytes, {1, size, size, 3});
  }
};

Photo read_photo(const dibr::Session& session, const std::string& path) {
  const auto& inputs = session.inputs();
  const bool takes_bytes = !inputs.empty() && inputs[0].element == DIBR_ELEMENT_UINT8;
  const bool fits = inputs.size() == 2 && inputs[0].shape.size() == 4 && inputs[0].shape[2] > 0 &&
                    inputs[0].shape[takes_bytes ? 3 : 1] == 3 && inputs[1].shape.size() == 3 &&
                    inputs[1].shape[1] == 4 && inputs[1].shape[2] == 4;
  if (!fits) {
    throw dibr::Error("the model's inputs must be an image, uint8 [B, S, S, 3] or float32 [B, 3, S, S], and a camera");
  }
  Photo photo;
  photo.size = inputs[0].shape[2];
  if (session.can_preprocess()) {
    // The bundle says how pictures of any size become its input.
    const dibr::Result prepared = session.preprocess(dibr::read_image(path).tensors()[0]);
    const dibr::TensorView& tensor = prepared.tensors()[0];
    if (takes_bytes) {
      const auto values = tensor.values<std::uint8_t>();
      photo.bytes.assign(values.begin(), values.end());
    } else {
      const auto values = tensor.values<float>();
      photo.planes.assign(values.begin(), values.end());
    }
  } else {
    photo.bytes = dibr::read_square(path, photo.size);
    photo.planes = dibr::to_planes(photo.bytes);
    if (!takes_bytes) photo.bytes.clear();
  }
  const auto texels = static_cast<std::size_t>(photo.size * photo.size);
  for (std::size_t i = 0; i < texels; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      photo.shown.push_back(takes_bytes ? static_cast<float>(photo.bytes[3 * i + c]) / 255.0F
                                        : photo.planes[c * texels + i]);
    }
  }
  return photo;
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

  const Photo photo = read_photo(session, argv[2]);
  const auto run = [&](const dibr::Matrix4& camera) {
    const std::vector<float> world_to_clip = to_float(camera);
    return session.run({photo.view(), dibr::tensor(world_to_clip, {1, 4, 4})});
  };

  // The mesh does not depend on the camera: once for where it is, and once more to see it.
  constexpr dibr::Matrix4 identity{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const dibr::Result prediction = run(identity);
  const auto& image_shape = prediction["image"].shape();  // [1, H, W, 3]
  const std::int64_t height = image_shape.at(1), width = image_shape.at(2);
  const dibr::Span<const float> vertices = prediction["vertices"].values<float>();
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  const dibr::Result seen = run(dibr::view_of(vertices, aspect));

  dibr::write_png(folder + "/input.png", photo.shown, photo.size, photo.size);
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
