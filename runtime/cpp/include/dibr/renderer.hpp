// libdibr for C++: the renderer for meshes of your own, without a network. docs/conventions.md says what the ops do.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "dibr/dibr.h"
#include "dibr/error.hpp"
#include "dibr/thread_pool.hpp"

namespace dibr {

// libdibr refused a call; what() says which argument, what was expected and what came.
class RendererError : public Error {
 public:
  RendererError(dibr_status status, const std::string& what) : Error(what), status_(status) {}
  dibr_status status() const { return status_; }

 private:
  dibr_status status_;
};

// Runs the forward ops on the CPU with threads of its own. Several threads may use one renderer at the same time.
// T: float or double. Results do not depend on the number of threads. Every call throws RendererError where an argument
// does not fit.
template <class T>
class BasicRenderer {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "T must be float or double");

 public:
  // Meshes of a batch. The arrays are the caller's and are only read.
  struct Geometry {
    Span<const T> positions;                 // [B, V, 4] clip space (x, y, z, w)
    Span<const std::int32_t> faces;          // [F, 3] vertex indices, counter-clockwise = front
    std::int64_t batch = 1;                  // B
    Span<const std::int32_t> face_ranges{};  // [B, 2] (start, count) into faces; empty: every mesh has all faces
    Span<const std::int32_t> face_valid{};   // [B, F], 0 = absent; empty: all faces are there
  };

  // What is visible at each pixel centre, and where in its face the pixel lies.
  struct Raster {
    std::int64_t batch = 0, height = 0, width = 0;
    std::vector<std::int32_t> face_index;  // [B, H, W], -1 = background
    std::vector<T> barycentrics;           // [B, H, W, 3], 0 on background
    std::vector<T> depth;                  // [B, H, W] NDC z/w, 1 on background
  };

  struct RasterizeOptions {
    bool perspective_correct = true;
    dibr_cull cull = DIBR_CULL_NONE;
    bool depth_clip = true;
  };

  struct SoftMaskOptions {
    double sigmainv = 7000.0;  // 1 / NDC^2
    double boxlen = 0.02;      // NDC
    std::int64_t knum = 30;
  };

  struct TextureOptions {
    dibr_filter filter = DIBR_FILTER_BILINEAR;
    dibr_wrap wrap = DIBR_WRAP_CLAMP;
  };

  // threads: that work on one call; 0 = one per core.
  explicit BasicRenderer(int threads = 0) : pool_(threads) {}

  Raster rasterize(const Geometry& geometry, std::int64_t height, std::int64_t width,
                   const RasterizeOptions& options = {}) {
    Raster raster{geometry.batch, height, width, {}, {}, {}};
    dibr_rasterize_params params{};
    describe(geometry, "rasterize", params);
    params.height = height;
    params.width = width;
    params.perspective_correct = options.perspective_correct;
    params.cull = options.cull;
    params.depth_clip = options.depth_clip;
    params.face_valid = geometry.face_valid.data();
    if (!geometry.face_valid.empty()) {
      expect(geometry.face_valid.size() == product("face_valid", {params.batch, params.faces}),
             "rasterize: face_valid must be [B, F]");
    }
    const std::size_t pixels = product("image", {params.batch, height, width});
    raster.face_index.resize(pixels);
    raster.barycentrics.resize(3 * pixels);
    raster.depth.resize(pixels);
    params.face_index = raster.face_index.data();
    params.barycentrics = raster.barycentrics.data();
    params.depth = raster.depth.data();
    run(params, dibr_rasterize_workspace_size, dibr_rasterize);
    return raster;
  }

  // attributes: [B or 1, V, channels] of the vertices that faces [F, 3] address. Returns [B, H, W, channels], 0 on
  // background.
  std::vector<T> interpolate(Span<const T> attributes, std::int64_t channels, Span<const std::int32_t> faces,
                             const Raster& raster, std::int64_t attribute_batch = 1) {
    dibr_interpolate_params params{};
    params.dtype = dtype;
    params.batch = raster.batch;
    params.attribute_batch = attribute_batch;
    params.channels = channels;
    params.height = raster.height;
    params.width = raster.width;
    expect(attribute_batch >= 1 && channels >= 1, "interpolate: attribute_batch and channels must be at least 1");
    params.vertices = quotient(attributes.size(), product("attributes", {attribute_batch, channels}),
                               "interpolate: attributes must be [attribute_batch, V, channels]");
    params.faces = quotient(faces.size(), 3, "interpolate: faces must be [F, 3]");
    params.attributes = attributes.data();
    params.face_indices = faces.data();
    describe(raster, "interpolate", params);
    params.barycentrics = raster.barycentrics.data();
    std::vector<T> output(product("output", {raster.batch, raster.height, raster.width, channels}));
    params.output = output.data();
    run(params, dibr_interpolate_workspace_size, dibr_interpolate);
    return output;
  }

  // texture: [B or 1, channels, texture_height, texture_width]; uv: [B, H, W, 2] as interpolate gives it.
  // mip_level: [B, H, W] with DIBR_FILTER_TRILINEAR, 0 is the texture itself, and every 1 more halves its sides; else
  // empty. Returns [B, H, W, channels].
  std::vector<T> texture(Span<const T> texture, std::int64_t channels, std::int64_t texture_height,
                         std::int64_t texture_width, Span<const T> uv, const Raster& raster,
                         const TextureOptions& options = {}, Span<const T> mip_level = {}) {
    dibr_texture_params params{};
    params.dtype = dtype;
    params.batch = raster.batch;
    params.channels = channels;
    params.texture_height = texture_height;
    params.texture_width = texture_width;
    params.height = raster.height;
    params.width = raster.width;
    params.filter = options.filter;
    params.wrap = options.wrap;
    params.texture_batch = quotient(texture.size(), product("texture", {channels, texture_height, texture_width}),
                                    "texture: texture must be [B or 1, channels, texture_height, texture_width]");
    expect(uv.size() == product("uv", {raster.batch, raster.height, raster.width, 2}),
           "texture: uv must be [B, H, W, 2] of the raster");
    params.texture = texture.data();
    params.uv = uv.data();
    const bool trilinear = options.filter == DIBR_FILTER_TRILINEAR;
    expect(
        mip_level.size() == (trilinear ? product("mip_level", {raster.batch, raster.height, raster.width}) : 0),
        "texture: mip_level must be [B, H, W] of the raster with DIBR_FILTER_TRILINEAR, and empty with other filters");
    params.mip_level = mip_level.data();
    std::vector<T> output(product("output", {raster.batch, raster.height, raster.width, channels}));
    params.output = output.data();
    run(params, dibr_texture_workspace_size, dibr_texture);
    return output;
  }

  // The silhouette, soft outside of the mesh: [B, H, W].
  std::vector<T> soft_mask(const Geometry& geometry, const Raster& raster, const SoftMaskOptions& options = {}) {
    dibr_soft_mask_params params{};
    describe(geometry, "soft_mask", params);
    describe(raster, "soft_mask", params);
    params.sigmainv = options.sigmainv;
    params.boxlen = options.boxlen;
    params.knum = options.knum;
    std::vector<T> mask(raster.face_index.size());
    params.mask = mask.data();
    run(params, dibr_soft_mask_workspace_size, dibr_soft_mask);
    return mask;
  }

  // image: [B, H, W, channels]. Returns it with colours blended across silhouette edges.
  std::vector<T> antialias(Span<const T> image, std::int64_t channels, const Geometry& geometry, const Raster& raster) {
    dibr_antialias_params params{};
    describe(geometry, "antialias", params);
    describe(raster, "antialias", params);
    params.channels = channels;
    expect(image.size() == product("image", {raster.batch, raster.height, raster.width, channels}),
           "antialias: image must be [B, H, W, channels] of the raster");
    params.image = image.data();
    params.barycentrics = raster.barycentrics.data();
    std::vector<T> output(image.size());
    params.output = output.data();
    run(params, dibr_antialias_workspace_size, dibr_antialias);
    return output;
  }

 private:
  static constexpr dibr_dtype dtype = std::is_same_v<T, float> ? DIBR_FLOAT32 : DIBR_FLOAT64;

  static void expect(bool holds, const std::string& what) {
    if (!holds) throw RendererError(DIBR_INVALID_ARGUMENT, what);
  }

  static std::size_t product(const char* what, std::initializer_list<std::int64_t> sizes) {
    std::size_t result = 1;
    for (const std::int64_t size : sizes) {
      expect(size >= 0, std::string(what) + ": no size may be below 0, got " + std::to_string(size));
      const auto factor = static_cast<std::size_t>(size);
      // Leaves room for three elements of 8 bytes each.
      expect(factor == 0 || result <= std::numeric_limits<std::size_t>::max() / 32 / factor,
             std::string(what) + " is too large");
      result *= factor;
    }
    return result;
  }

  static std::int64_t quotient(std::size_t size, std::size_t by, const std::string& what) {
    expect(by > 0 && size % by == 0, what);
    return static_cast<std::int64_t>(size / by);
  }

  template <class Params>
  static void describe(const Geometry& geometry, const std::string& op, Params& params) {
    params.dtype = dtype;
    params.batch = geometry.batch;
    const std::size_t per_vertex = 4 * product("batch", {geometry.batch});
    params.vertices =
        per_vertex == 0 ? 0 : quotient(geometry.positions.size(), per_vertex, op + ": positions must be [B, V, 4]");
    params.faces = quotient(geometry.faces.size(), 3, op + ": faces must be [F, 3]");
    expect(geometry.face_ranges.empty() || geometry.face_ranges.size() == 2 * static_cast<std::size_t>(geometry.batch),
           op + ": face_ranges must be [B, 2]");
    params.positions = geometry.positions.data();
    params.face_indices = geometry.faces.data();
    params.face_ranges = geometry.face_ranges.data();
  }

  template <class Params>
  static void describe(const Raster& raster, const std::string& op, Params& params) {
    expect(params.batch == raster.batch, op + ": geometry and raster are of different batches");
    const std::size_t pixels = product("raster", {raster.batch, raster.height, raster.width});
    expect(raster.face_index.size() == pixels && raster.barycentrics.size() == 3 * pixels,
           op + ": raster must be as rasterize returns it");
    params.height = raster.height;
    params.width = raster.width;
    params.face_index = raster.face_index.data();
  }

  template <class Params>
  void run(const Params& params, dibr_status (*workspace_size)(const Params*, dibr_device, std::uint64_t*),
           dibr_status (*op)(const Params*, const dibr_launch*)) {
    std::uint64_t bytes = 0;
    check(workspace_size(&params, DIBR_CPU, &bytes));
    // operator new aligns to 16 bytes, as libdibr asks for, and leaves the memory as it is.
    const std::unique_ptr<unsigned char[]> workspace(bytes > 0 ? new unsigned char[bytes] : nullptr);
    dibr_launch launch{};
    launch.device = DIBR_CPU;
    launch.parallel_for = ThreadPool::callback;
    launch.parallel_for_state = &pool_;
    launch.workspace = workspace.get();
    launch.workspace_bytes = bytes;
    check(op(&params, &launch));
  }

  static void check(dibr_status status) {
    if (status != DIBR_OK) throw RendererError(status, dibr_last_error());
  }

  ThreadPool pool_;
};

using Renderer = BasicRenderer<float>;
using Renderer64 = BasicRenderer<double>;

}  // namespace dibr
