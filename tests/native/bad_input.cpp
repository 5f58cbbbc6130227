// Every kind of bad argument is refused with its own status and a sentence that names op and argument.
#include <cmath>

#include "harness.h"

namespace dibr::test {
namespace {

// One triangle on 4 x 4 pixels, and everything that the ops need around it.
struct Triangle {
  float positions[12] = {-1, -1, 0, 1, 1, -1, 0, 1, 0, 1, 0, 1};
  int32_t faces[3] = {0, 1, 2};
  int32_t ranges[2] = {0, 1};
  int32_t valid[1] = {1};
  int32_t face_index[16] = {};
  float per_pixel[48] = {};
  float texture[12] = {};
  float out[48] = {};
  float out_too[48] = {};

  template <class Params>
  Params mesh() {
    Params params{};
    params.dtype = DIBR_FLOAT32;
    params.batch = 1;
    params.vertices = 3;
    params.faces = 1;
    params.height = params.width = 4;
    params.face_indices = faces;
    params.face_index = face_index;
    return params;
  }
  dibr_rasterize_params rasterize() {
    auto params = mesh<dibr_rasterize_params>();
    params.positions = positions;
    params.face_ranges = ranges;
    params.face_valid = valid;
    params.barycentrics = out;
    return params;
  }
  dibr_rasterize_backward_params rasterize_backward() {
    auto params = mesh<dibr_rasterize_backward_params>();
    params.positions = positions;
    params.grad_barycentrics = per_pixel;
    params.grad_positions = out;
    return params;
  }
  dibr_interpolate_params interpolate() {
    auto params = mesh<dibr_interpolate_params>();
    params.attribute_batch = 1;
    params.channels = 3;
    params.attributes = positions;
    params.barycentrics = per_pixel;
    params.output = out;
    return params;
  }
  dibr_interpolate_backward_params interpolate_backward() {
    auto params = mesh<dibr_interpolate_backward_params>();
    params.attribute_batch = 1;
    params.channels = 3;
    params.attributes = positions;
    params.barycentrics = per_pixel;
    params.grad_output = per_pixel;
    params.grad_attributes = out;
    params.grad_barycentrics = out_too;
    return params;
  }
  dibr_interpolate_raster_backward_params interpolate_raster_backward() {
    auto params = mesh<dibr_interpolate_raster_backward_params>();
    params.attribute_batch = 1;
    params.channels = 3;
    params.raster_vertices = 3;
    params.attributes = params.positions = positions;
    params.raster_face_indices = faces;
    params.barycentrics = per_pixel;
    params.grad_output = per_pixel;
    params.grad_attributes = out;
    params.grad_positions = out_too;
    return params;
  }
  dibr_soft_mask_params soft_mask() {
    auto params = mesh<dibr_soft_mask_params>();
    params.sigmainv = 7000;
    params.boxlen = 0.02;
    params.knum = 30;
    params.positions = positions;
    params.mask = out;
    return params;
  }
  dibr_soft_mask_backward_params soft_mask_backward() {
    auto params = mesh<dibr_soft_mask_backward_params>();
    params.sigmainv = 7000;
    params.boxlen = 0.02;
    params.knum = 30;
    params.positions = positions;
    params.grad_mask = per_pixel;
    params.grad_positions = out;
    return params;
  }
  template <class Params>
  Params outlines() {
    auto params = mesh<Params>();
    params.channels = 3;
    params.image = per_pixel;
    params.positions = positions;
    params.face_ranges = ranges;
    params.barycentrics = per_pixel;
    return params;
  }
  dibr_antialias_params antialias() {
    auto params = outlines<dibr_antialias_params>();
    params.output = out;
    return params;
  }
  dibr_antialias_backward_params antialias_backward() {
    auto params = outlines<dibr_antialias_backward_params>();
    params.grad_output = per_pixel;
    params.grad_image = out;
    params.grad_positions = out_too;
    return params;
  }
  template <class Params>
  Params sampler() {
    Params params{};
    params.dtype = DIBR_FLOAT32;
    params.batch = params.texture_batch = 1;
    params.channels = 3;
    params.texture_height = params.texture_width = 2;
    params.height = params.width = 4;
    params.texture = texture;
    params.uv = per_pixel;
    return params;
  }
  dibr_texture_params sample() {
    auto params = sampler<dibr_texture_params>();
    params.output = out;
    return params;
  }
  dibr_texture_backward_params sample_backward() {
    auto params = sampler<dibr_texture_backward_params>();
    params.grad_output = per_pixel;
    params.grad_texture = out;
    params.grad_uv = out_too;
    return params;
  }
};

// Runs one op on arguments that a test has spoilt, and expects the status and the word in the message.
template <class Params>
struct Refusals {
  const char* op;
  dibr_status (*workspace_size)(const Params*, dibr_device, uint64_t*);
  dibr_status (*run_op)(const Params*, const dibr_launch*);
  Params good;

  template <class Spoil>
  void refuses(const char* word, const Spoil& spoil, dibr_status expected = DIBR_INVALID_ARGUMENT) const {
    Params params = good;
    spoil(params);
    for (const int threads : {1, 3}) expect_refusal(word, run(params, workspace_size, run_op, {threads}), expected);
  }

  // What every op refuses: no parameters, no launch, a device or dtype it lacks, impossible sizes, a short workspace.
  void common() const {
    expect(run(good, workspace_size, run_op, {1}) == DIBR_OK, std::string(op) + ": " + dibr_last_error());
    uint64_t bytes = 0;
    expect_refusal("params", workspace_size(nullptr, DIBR_CPU, &bytes), DIBR_INVALID_ARGUMENT);
    expect_refusal("bytes", workspace_size(&good, DIBR_CPU, nullptr), DIBR_INVALID_ARGUMENT);
    expect_refusal("device", workspace_size(&good, DIBR_CUDA, &bytes), DIBR_UNSUPPORTED);
    expect_refusal("launch", run_op(&good, nullptr), DIBR_INVALID_ARGUMENT);
    refuses("dtype", [](Params& p) { p.dtype = dibr_dtype(7); }, DIBR_UNSUPPORTED);
    refuses("batch", [](Params& p) { p.batch = -1; });
    refuses("height", [](Params& p) { p.height = 0; });
    refuses("height", [](Params& p) { p.height = int64_t(1) << 40; });
    refuses("width", [](Params& p) { p.width = -5; });
    short_workspace();
  }

 private:
  void expect_refusal(const std::string& word, dibr_status status, dibr_status expected) const {
    const std::string message = dibr_last_error();
    expect(status == expected && message.find(word) != std::string::npos,
           std::string(op) + ": expected status " + std::to_string(expected) + " naming '" + word + "', got " +
               std::to_string(status) + ": " + message);
    expect(message.find(op) == 0, std::string("the message does not start with ") + op + ": " + message);
  }

  void short_workspace() const {
    uint64_t bytes = 0;
    if (!expect(workspace_size(&good, DIBR_CPU, &bytes) == DIBR_OK, dibr_last_error()) || bytes == 0) return;
    const Bytes workspace(bytes, 0);
    dibr_launch launch{};
    launch.workspace = workspace.data();
    launch.workspace_bytes = bytes - 1;
    expect_refusal("workspace", run_op(&good, &launch), DIBR_WORKSPACE_TOO_SMALL);
    launch.workspace = nullptr;
    launch.workspace_bytes = bytes;
    expect_refusal("workspace", run_op(&good, &launch), DIBR_INVALID_ARGUMENT);
  }
};

template <class Params>
void mesh_refusals(const Refusals<Params>& refusals, Triangle& triangle) {
  refusals.refuses("vertices", [](Params& p) { p.vertices = -1; });
  refusals.refuses("faces", [](Params& p) { p.faces = int64_t(1) << 33; });
  refusals.refuses("faces", [](Params& p) { p.face_indices = nullptr; });
  refusals.refuses("faces", [](Params& p) { p.face_indices = reinterpret_cast<int32_t*>(uintptr_t(0x1001)); });
  refusals.refuses("face_index", [](Params& p) { p.face_index = nullptr; });
  for (const int32_t index : {-1, 3, INT32_MAX, INT32_MIN}) {
    triangle.faces[1] = index;
    refusals.refuses("faces[0, 1]", [](Params&) {});
  }
  triangle.faces[1] = 1;
}

template <class Params>
void face_index_refusals(const Refusals<Params>& refusals, Triangle& triangle) {
  for (const int32_t index : {-2, 1, INT32_MAX}) {
    triangle.face_index[7] = index;
    refusals.refuses("face_index[0, 1, 3]", [](Params&) {});
  }
  triangle.face_index[7] = 0;
}

template <class Params>
void soft_mask_refusals(const Refusals<Params>& refusals, Triangle& triangle) {
  refusals.common();
  mesh_refusals(refusals, triangle);
  face_index_refusals(refusals, triangle);
  refusals.refuses("sigmainv", [](Params& p) { p.sigmainv = 0; });
  refusals.refuses("sigmainv", [](Params& p) { p.sigmainv = NAN; });
  refusals.refuses("boxlen", [](Params& p) { p.boxlen = -1; });
  refusals.refuses("knum", [](Params& p) { p.knum = 0; });
  triangle.ranges[1] = 2;
  refusals.refuses("face_ranges[0]", [&](Params& p) { p.face_ranges = triangle.ranges; });
  triangle.ranges[1] = 1;
}

template <class Params>
void interpolate_refusals(const Refusals<Params>& refusals, Triangle& triangle) {
  refusals.common();
  mesh_refusals(refusals, triangle);
  face_index_refusals(refusals, triangle);
  refusals.refuses("batch", [](Params& p) { p.attribute_batch = 2; });
  refusals.refuses("channels", [](Params& p) { p.channels = -1; });
  refusals.refuses("attributes", [](Params& p) { p.attributes = nullptr; });
  refusals.refuses("2^40", [](Params& p) { p.channels = INT32_MAX, p.height = p.width = 32768; });
}

template <class Params>
void antialias_refusals(const Refusals<Params>& refusals, Triangle& triangle) {
  refusals.common();
  mesh_refusals(refusals, triangle);
  face_index_refusals(refusals, triangle);
  refusals.refuses("channels", [](Params& p) { p.channels = -1; });
  refusals.refuses("image", [](Params& p) { p.image = nullptr; });
  refusals.refuses("positions", [](Params& p) { p.positions = nullptr; });
  refusals.refuses("barycentrics", [](Params& p) { p.barycentrics = nullptr; });
  refusals.refuses("2^40", [](Params& p) { p.channels = INT32_MAX, p.height = p.width = 32768; });
  triangle.ranges[1] = 2;
  refusals.refuses("face_ranges[0]", [](Params&) {});
  triangle.ranges[1] = 1;
}

template <class Params>
void texture_refusals(const Refusals<Params>& refusals) {
  refusals.common();
  refusals.refuses("batch", [](Params& p) { p.texture_batch = 2; });
  refusals.refuses("texture height", [](Params& p) { p.texture_height = 0; });
  refusals.refuses("texture width", [](Params& p) { p.texture_width = int64_t(1) << 50; });
  refusals.refuses("filter", [](Params& p) { p.filter = dibr_filter(3); });
  refusals.refuses("wrap", [](Params& p) { p.wrap = dibr_wrap(3); });
  refusals.refuses("uv", [](Params& p) { p.uv = nullptr; });
  refusals.refuses("mip_level", [](Params& p) { p.filter = DIBR_FILTER_TRILINEAR; });
}

#define REFUSALS(name, good) \
  Refusals<dibr_##name##_params> { #name, dibr_##name##_workspace_size, dibr_##name, good }

void test_rasterize(Triangle& triangle) {
  using Params = dibr_rasterize_params;
  const auto refusals = REFUSALS(rasterize, triangle.rasterize());
  refusals.common();
  mesh_refusals(refusals, triangle);
  refusals.refuses("positions", [](Params& p) { p.positions = nullptr; });
  refusals.refuses("barycentrics", [](Params& p) { p.barycentrics = nullptr; });
  refusals.refuses("cull", [](Params& p) { p.cull = dibr_cull(2); });
  for (const auto& [start, count] : {std::pair{0, 2}, {-1, 1}, {1, 1}, {0, -1}, {INT32_MAX, INT32_MAX}}) {
    triangle.ranges[0] = start;
    triangle.ranges[1] = count;
    refusals.refuses("face_ranges[0]", [](Params&) {});
  }
  triangle.ranges[0] = 0;
  triangle.ranges[1] = 1;
}

}  // namespace

void test_bad_input() {
  Triangle triangle;
  expect(dibr_schema_version() == DIBR_SCHEMA_VERSION, "dibr_schema_version() is not that of the header");
  expect(dibr_last_error() != nullptr, "dibr_last_error() is NULL");
  test_rasterize(triangle);
  const auto backward = REFUSALS(rasterize_backward, triangle.rasterize_backward());
  backward.common();
  std::fill(std::begin(triangle.face_index), std::end(triangle.face_index), 0);
  mesh_refusals(backward, triangle);
  face_index_refusals(backward, triangle);
  interpolate_refusals(REFUSALS(interpolate, triangle.interpolate()), triangle);
  interpolate_refusals(REFUSALS(interpolate_backward, triangle.interpolate_backward()), triangle);
  const auto over_raster = REFUSALS(interpolate_raster_backward, triangle.interpolate_raster_backward());
  interpolate_refusals(over_raster, triangle);
  using OverRaster = dibr_interpolate_raster_backward_params;
  over_raster.refuses("positions is NULL", [](OverRaster& p) { p.positions = nullptr; });
  over_raster.refuses("raster_faces is NULL", [](OverRaster& p) { p.raster_face_indices = nullptr; });
  over_raster.refuses("raster_faces[0, 1] = 1", [](OverRaster& p) { p.raster_vertices = 1; });
  soft_mask_refusals(REFUSALS(soft_mask, triangle.soft_mask()), triangle);
  soft_mask_refusals(REFUSALS(soft_mask_backward, triangle.soft_mask_backward()), triangle);
  antialias_refusals(REFUSALS(antialias, triangle.antialias()), triangle);
  antialias_refusals(REFUSALS(antialias_backward, triangle.antialias_backward()), triangle);
  texture_refusals(REFUSALS(texture, triangle.sample()));
  texture_refusals(REFUSALS(texture_backward, triangle.sample_backward()));
}

}  // namespace dibr::test
