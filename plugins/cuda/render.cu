// Render on the GPU: a block draws a tile, and each thread goes on with what it drew at its pixel, in registers.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/interpolate.h"
#include "core/texture.h"
#include "cuda/raster_tile.cuh"
#include "cuda/soft_mask_tile.cuh"

namespace dibr::cuda {
namespace {

__host__ __device__ inline bool writes(const dibr_render_params& p, uint32_t outputs) {
  return (p.outputs & outputs) != 0;
}
__host__ __device__ inline bool samples_uv(const dibr_render_params& p) {
  return writes(p, DIBR_RENDER_COLOR | DIBR_RENDER_UV);
}

template <class T>
struct MaskBoxOf {
  __device__ PixelBox operator()(const dibr_render_params& p, int64_t image, int64_t face) const {
    return mask_box(triangle_of<T>(p, image, face), T(p.boxlen), p.width, p.height);
  }
};

// Calls body with the type of what is stored beside T: T itself, or 16 bits beside float32.
template <class T, class Body>
__device__ void with_storage(dibr_dtype dtype, const Body& body) {
  if (sizeof(T) == 4 && dtype == DIBR_FLOAT16) {
    body(Half{});
  } else if (sizeof(T) == 4 && dtype == DIBR_BFLOAT16) {
    body(BFloat16{});
  } else {
    body(T{});
  }
}

__device__ inline bool has_corners(const dibr_render_attributes& a, int64_t face) {
  bool inside = true;
  for (int k = 0; k < 3; ++k) {
    const int32_t v = a.face_indices[3 * face + k];
    inside = inside && v >= 0 && v < a.vertices;
  }
  return inside;
}

// One channel of what is stored as S; 0 on background, and where the face's corners are out of range.
template <class S, class T>
__device__ T interpolate_channel(const dibr_render_attributes& a, int64_t image, int32_t face, const T* b, int64_t c) {
  if (face < 0 || !has_corners(a, face)) return T(0);
  const S* values = static_cast<const S*>(a.values) + (a.batch == 1 ? 0 : image) * a.vertices * a.channels + c;
  const int32_t* corners = a.face_indices + 3 * int64_t(face);
  return interpolated(b, values[corners[0] * a.channels], values[corners[1] * a.channels],
                      values[corners[2] * a.channels]);
}

template <class T>
__device__ void write_color(const dibr_render_params& p, int64_t image, int64_t pixel, const T* uv) {
  const int64_t plane = p.texture_height * p.texture_width;
  const int64_t first = (p.texture_batch == 1 ? 0 : image) * p.texture_channels * plane;
  const bool samples = is_finite_uv(uv[0], uv[1]);
  Footprint<T> footprint = {};
  if (samples) footprint = texture_footprint(uv[0], uv[1], p.texture_height, p.texture_width, p.filter, p.wrap);
  with_storage<T>(p.texture_dtype, [&](auto s) {
    using S = decltype(s);
    const S* texture = static_cast<const S*>(p.texture) + first;
    S* out = static_cast<S*>(p.color) + pixel * p.texture_channels;
    for (int64_t c = 0; c < p.texture_channels; ++c) {
      store(samples ? sample_plane(footprint, texture + c * plane) : T(0), out + c);
    }
  });
}

template <class T>
__device__ void write_attributes(const dibr_render_params& p, const dibr_render_attributes& a, int64_t image,
                                 int64_t pixel, int32_t face, const T* b) {
  with_storage<T>(p.attribute_dtype, [&](auto s) {
    using S = decltype(s);
    S* out = static_cast<S*>(a.output) + pixel * a.channels;
    for (int64_t c = 0; c < a.channels; ++c) store(interpolate_channel<S>(a, image, face, b, c), out + c);
  });
}

// Every output but the mask.
template <class T>
__device__ void write_pixel(const dibr_render_params& p, int64_t image, const TilePixel<T>& at,
                            const Pixel<T>& result) {
  T b[3];
  pixel_barycentrics(p, image, at, result, b);
  if (writes(p, DIBR_RENDER_FACE_INDEX)) p.face_index[at.index] = result.face;
  if (writes(p, DIBR_RENDER_DEPTH)) static_cast<T*>(p.depth)[at.index] = result.face < 0 ? T(1) : result.depth;
  if (writes(p, DIBR_RENDER_BARYCENTRICS)) {
    for (int k = 0; k < 3; ++k) static_cast<T*>(p.barycentrics)[3 * at.index + k] = b[k];
  }
  if (samples_uv(p)) {
    T uv[2];
    for (int c = 0; c < 2; ++c) uv[c] = interpolate_channel<T>(p.uv, image, result.face, b, c);
    if (writes(p, DIBR_RENDER_UV)) {
      for (int c = 0; c < 2; ++c) static_cast<T*>(p.uv.output)[2 * at.index + c] = uv[c];
    }
    if (writes(p, DIBR_RENDER_COLOR)) write_color(p, image, at.index, uv);
  }
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    if (!writes(p, DIBR_RENDER_FIRST_ATTRIBUTES << k)) continue;
    write_attributes(p, p.attributes[k], image, at.index, result.face, b);
  }
}

template <class T>
__global__ void __launch_bounds__(kTilePixels) render_kernel(Bins bins, Bins mask_bins, dibr_render_params p) {
  __shared__ RasterScratch<T> scratch;
  __shared__ StagedMaskFace<T> near[kStagedMaskFaces];
  for (int64_t index = blockIdx.x; index < bins.batch * bins.tiles(); index += gridDim.x) {
    const Tile tile = tile_at(bins, p, index);
    const TilePixel<T> at(bins, tile);
    const Pixel<T> result = draw_tile(p, bins, tile, at, scratch);
    if (at.inside) write_pixel(p, tile.image, at, result);
    if (writes(p, DIBR_RENDER_MASK)) {
      const bool open = at.inside && result.face < 0;
      const T mask = tile_mask(p, mask_bins, tile_at(mask_bins, p, index), at, open, near);
      if (at.inside) static_cast<T*>(p.mask)[at.index] = mask;
    }
  }
}

// The mask's lists take memory only where there is a mask.
Bins mask_bins_of(const dibr_render_params& p, Arena& arena) {
  Arena none;
  return Bins(p.batch, p.faces, p.height, p.width, writes(p, DIBR_RENDER_MASK) ? arena : none);
}

template <class T>
dibr_status forward(const dibr_render_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Bins bins(p.batch, p.faces, p.height, p.width, arena);
  const Bins mask_bins = mask_bins_of(p, arena);
  if (p.batch == 0) return DIBR_OK;
  build_bins(bins, p, RasterBoxOf<T>{}, stream_of(launch));
  if (writes(p, DIBR_RENDER_MASK)) build_bins(mask_bins, p, MaskBoxOf<T>{}, stream_of(launch));
  DIBR_LAUNCH((render_kernel<T>), grid_for(p.batch * bins.tiles(), 1), kTilePixels, 0, stream_of(launch), bins,
              mask_bins, p);
  return launched("render");
}

}  // namespace

dibr_status render_workspace(const dibr_render_params& p, Arena& arena) {
  Bins(p.batch, p.faces, p.height, p.width, arena);
  mask_bins_of(p, arena);
  return DIBR_OK;
}
dibr_status render(const dibr_render_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
