// The C ABI: arguments are checked, and nothing is thrown.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bundle.h"
#include "dibr/runtime.h"
#include "failure.h"
#include "glb.h"
#include "images.h"
#include "session.h"

namespace {

using namespace dibr::runtime;

template <class T>
T& expect_given(T* pointer, const char* name) {
  if (pointer == nullptr) fail(DIBR_RUNTIME_INVALID_ARGUMENT, name, " is NULL");
  return *pointer;
}

std::string path_of(const char* path) {
  expect_given(path, "path");
  if (path[0] == '\0') fail(DIBR_RUNTIME_INVALID_ARGUMENT, "path is empty");
  return path;
}

std::string or_empty(const char* text) { return text != nullptr ? text : ""; }

// The fields up to here have been there from the first version of the header on.
constexpr std::size_t kFirstOptions = offsetof(dibr_session_options, instances) + sizeof(std::int32_t);

// What a caller has given that was compiled with any version of the header: zeros where it knows no field.
dibr_session_options known_part(const dibr_session_options& given) {
  if (given.struct_size < kFirstOptions) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "options.struct_size must be at least ", kFirstOptions, ", got ",
         given.struct_size);
  }
  dibr_session_options known{};
  std::memcpy(&known, &given, std::min(given.struct_size, sizeof known));
  return known;
}

Options options_of(const dibr_session_options* pointer) {
  Options options;
  if (pointer == nullptr) return options;
  const dibr_session_options part = known_part(*pointer);
  const dibr_session_options* given = &part;
  const std::string provider = or_empty(given->provider);
  if (!provider.empty()) options.provider = provider;
  const char* known[] = {"auto", "cpu", "cuda", "tensorrt"};
  if (std::none_of(std::begin(known), std::end(known), [&](const char* name) { return options.provider == name; })) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "options.provider must be auto, cpu, cuda or tensorrt, got ",
         one_line(provider));
  }
  options.onnxruntime_library = or_empty(given->onnxruntime_library);
  options.operator_library = or_empty(given->operator_library);
  options.tensorrt_library = or_empty(given->tensorrt_library);
  const auto at_least_zero = [](const char* name, int value) {
    if (value < 0) fail(DIBR_RUNTIME_INVALID_ARGUMENT, "options.", name, " must be at least 0, got ", value);
    return value;
  };
  options.threads = at_least_zero("threads", given->threads);
  options.device = at_least_zero("device", given->device);
  options.instances = std::max(at_least_zero("instances", given->instances), 1);
  return options;
}

dibr_tensor_info info_of(const std::vector<TensorSpec>& specs, const std::vector<std::vector<const char*>>& axes,
                         std::size_t index) {
  if (index >= specs.size()) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "index must be below ", specs.size(), ", got ", index);
  }
  const TensorSpec& spec = specs[index];
  return {spec.name.c_str(), spec.meaning.c_str(), spec.type->element, static_cast<int32_t>(spec.shape.size()),
          spec.shape.data(), axes[index].data()};
}

}  // namespace

extern "C" {

dibr_runtime_status dibr_session_open(const char* path, const dibr_session_options* options, dibr_session** session) {
  return guarded([&] {
    dibr_session*& target = expect_given(session, "session");
    target = std::make_unique<dibr_session>(path_of(path), options_of(options)).release();
  });
}

void dibr_session_close(dibr_session* session) { delete session; }

const char* dibr_session_provider(const dibr_session* session) {
  return session != nullptr ? session->provider.c_str() : "";
}

const char* dibr_session_notes(const dibr_session* session) { return session != nullptr ? session->notes.c_str() : ""; }

size_t dibr_session_input_count(const dibr_session* session) {
  return session != nullptr ? session->backend->inputs.size() : 0;
}

size_t dibr_session_output_count(const dibr_session* session) {
  return session != nullptr ? session->backend->outputs.size() : 0;
}

dibr_runtime_status dibr_session_input(const dibr_session* session, size_t index, dibr_tensor_info* info) {
  return guarded([&] {
    const dibr_session& opened = expect_given(session, "session");
    expect_given(info, "info") = info_of(opened.backend->inputs, opened.input_axes, index);
  });
}

dibr_runtime_status dibr_session_output(const dibr_session* session, size_t index, dibr_tensor_info* info) {
  return guarded([&] {
    const dibr_session& opened = expect_given(session, "session");
    expect_given(info, "info") = info_of(opened.backend->outputs, opened.output_axes, index);
  });
}

dibr_runtime_status dibr_session_run(const dibr_session* session, const dibr_tensor* inputs, size_t count,
                                     dibr_result** result) {
  return guarded([&] {
    Backend& backend = *expect_given(session, "session").backend;
    dibr_result*& target = expect_given(result, "result");
    target = backend.run(checked_inputs(backend.inputs, inputs, count)).release();
  });
}

int32_t dibr_session_can_preprocess(const dibr_session* session) {
  return session != nullptr && session->can_preprocess() ? 1 : 0;
}

dibr_runtime_status dibr_session_preprocess(const dibr_session* session, const uint8_t* pixels, int64_t height,
                                            int64_t width, int64_t channels, dibr_result** result) {
  return guarded([&] {
    const dibr_session& opened = expect_given(session, "session");
    dibr_result*& target = expect_given(result, "result");
    expect_given(pixels, "pixels");
    if (height < 1 || width < 1 || (channels != 3 && channels != 4)) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "pixels must be [height, width, 3] or [height, width, 4], got [", height,
           ", ", width, ", ", channels, "]");
    }
    const int64_t shape[] = {height, width, channels};
    dibr_tensor tensor{};
    tensor.element = DIBR_ELEMENT_UINT8;
    tensor.rank = 3;
    tensor.shape = shape;
    tensor.data = pixels;
    tensor.bytes = tensor_bytes("pixels", *element_type(DIBR_ELEMENT_UINT8), shape, 3);
    Backend& preprocessor = opened.preprocessor();
    target = preprocessor.run(checked_inputs(preprocessor.inputs, &tensor, 1)).release();
  });
}

int32_t dibr_session_has_renderer(const dibr_session* session) {
  return session != nullptr && session->has_renderer() ? 1 : 0;
}

dibr_runtime_status dibr_session_open_renderer(const dibr_session* session, dibr_session** renderer) {
  return guarded([&] {
    const dibr_session& whole = expect_given(session, "session");
    dibr_session*& target = expect_given(renderer, "renderer");
    target = whole.open_renderer().release();
  });
}

size_t dibr_result_count(const dibr_result* result) { return result != nullptr ? result->tensors.size() : 0; }

dibr_runtime_status dibr_result_tensor(const dibr_result* result, size_t index, dibr_tensor* tensor) {
  return guarded([&] {
    const auto& tensors = expect_given(result, "result").tensors;
    dibr_tensor& target = expect_given(tensor, "tensor");
    if (index >= tensors.size()) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "index must be below ", tensors.size(), ", got ", index);
    }
    target = tensors[index];
  });
}

void dibr_result_free(dibr_result* result) { delete result; }

dibr_runtime_status dibr_bundle_check(const char* path) {
  return guarded([&] {
    const Bundle bundle(path_of(path));
    for (const auto& [name, entry] : bundle.manifest().files) bundle.read(name);
  });
}

dibr_runtime_status dibr_image_read(const char* path, dibr_result** result) {
  return guarded([&] {
    const std::string file = path_of(path);
    dibr_result*& target = expect_given(result, "result");
    const std::string what = "image " + file;
    Picture picture = decode_image(InputFile(file, what).read_all(), what);
    if (!picture.has_transparency) {
      const std::size_t count = picture.pixels.size() / 4;
      for (std::size_t i = 0; i < count; ++i) std::memmove(&picture.pixels[3 * i], &picture.pixels[4 * i], 3);
      picture.pixels.resize(3 * count);
      picture.channels = 3;
    }
    auto read = std::make_unique<HostResult>();
    read->add("pixels", DIBR_ELEMENT_UINT8, {picture.height, picture.width, picture.channels},
              std::move(picture.pixels));
    target = read.release();
  });
}

dibr_runtime_status dibr_image_read_square(const char* path, int64_t size, uint8_t* pixels) {
  return guarded([&] {
    constexpr int64_t most = 16384;
    const std::string file = path_of(path);
    expect_given(pixels, "pixels");
    if (size < 1 || size > most) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "size must be from 1 to ", most, ", got ", size);
    }
    const std::string what = "image " + file;
    const Picture square = fit_square(decode_image(InputFile(file, what).read_all(), what), size);
    std::memcpy(pixels, square.pixels.data(), square.pixels.size());
  });
}

dibr_runtime_status dibr_image_write_png(const char* path, const float* image, int64_t height, int64_t width,
                                         int64_t channels) {
  return guarded([&] {
    const std::string file = path_of(path);
    write_atomically(file, encode_png(to_picture(image, height, width, channels)), "image");
  });
}

dibr_runtime_status dibr_mesh_write_glb(const char* path, const dibr_textured_mesh* mesh) {
  return guarded([&] {
    const std::string file = path_of(path);
    write_atomically(file, encode_glb(expect_given(mesh, "mesh")), "mesh");
  });
}

}  // extern "C"
