// libdibr_runtime for C++17: exported models, images and meshes. Header-only over dibr/runtime.h, which says more.
//
//   dibr::Session session("model.zip");
//   dibr::Result outputs = session.run({dibr::tensor(photo, {1, 3, 64, 64}), dibr::tensor(camera, {1, 4, 4})});
//   dibr::Span<const float> image = outputs["image"].values<float>();
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dibr/error.hpp"
#include "dibr/runtime.h"

namespace dibr {

// A call of libdibr_runtime failed; what() says in one sentence why.
class RuntimeError : public Error {
 public:
  RuntimeError(dibr_runtime_status status, const std::string& what) : Error(what), status_(status) {}
  dibr_runtime_status status() const { return status_; }

 private:
  dibr_runtime_status status_;
};

inline void check(dibr_runtime_status status) {
  if (status != DIBR_RUNTIME_OK) throw RuntimeError(status, dibr_runtime_last_error());
}

// The dibr_element of a C++ type. 16-bit floats are passed as TensorView with their bits in std::uint16_t.
template <class T>
struct ElementOf;
template <>
struct ElementOf<float> {
  static constexpr dibr_element value = DIBR_ELEMENT_FLOAT32;
};
template <>
struct ElementOf<double> {
  static constexpr dibr_element value = DIBR_ELEMENT_FLOAT64;
};
template <>
struct ElementOf<std::int8_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_INT8;
};
template <>
struct ElementOf<std::uint8_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_UINT8;
};
template <>
struct ElementOf<std::int16_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_INT16;
};
template <>
struct ElementOf<std::uint16_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_UINT16;
};
template <>
struct ElementOf<std::int32_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_INT32;
};
template <>
struct ElementOf<std::uint32_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_UINT32;
};
template <>
struct ElementOf<std::int64_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_INT64;
};
template <>
struct ElementOf<std::uint64_t> {
  static constexpr dibr_element value = DIBR_ELEMENT_UINT64;
};
template <>
struct ElementOf<bool> {
  static constexpr dibr_element value = DIBR_ELEMENT_BOOL;
};

// An array in host memory that somebody else owns, row-major and contiguous.
class TensorView {
 public:
  TensorView(dibr_element element, const void* data, std::size_t bytes, std::vector<std::int64_t> shape,
             std::string name = "")
      : name_(std::move(name)), element_(element), shape_(std::move(shape)), data_(data), bytes_(bytes) {}

  const std::string& name() const { return name_; }
  dibr_element element() const { return element_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  const void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  // The elements; throws Error where they are not of type T.
  template <class T>
  Span<const T> values() const {
    if (ElementOf<T>::value != element_) {
      throw Error("tensor " + name_ + " has elements of type " + dibr_element_name(element_) + ", not " +
                  dibr_element_name(ElementOf<T>::value));
    }
    return {static_cast<const T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  std::string name_;
  dibr_element element_;
  std::vector<std::int64_t> shape_;
  const void* data_;
  std::size_t bytes_;
};

// A view of a vector, array or Span for Session::run. name: of the input; "" for the input at this place of the model.
template <class Container>
TensorView tensor(const Container& values, std::vector<std::int64_t> shape, std::string name = "") {
  using T = std::remove_cv_t<std::remove_pointer_t<decltype(values.data())>>;
  return {ElementOf<T>::value, values.data(), values.size() * sizeof(T), std::move(shape), std::move(name)};
}

// An input or output of a model.
struct TensorInfo {
  std::string name, meaning;
  dibr_element element;
  std::vector<std::int64_t> shape;  // -1 where the size is dynamic
  std::vector<std::string> axes;    // names of dynamic sizes, "" elsewhere
};

// The outputs of a run; views of them stay valid as long as it lives.
class Result {
 public:
  explicit Result(dibr_result* result) : result_(result, dibr_result_free) {
    for (std::size_t index = 0; index < dibr_result_count(result); ++index) {
      dibr_tensor tensor{};
      check(dibr_result_tensor(result, index, &tensor));
      tensors_.emplace_back(tensor.element, tensor.data, tensor.bytes,
                            std::vector<std::int64_t>(tensor.shape, tensor.shape + tensor.rank), tensor.name);
    }
  }

  // In the model's order.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  // By name; throws Error where the model has no such output.
  const TensorView& operator[](const std::string& name) const {
    for (const TensorView& tensor : tensors_) {
      if (tensor.name() == name) return tensor;
    }
    throw Error("the model has no output " + name);
  }

 private:
  std::unique_ptr<dibr_result, void (*)(dibr_result*)> result_;
  std::vector<TensorView> tensors_;
};

// As dibr_session_options.
struct SessionOptions {
  std::string provider = "auto", onnxruntime_library{}, operator_library{}, tensorrt_library{};
  int threads = 0, device = 0, instances = 1;
};

// One model, opened once and run many times; several threads may run it at the same time. Throws RuntimeError.
class Session {
 public:
  explicit Session(const std::string& path, const SessionOptions& options = {}) : Session(open(path, options)) {}

  std::string provider() const { return dibr_session_provider(session_.get()); }
  // Why "auto" passed over better providers, one sentence a line.
  std::string notes() const { return dibr_session_notes(session_.get()); }
  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  const std::vector<TensorInfo>& outputs() const { return outputs_; }

  // Whether the model is a bundle that says how pictures become its input.
  bool can_preprocess() const { return dibr_session_can_preprocess(session_.get()) != 0; }
  // A picture of any size, uint8 [H, W, 3 or 4] as read_image gives it, as the model's input by its name:
  // session.run({prepared.tensors()[0], ...}).
  Result preprocess(const TensorView& pixels) const {
    const Span<const std::uint8_t> values = pixels.values<std::uint8_t>();
    const auto& shape = pixels.shape();
    if (shape.size() != 3) throw Error("preprocess: pixels must be [H, W, 3] or [H, W, 4]");
    dibr_result* result = nullptr;
    check(dibr_session_preprocess(session_.get(), values.data(), shape[0], shape[1], shape[2], &result));
    return Result(result);
  }

  // Whether the model is a bundle with its renderer alone beside it.
  bool has_renderer() const { return dibr_session_has_renderer(session_.get()) != 0; }
  // That renderer, on the CPU: it takes what the model predicts, and a camera.
  Session open_renderer() const {
    dibr_session* opened = nullptr;
    check(dibr_session_open_renderer(session_.get(), &opened));
    return Session(opened);
  }

  // Runs the model once. Inputs without a name come first, in the model's order.
  Result run(const std::vector<TensorView>& inputs) const {
    std::vector<dibr_tensor> tensors;
    for (const TensorView& input : inputs) {
      dibr_tensor tensor{};
      tensor.name = input.name().empty() ? nullptr : input.name().c_str();
      tensor.element = input.element();
      tensor.rank = static_cast<std::int32_t>(input.shape().size());
      tensor.shape = input.shape().data();
      tensor.data = input.data();
      tensor.bytes = input.bytes();
      tensors.push_back(tensor);
    }
    dibr_result* result = nullptr;
    check(dibr_session_run(session_.get(), tensors.data(), tensors.size(), &result));
    return Result(result);
  }

 private:
  explicit Session(dibr_session* opened) : session_(opened, dibr_session_close) {
    for (std::size_t index = 0; index < dibr_session_input_count(opened); ++index) {
      inputs_.push_back(info(dibr_session_input, index));
    }
    for (std::size_t index = 0; index < dibr_session_output_count(opened); ++index) {
      outputs_.push_back(info(dibr_session_output, index));
    }
  }

  static dibr_session* open(const std::string& path, const SessionOptions& options) {
    dibr_session_options plain{};
    plain.struct_size = sizeof plain;
    plain.provider = options.provider.c_str();
    plain.onnxruntime_library = options.onnxruntime_library.c_str();
    plain.operator_library = options.operator_library.c_str();
    plain.tensorrt_library = options.tensorrt_library.c_str();
    plain.threads = options.threads;
    plain.device = options.device;
    plain.instances = options.instances;
    dibr_session* opened = nullptr;
    check(dibr_session_open(path.c_str(), &plain, &opened));
    return opened;
  }

  TensorInfo info(dibr_runtime_status (*ask)(const dibr_session*, std::size_t, dibr_tensor_info*),
                  std::size_t index) const {
    dibr_tensor_info plain{};
    check(ask(session_.get(), index, &plain));
    TensorInfo result{plain.name, plain.meaning, plain.element, {}, {}};
    result.shape.assign(plain.shape, plain.shape + plain.rank);
    result.axes.assign(plain.axes, plain.axes + plain.rank);
    return result;
  }

  std::unique_ptr<dibr_session, void (*)(dibr_session*)> session_;
  std::vector<TensorInfo> inputs_, outputs_;
};

// Reads all files of a bundle and checks them against its manifest. Throws RuntimeError.
inline void check_bundle(const std::string& path) { check(dibr_bundle_check(path.c_str())); }

// A PNG or JPEG as a result with one tensor, pixels: uint8 [H, W, 3], or [H, W, 4] where it has transparency.
inline Result read_image(const std::string& path) {
  dibr_result* result = nullptr;
  check(dibr_image_read(path.c_str(), &result));
  return Result(result);
}

// A PNG or JPEG of any size as `dibr render` gives it to a network: uint8 [size, size, 3], RGB, row 0 at the top.
inline std::vector<std::uint8_t> read_square(const std::string& path, std::int64_t size) {
  // The library refuses other sizes before it writes anything.
  std::vector<std::uint8_t> pixels(size > 0 && size <= 16384 ? static_cast<std::size_t>(3 * size * size) : 1);
  check(dibr_image_read_square(path.c_str(), size, pixels.data()));
  return pixels;
}

// uint8 [height, width, 3] to float32 [3, height, width] in 0..1.
inline std::vector<float> to_planes(Span<const std::uint8_t> pixels) {
  const std::size_t count = pixels.size() / 3;
  std::vector<float> planes(3 * count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t c = 0; c < 3; ++c) planes[c * count + i] = static_cast<float>(pixels[3 * i + c]) / 255.0F;
  }
  return planes;
}

// image: [height, width, channels] in 0..1, channels 1 or 3.
inline void write_png(const std::string& path, Span<const float> image, std::int64_t height, std::int64_t width,
                      std::int64_t channels = 3) {
  const bool fits = height > 0 && width > 0 && channels > 0 &&
                    image.size() / static_cast<std::size_t>(channels) / static_cast<std::size_t>(width) ==
                        static_cast<std::size_t>(height) &&
                    image.size() % static_cast<std::size_t>(channels * width) == 0;
  if (!fits) throw Error("write_png: image must be [height, width, channels]");
  check(dibr_image_write_png(path.c_str(), image.data(), height, width, channels));
}

// The values of a tensor of int32 or int64, which models may have faces in. Throws Error for other types.
inline std::vector<std::int64_t> indices(const TensorView& tensor) {
  if (tensor.element() == DIBR_ELEMENT_INT32) {
    const auto values = tensor.values<std::int32_t>();
    return {values.begin(), values.end()};
  }
  const auto values = tensor.values<std::int64_t>();
  return {values.begin(), values.end()};
}

// As dibr_textured_mesh: vertices [V, 3], faces [F, 3], uvs [Vt, 2] with v = 0 at the top row of the texture,
// uv_faces [F, 3], texture [3, texture_height, texture_width].
inline void write_glb(const std::string& path, Span<const float> vertices, Span<const std::int64_t> faces,
                      Span<const float> uvs, Span<const std::int64_t> uv_faces, Span<const float> texture,
                      std::int64_t texture_height, std::int64_t texture_width) {
  const bool fits =
      vertices.size() % 3 == 0 && faces.size() % 3 == 0 && uvs.size() % 2 == 0 && uv_faces.size() == faces.size() &&
      texture_height > 0 && texture_width > 0 && texture.size() % static_cast<std::size_t>(3 * texture_width) == 0 &&
      texture.size() / static_cast<std::size_t>(3 * texture_width) == static_cast<std::size_t>(texture_height);
  if (!fits) {
    throw Error("write_glb: vertices must be [V, 3], faces and uv_faces [F, 3], uvs [Vt, 2], texture [3, Ht, Wt]");
  }
  dibr_textured_mesh mesh{};
  mesh.vertex_count = static_cast<std::int64_t>(vertices.size() / 3);
  mesh.face_count = static_cast<std::int64_t>(faces.size() / 3);
  mesh.uv_count = static_cast<std::int64_t>(uvs.size() / 2);
  mesh.vertices = vertices.data();
  mesh.faces = faces.data();
  mesh.uvs = uvs.data();
  mesh.uv_faces = uv_faces.data();
  mesh.texture_height = texture_height;
  mesh.texture_width = texture_width;
  mesh.texture = texture.data();
  check(dibr_mesh_write_glb(path.c_str(), &mesh));
}

}  // namespace dibr
