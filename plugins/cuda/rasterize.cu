// Rasterize on the GPU: one block per tile, one thread per pixel, faces staged in shared memory.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cuda/raster_tile.cuh"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kTilePixels) raster_kernel(Bins bins, dibr_rasterize_params p) {
  __shared__ RasterScratch<T> scratch;
  for (int64_t index = blockIdx.x; index < bins.batch * bins.tiles(); index += gridDim.x) {
    const Tile tile = tile_at(bins, p, index);
    const TilePixel<T> at(bins, tile);
    const Pixel<T> result = draw_tile(p, bins, tile, at, scratch);
    if (!at.inside) continue;
    T b[3];
    pixel_barycentrics(p, tile.image, at, result, b);
    p.face_index[at.index] = result.face;
    for (int k = 0; k < 3; ++k) static_cast<T*>(p.barycentrics)[3 * at.index + k] = b[k];
    if (p.depth != nullptr) static_cast<T*>(p.depth)[at.index] = result.face < 0 ? T(1) : result.depth;
  }
}

template <class T, class Sink>
__global__ void __launch_bounds__(kBlock) raster_backward_kernel(dibr_rasterize_backward_params p, Sink sink) {
  const int64_t pixels = p.batch * p.height * p.width;
  for (int64_t base = int64_t(blockIdx.x) * kBlock; base < pixels; base += thread_stride()) {
    const int64_t pixel = base + threadIdx.x;
    const int32_t face = pixel < pixels ? face_at(p, pixel) : -1;
    const int64_t image = pixel / (p.height * p.width);
    TriangleGradient<T> gradient = {};
    if (face >= 0) {
      const T none[3] = {};
      const T* grad_b = static_cast<const T*>(p.grad_barycentrics);
      const T* grad_depth = static_cast<const T*>(p.grad_depth);
      accumulate_raster_gradient(triangle_of<T>(p, image, face), pixel_x<T>(pixel % p.width, p.width),
                                 pixel_y<T>(pixel / p.width % p.height, p.height), p.perspective_correct != 0,
                                 grad_b != nullptr ? grad_b + 3 * pixel : none,
                                 grad_depth != nullptr ? grad_depth[pixel] : T(0), &gradient);
    }
    const WarpRuns runs(face < 0 ? -1 : image * p.faces + face);
    for (int k = 0; k < 3; ++k) {
      const int64_t vertex = face < 0 ? 0 : image * p.vertices + p.face_indices[3 * int64_t(face) + k];
      for (int c = 0; c < 4; ++c) {
        const T sum = runs.sum(gradient.v[k][c]);
        if (face >= 0 && runs.is_head()) sink.add(4 * vertex + c, sum);
      }
    }
  }
}

template <class T>
dibr_status forward(const dibr_rasterize_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Bins bins(p.batch, p.faces, p.height, p.width, arena);
  if (p.batch == 0) return DIBR_OK;
  build_bins(bins, p, RasterBoxOf<T>{}, stream_of(launch));
  DIBR_LAUNCH((raster_kernel<T>), grid_for(p.batch * bins.tiles(), 1), kTilePixels, 0, stream_of(launch), bins, p);
  return launched("rasterize");
}

template <class T>
ScatterSpace<T> position_space(const dibr_rasterize_backward_params& p, Arena& arena) {
  return ScatterSpace<T>(p.batch * p.vertices * 4, p.height * p.width * 3, p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  scatter_add(position_space<T>(p, arena), static_cast<T*>(p.grad_positions), p.deterministic != 0, stream_of(launch),
              [&](auto sink) {
                const unsigned grid = grid_for(p.batch * p.height * p.width);
                if (grid == 0) return;
                DIBR_LAUNCH((raster_backward_kernel<T, decltype(sink)>), grid, kBlock, 0, stream_of(launch), p, sink);
              });
  return launched("rasterize_backward");
}

}  // namespace

dibr_status rasterize_workspace(const dibr_rasterize_params& p, Arena& arena) {
  Bins(p.batch, p.faces, p.height, p.width, arena);
  return DIBR_OK;
}
dibr_status rasterize(const dibr_rasterize_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status rasterize_backward_workspace(const dibr_rasterize_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { position_space<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status rasterize_backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
