// The entry points of libdibr: check every argument, then hand over to the backend of the launch's device.
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <initializer_list>
#include <new>

#include "abi/backend.h"
#include "abi/error.h"

namespace dibr {
namespace {

constexpr int64_t kMaxImageSide = 32768;
constexpr int64_t kMaxCount = INT32_MAX;
constexpr int64_t kMaxElements = int64_t(1) << 40;
constexpr double kMaxParameter = 1e30;  // finite in float32

thread_local char last_error[512] = "no error";

// Collects the first failure of an op's arguments; later checks do nothing once one has failed.
class Checker {
 public:
  explicit Checker(const char* op) : op_(op) {}
  dibr_status status() const { return status_; }

  void dtype(dibr_dtype value) {
    if (ok() && value != DIBR_FLOAT32 && value != DIBR_FLOAT64) {
      status_ = fail(DIBR_UNSUPPORTED, "%s: dtype must be float32 or float64, got dtype code %d", op_, int(value));
    }
    element_ = storage_ = value == DIBR_FLOAT64 ? 8 : 4;
  }
  // For ops whose attributes or textures may be stored in 16 bits.
  void storage_dtype(dibr_dtype value) {
    const bool half = value == DIBR_FLOAT16 || value == DIBR_BFLOAT16;
    dtype(half ? DIBR_FLOAT32 : value);
    if (half) storage_ = 2;
  }
  uint64_t storage() const { return storage_; }
  // An argument that is stored in the op's dtype, or in 16 bits beside float32.
  void stored_beside(dibr_dtype real, const char* name, dibr_dtype value) {
    const bool half = value == DIBR_FLOAT16 || value == DIBR_BFLOAT16;
    if (ok() && value != real && !(half && real == DIBR_FLOAT32)) {
      status_ = fail(DIBR_UNSUPPORTED, "%s: dtype of %s does not go with the op's, got codes %d and %d", op_, name,
                     int(value), int(real));
    }
  }
  void range(const char* name, int64_t value, int64_t lowest, int64_t highest) {
    if (ok() && (value < lowest || value > highest)) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s must be in [%lld, %lld], got %lld", op_, name,
                     static_cast<long long>(lowest), static_cast<long long>(highest), static_cast<long long>(value));
    }
  }
  void image(int64_t batch, int64_t height, int64_t width) {
    range("batch", batch, 0, kMaxCount);
    range("height", height, 1, kMaxImageSide);
    range("width", width, 1, kMaxImageSide);
  }
  void mesh(int64_t vertices, int64_t faces) {
    range("vertices", vertices, 0, kMaxCount);
    range("faces", faces, 0, kMaxCount / 4);
  }
  void shared_batch(const char* name, int64_t value, int64_t batch) {
    if (ok() && value != batch && value != 1) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s must be 1 or the batch size %lld, got %lld", op_, name,
                     static_cast<long long>(batch), static_cast<long long>(value));
    }
  }
  // No array may exceed kMaxElements, so that offsets and byte counts stay inside int64.
  void elements(const char* name, std::initializer_list<int64_t> shape) {
    int64_t product = 1;
    for (const int64_t n : shape) {
      if (ok() && (__builtin_mul_overflow(product, n, &product) || product > kMaxElements)) {
        status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s has more than 2^40 elements", op_, name);
      }
    }
  }
  void parameter(const char* name, double value, double lowest, bool strictly) {
    if (ok() && !(value <= kMaxParameter && (strictly ? value > lowest : value >= lowest))) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s must be %s %g and at most %g, got %g", op_, name,
                     strictly ? "above" : "at least", lowest, kMaxParameter, value);
    }
  }
  // A pointer to values of the op's dtype (size 0) or of the given size, required where count > 0.
  void pointer(const char* name, const void* p, int64_t count, uint64_t size = 0) {
    if (ok() && p == nullptr && count > 0) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s is NULL", op_, name);
    }
    aligned(name, p, size == 0 ? element_ : size);
  }
  void optional(const char* name, const void* p, uint64_t size = 0) { aligned(name, p, size == 0 ? element_ : size); }
  void device(dibr_device value, bool has_cuda) {
    if (ok() && value != DIBR_CPU && !(value == DIBR_CUDA && has_cuda)) {
      status_ = fail(DIBR_UNSUPPORTED, "%s: device code %d is not available in this build of libdibr, which has %s",
                     op_, int(value), has_cuda ? "CPU (0) and CUDA (1)" : "the CPU (0) alone");
    }
  }
  void workspace(const dibr_launch& launch, uint64_t needed) {
    if (ok() && launch.workspace_bytes < needed) {
      status_ = fail(DIBR_WORKSPACE_TOO_SMALL, "%s: workspace must have %llu bytes, got %llu", op_,
                     static_cast<unsigned long long>(needed), static_cast<unsigned long long>(launch.workspace_bytes));
    }
    if (ok() && needed > 0 && launch.workspace == nullptr) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: workspace is NULL", op_);
    }
    aligned("workspace", launch.workspace, 16);
  }

 private:
  bool ok() const { return status_ == DIBR_OK; }
  void aligned(const char* name, const void* p, uint64_t size) {
    if (ok() && reinterpret_cast<uintptr_t>(p) % size != 0) {
      status_ = fail(DIBR_INVALID_ARGUMENT, "%s: %s must be aligned to %llu bytes", op_, name,
                     static_cast<unsigned long long>(size));
    }
  }

  const char* op_;
  dibr_status status_ = DIBR_OK;
  uint64_t element_ = 4;
  uint64_t storage_ = 4;
};

// check_sizes: what the workspace depends on. check_pointers: the rest, before a launch.

template <class P>
void check_dtype(Checker& c, const P& p) {
  c.dtype(p.dtype);
}
void check_dtype(Checker& c, const dibr_interpolate_params& p) { c.storage_dtype(p.dtype); }
void check_dtype(Checker& c, const dibr_texture_params& p) { c.storage_dtype(p.dtype); }
void check_dtype(Checker& c, const dibr_antialias_params& p) { c.storage_dtype(p.dtype); }

template <class P>
void check_raster_sizes(Checker& c, const P& p) {
  check_dtype(c, p);
  c.image(p.batch, p.height, p.width);
  c.mesh(p.vertices, p.faces);
  c.elements("positions", {p.batch, p.vertices, 4});
  c.elements("barycentrics", {p.batch, p.height, p.width, 3});
  c.elements("face_valid", {p.batch, p.faces});
}
template <class P>
int64_t pixels(const P& p) {
  return p.batch * p.height * p.width;
}

void check_sizes(Checker& c, const dibr_rasterize_params& p) {
  check_raster_sizes(c, p);
  c.range("cull", p.cull, DIBR_CULL_NONE, DIBR_CULL_BACK);
}
void check_pointers(Checker& c, const dibr_rasterize_params& p) {
  c.pointer("positions", p.positions, p.batch * p.vertices);
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.optional("face_ranges", p.face_ranges, 4);
  c.optional("face_valid", p.face_valid, 4);
  c.pointer("face_index", p.face_index, pixels(p), 4);
  c.pointer("barycentrics", p.barycentrics, pixels(p));
  c.optional("depth", p.depth);
}

void check_sizes(Checker& c, const dibr_rasterize_backward_params& p) { check_raster_sizes(c, p); }
void check_pointers(Checker& c, const dibr_rasterize_backward_params& p) {
  c.pointer("positions", p.positions, p.batch * p.vertices);
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.pointer("face_index", p.face_index, pixels(p), 4);
  c.optional("barycentrics", p.barycentrics);
  c.optional("grad_barycentrics", p.grad_barycentrics);
  c.optional("grad_depth", p.grad_depth);
  c.pointer("grad_positions", p.grad_positions, p.batch * p.vertices);
}

template <class P>
void check_interpolate_sizes(Checker& c, const P& p) {
  check_dtype(c, p);
  c.image(p.batch, p.height, p.width);
  c.mesh(p.vertices, p.faces);
  c.shared_batch("attribute batch", p.attribute_batch, p.batch);
  c.range("channels", p.channels, 0, kMaxCount);
  c.elements("attributes", {p.attribute_batch, p.vertices, p.channels});
  c.elements("barycentrics", {p.batch, p.height, p.width, 3});
  c.elements("output", {p.batch, p.height, p.width, p.channels});
}
template <class P>
void check_interpolate_pointers(Checker& c, const P& p) {
  c.pointer("attributes", p.attributes, p.attribute_batch * p.vertices * p.channels, c.storage());
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.pointer("face_index", p.face_index, pixels(p), 4);
  c.pointer("barycentrics", p.barycentrics, pixels(p));
}
void check_sizes(Checker& c, const dibr_interpolate_params& p) { check_interpolate_sizes(c, p); }
void check_pointers(Checker& c, const dibr_interpolate_params& p) {
  check_interpolate_pointers(c, p);
  c.pointer("output", p.output, pixels(p) * p.channels, c.storage());
}
void check_sizes(Checker& c, const dibr_interpolate_backward_params& p) { check_interpolate_sizes(c, p); }
void check_pointers(Checker& c, const dibr_interpolate_backward_params& p) {
  check_interpolate_pointers(c, p);
  c.pointer("grad_output", p.grad_output, pixels(p) * p.channels, c.storage());
  c.optional("grad_attributes", p.grad_attributes);
  c.optional("grad_barycentrics", p.grad_barycentrics);
}

void check_sizes(Checker& c, const dibr_interpolate_raster_backward_params& p) {
  check_interpolate_sizes(c, p);
  c.range("raster vertices", p.raster_vertices, 0, kMaxCount);
  c.elements("positions", {p.batch, p.raster_vertices, 4});
}
void check_pointers(Checker& c, const dibr_interpolate_raster_backward_params& p) {
  check_interpolate_pointers(c, p);
  c.pointer("positions", p.positions, p.batch * p.raster_vertices);
  c.pointer("raster_faces", p.raster_face_indices, p.faces, 4);
  c.pointer("grad_output", p.grad_output, pixels(p) * p.channels, c.storage());
  c.optional("grad_attributes", p.grad_attributes);
  c.pointer("grad_positions", p.grad_positions, p.batch * p.raster_vertices);
}

template <class P>
void check_soft_mask_sizes(Checker& c, const P& p) {
  check_raster_sizes(c, p);
  c.parameter("sigmainv", p.sigmainv, 0.0, true);
  c.parameter("boxlen", p.boxlen, 0.0, false);
  c.range("knum", p.knum, 1, kMaxCount);
}
template <class P>
void check_soft_mask_pointers(Checker& c, const P& p) {
  c.pointer("positions", p.positions, p.batch * p.vertices);
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.optional("face_ranges", p.face_ranges, 4);
  c.pointer("face_index", p.face_index, pixels(p), 4);
}
void check_sizes(Checker& c, const dibr_soft_mask_params& p) { check_soft_mask_sizes(c, p); }
void check_pointers(Checker& c, const dibr_soft_mask_params& p) {
  check_soft_mask_pointers(c, p);
  c.pointer("mask", p.mask, pixels(p));
}
void check_sizes(Checker& c, const dibr_soft_mask_backward_params& p) { check_soft_mask_sizes(c, p); }
void check_pointers(Checker& c, const dibr_soft_mask_backward_params& p) {
  check_soft_mask_pointers(c, p);
  c.pointer("grad_mask", p.grad_mask, pixels(p));
  c.pointer("grad_positions", p.grad_positions, p.batch * p.vertices);
  c.optional("kept", p.kept, 16);
}

template <class P>
void check_texture_sizes(Checker& c, const P& p) {
  check_dtype(c, p);
  c.image(p.batch, p.height, p.width);
  c.shared_batch("texture batch", p.texture_batch, p.batch);
  c.range("channels", p.channels, 0, kMaxCount);
  c.range("texture height", p.texture_height, 1, kMaxImageSide);
  c.range("texture width", p.texture_width, 1, kMaxImageSide);
  c.range("filter", p.filter, DIBR_FILTER_NEAREST, DIBR_FILTER_TRILINEAR);
  c.range("wrap", p.wrap, DIBR_WRAP_CLAMP, DIBR_WRAP_MIRROR);
  c.elements("texture", {p.texture_batch, p.channels, p.texture_height, p.texture_width});
  c.elements("uv", {p.batch, p.height, p.width, 2});
  c.elements("output", {p.batch, p.height, p.width, p.channels});
}
template <class P>
void check_texture_pointers(Checker& c, const P& p) {
  c.pointer("texture", p.texture, p.texture_batch * p.channels, c.storage());
  c.pointer("uv", p.uv, pixels(p));
  if (p.filter == DIBR_FILTER_TRILINEAR) {
    c.pointer("mip_level", p.mip_level, pixels(p));
  } else {
    c.optional("mip_level", p.mip_level);
  }
}
void check_sizes(Checker& c, const dibr_texture_params& p) { check_texture_sizes(c, p); }
void check_pointers(Checker& c, const dibr_texture_params& p) {
  check_texture_pointers(c, p);
  c.pointer("output", p.output, pixels(p) * p.channels, c.storage());
}
void check_sizes(Checker& c, const dibr_texture_backward_params& p) { check_texture_sizes(c, p); }
void check_pointers(Checker& c, const dibr_texture_backward_params& p) {
  check_texture_pointers(c, p);
  c.pointer("grad_output", p.grad_output, pixels(p) * p.channels, c.storage());
  c.optional("grad_texture", p.grad_texture);
  c.optional("grad_uv", p.grad_uv);
  c.optional("grad_mip_level", p.grad_mip_level);
}

template <class P>
void check_antialias_sizes(Checker& c, const P& p) {
  check_raster_sizes(c, p);
  c.range("channels", p.channels, 0, kMaxCount);
  c.elements("image", {p.batch, p.height, p.width, p.channels});
}
template <class P>
void check_antialias_pointers(Checker& c, const P& p) {
  c.pointer("image", p.image, pixels(p) * p.channels, c.storage());
  c.pointer("positions", p.positions, p.batch * p.vertices);
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.optional("face_ranges", p.face_ranges, 4);
  c.pointer("face_index", p.face_index, pixels(p), 4);
  c.pointer("barycentrics", p.barycentrics, pixels(p));
}
void check_sizes(Checker& c, const dibr_antialias_params& p) { check_antialias_sizes(c, p); }
void check_pointers(Checker& c, const dibr_antialias_params& p) {
  check_antialias_pointers(c, p);
  c.pointer("output", p.output, pixels(p) * p.channels, c.storage());
}
void check_sizes(Checker& c, const dibr_antialias_backward_params& p) { check_antialias_sizes(c, p); }
void check_pointers(Checker& c, const dibr_antialias_backward_params& p) {
  check_antialias_pointers(c, p);
  c.pointer("grad_output", p.grad_output, pixels(p) * p.channels, c.storage());
  c.optional("grad_image", p.grad_image);
  c.optional("grad_positions", p.grad_positions);
}

// The arrays of one interpolation, in messages called by their names in the schema.
struct RenderArrays {
  const char *values, *faces, *output, *batch, *vertices, *channels;
};
#define DIBR_RENDER_ARRAYS(values, faces, output) \
  {values, faces, output, "batch of " values, "vertices of " values, "channels of " values}
constexpr RenderArrays kUvArrays = DIBR_RENDER_ARRAYS("uvs", "uv_faces", "uv");
constexpr RenderArrays kAttributeArrays[DIBR_RENDER_ATTRIBUTES] = {
    DIBR_RENDER_ARRAYS("attributes_0", "attribute_faces_0", "interpolated_0"),
    DIBR_RENDER_ARRAYS("attributes_1", "attribute_faces_1", "interpolated_1"),
    DIBR_RENDER_ARRAYS("attributes_2", "attribute_faces_2", "interpolated_2")};
#undef DIBR_RENDER_ARRAYS

uint64_t size_of(dibr_dtype dtype) { return dtype == DIBR_FLOAT64 ? 8 : dtype == DIBR_FLOAT32 ? 4 : 2; }

bool writes(const dibr_render_params& p, uint32_t outputs) { return (p.outputs & outputs) != 0; }
bool samples_uv(const dibr_render_params& p) { return writes(p, DIBR_RENDER_COLOR | DIBR_RENDER_UV); }
bool writes_attributes(const dibr_render_params& p, int k) { return writes(p, DIBR_RENDER_FIRST_ATTRIBUTES << k); }

void check_dtype(Checker& c, const dibr_render_params& p) { c.dtype(p.dtype); }

void check_render_attributes(Checker& c, const dibr_render_params& p, const dibr_render_attributes& a,
                             const RenderArrays& names) {
  c.shared_batch(names.batch, a.batch, p.batch);
  c.range(names.vertices, a.vertices, 0, kMaxCount);
  c.range(names.channels, a.channels, 0, kMaxCount);
  c.elements(names.values, {a.batch, a.vertices, a.channels});
  c.elements(names.output, {p.batch, p.height, p.width, a.channels});
}
void check_sizes(Checker& c, const dibr_render_params& p) {
  check_raster_sizes(c, p);
  c.range("cull", p.cull, DIBR_CULL_NONE, DIBR_CULL_BACK);
  c.range("outputs", p.outputs, 1, DIBR_RENDER_ALL);
  c.parameter("sigmainv", p.sigmainv, 0.0, true);
  c.parameter("boxlen", p.boxlen, 0.0, false);
  c.range("knum", p.knum, 1, kMaxCount);
  c.range("filter", p.filter, DIBR_FILTER_NEAREST, DIBR_FILTER_BILINEAR);
  c.range("wrap", p.wrap, DIBR_WRAP_CLAMP, DIBR_WRAP_MIRROR);
  if (samples_uv(p)) {
    check_render_attributes(c, p, p.uv, kUvArrays);
    c.range(kUvArrays.channels, p.uv.channels, 2, 2);
  }
  if (writes(p, DIBR_RENDER_COLOR)) {
    c.stored_beside(p.dtype, "texture", p.texture_dtype);
    c.shared_batch("texture batch", p.texture_batch, p.batch);
    c.range("texture channels", p.texture_channels, 0, kMaxCount);
    c.range("texture height", p.texture_height, 1, kMaxImageSide);
    c.range("texture width", p.texture_width, 1, kMaxImageSide);
    c.elements("texture", {p.texture_batch, p.texture_channels, p.texture_height, p.texture_width});
    c.elements("color", {p.batch, p.height, p.width, p.texture_channels});
  }
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    if (!writes_attributes(p, k)) continue;
    c.stored_beside(p.dtype, "attributes", p.attribute_dtype);
    check_render_attributes(c, p, p.attributes[k], kAttributeArrays[k]);
  }
}
void check_attribute_pointers(Checker& c, const dibr_render_params& p, const dibr_render_attributes& a,
                              const RenderArrays& names, dibr_dtype dtype, bool has_output) {
  c.pointer(names.values, a.values, a.batch * a.vertices * a.channels, size_of(dtype));
  c.pointer(names.faces, a.face_indices, p.faces, 4);
  if (has_output) c.pointer(names.output, a.output, pixels(p) * a.channels, size_of(dtype));
}
void check_pointers(Checker& c, const dibr_render_params& p) {
  c.pointer("positions", p.positions, p.batch * p.vertices);
  c.pointer("faces", p.face_indices, p.faces, 4);
  c.optional("face_ranges", p.face_ranges, 4);
  c.optional("face_valid", p.face_valid, 4);
  if (samples_uv(p)) check_attribute_pointers(c, p, p.uv, kUvArrays, p.dtype, writes(p, DIBR_RENDER_UV));
  if (writes(p, DIBR_RENDER_COLOR)) {
    c.pointer("texture", p.texture, p.texture_batch * p.texture_channels, size_of(p.texture_dtype));
    c.pointer("color", p.color, pixels(p) * p.texture_channels, size_of(p.texture_dtype));
  }
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    if (!writes_attributes(p, k)) continue;
    check_attribute_pointers(c, p, p.attributes[k], kAttributeArrays[k], p.attribute_dtype, true);
  }
  if (writes(p, DIBR_RENDER_MASK)) c.pointer("mask", p.mask, pixels(p));
  if (writes(p, DIBR_RENDER_FACE_INDEX)) c.pointer("face_index", p.face_index, pixels(p), 4);
  if (writes(p, DIBR_RENDER_DEPTH)) c.pointer("depth", p.depth, pixels(p));
  if (writes(p, DIBR_RENDER_BARYCENTRICS)) c.pointer("barycentrics", p.barycentrics, pixels(p));
}

template <class P>
struct Backend {
  dibr_status (*workspace)(const P&, Arena&);
  dibr_status (*launch)(const P&, const dibr_launch&);
};

// Both backends of one op; cuda is empty in a build without it.
template <class P>
struct Op {
  const char* name;
  Backend<P> cpu, cuda;
  const Backend<P>& on(dibr_device device) const { return device == DIBR_CUDA ? cuda : cpu; }
};

template <class P>
dibr_status measure(const Op<P>& op, const P* params, dibr_device device, uint64_t* bytes) {
  if (params == nullptr) return fail(DIBR_INVALID_ARGUMENT, "%s: params is NULL", op.name);
  if (bytes == nullptr) return fail(DIBR_INVALID_ARGUMENT, "%s: bytes is NULL", op.name);
  Checker checker(op.name);
  checker.device(device, op.cuda.launch != nullptr);
  check_sizes(checker, *params);
  if (checker.status() != DIBR_OK) return checker.status();
  Arena arena;
  const dibr_status status = op.on(device).workspace(*params, arena);
  if (status != DIBR_OK) return status;
  if (arena.overflow()) return fail(DIBR_INVALID_ARGUMENT, "%s: the workspace would exceed 2^63 bytes", op.name);
  *bytes = arena.used();
  return DIBR_OK;
}

template <class P>
dibr_status run(const Op<P>& op, const P* params, const dibr_launch* launch) {
  if (launch == nullptr) return fail(DIBR_INVALID_ARGUMENT, "%s: launch is NULL", op.name);
  uint64_t needed = 0;
  const dibr_status measured = measure(op, params, launch->device, &needed);
  if (measured != DIBR_OK) return measured;
  Checker checker(op.name);
  check_dtype(checker, *params);
  check_pointers(checker, *params);
  checker.workspace(*launch, needed);
  if (checker.status() != DIBR_OK) return checker.status();
  try {
    return op.on(launch->device).launch(*params, *launch);
  } catch (const std::bad_alloc&) {
    return fail(DIBR_INTERNAL, "%s: out of host memory", op.name);
  } catch (...) {
    return fail(DIBR_INTERNAL, "%s: unexpected failure", op.name);
  }
}

}  // namespace

dibr_status fail(dibr_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace dibr

#if DIBR_WITH_CUDA
#define DIBR_CUDA_BACKEND(name) {dibr::cuda::name##_workspace, dibr::cuda::name}
#else
#define DIBR_CUDA_BACKEND(name) {nullptr, nullptr}
#endif

#define DIBR_DEFINE_OP(name)                                                                                          \
  static const dibr::Op<dibr_##name##_params> name##_op = {                                                           \
      #name, {dibr::cpu::name##_workspace, dibr::cpu::name}, DIBR_CUDA_BACKEND(name)};                                \
  dibr_status dibr_##name##_workspace_size(const dibr_##name##_params* params, dibr_device device, uint64_t* bytes) { \
    return dibr::measure(name##_op, params, device, bytes);                                                           \
  }                                                                                                                   \
  dibr_status dibr_##name(const dibr_##name##_params* params, const dibr_launch* launch) {                            \
    return dibr::run(name##_op, params, launch);                                                                      \
  }

extern "C" {
DIBR_DEFINE_OP(rasterize)
DIBR_DEFINE_OP(rasterize_backward)
DIBR_DEFINE_OP(interpolate)
DIBR_DEFINE_OP(interpolate_backward)
DIBR_DEFINE_OP(interpolate_raster_backward)
DIBR_DEFINE_OP(soft_mask)
DIBR_DEFINE_OP(soft_mask_backward)
DIBR_DEFINE_OP(texture)
DIBR_DEFINE_OP(texture_backward)
DIBR_DEFINE_OP(antialias)
DIBR_DEFINE_OP(antialias_backward)
DIBR_DEFINE_OP(render)

const char* dibr_last_error(void) { return dibr::last_error; }
int32_t dibr_schema_version(void) { return DIBR_SCHEMA_VERSION; }
int32_t dibr_has_device(dibr_device device) {
  return device == DIBR_CPU || (device == DIBR_CUDA && rasterize_op.cuda.launch != nullptr);
}
}
