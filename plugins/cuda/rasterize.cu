// Rasterize on the GPU: one block per tile, one thread per pixel, faces staged in shared memory.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/rasterize.h"
#include "cuda/bins.cuh"
#include "cuda/reduce.cuh"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

constexpr int kStaged = 64;

__host__ __device__ inline RasterRules rules_of(const dibr_rasterize_params& p) {
  return {p.perspective_correct != 0, p.cull == DIBR_CULL_BACK, p.depth_clip != 0};
}

template <class T>
struct RasterBoxOf {
  __device__ PixelBox operator()(const dibr_rasterize_params& p, int64_t image, int64_t face) const {
    if (p.face_valid != nullptr && p.face_valid[image * p.faces + face] == 0) return empty_box();
    return raster_box(triangle_of<T>(p, image, face), rules_of(p), p.width, p.height);
  }
};

// A face in shared memory. Where the tile has nothing to gain from it, its box is empty.
template <class T>
struct StagedFace {
  Triangle<T> triangle;
  DepthPlane<T> plane;
  T sign;
  int32_t face;
  FaceBox box;
};

// Lower than every depth that the face can have, rounding included; -max where it has a vertex with w <= 0.
template <class T>
__device__ T nearest_depth(const Triangle<T>& t) {
  T nearest = Limits<T>::max_depth;
  for (int k = 0; k < 3; ++k) {
    if (!(t.w[k] > T(0))) return -Limits<T>::max_depth;
    nearest = minimum(nearest, t.z[k] / t.w[k]);
  }
  return nearest - (T(1) + absolute(nearest)) * (sizeof(T) == 8 ? T(1e-12) : T(1e-4));
}

template <class T>
__device__ void stage(const dibr_rasterize_params& p, const Bins& bins, const Tile& tile, int64_t i, T farthest,
                      StagedFace<T>* staged) {
  staged->box = {1, 1, 0, 0};
  if (i >= tile.count) return;
  const int32_t face = tile.face(i);
  const FaceBox box = bins.boxes[tile.image * bins.faces + face];
  const bool touches =
      !is_empty(box) && box.x0 < tile.x0 + kTile && box.x1 >= tile.x0 && box.y0 < tile.y0 + kTile && box.y1 >= tile.y0;
  if (!touches) return;
  const Triangle<T> t = triangle_of<T>(p, tile.image, face);
  if (nearest_depth(t) > farthest) return;
  staged->triangle = t;
  staged->plane = depth_plane(t);
  staged->sign = T(face_sign(t, false));
  staged->face = face;
  staged->box = box;
}

// The depth beyond which a face cannot be seen anywhere in the tile. Every thread of the block must call it.
template <class T>
__device__ T farthest_in_tile(T depth, T* scratch) {
  const T warp = warp_max(depth);
  if (lane_index() == 0) scratch[threadIdx.x / kWarp] = warp;
  __syncthreads();
  T farthest = scratch[0];
  for (int i = 1; i < kTilePixels / kWarp; ++i) farthest = maximum(farthest, scratch[i]);
  return farthest;
}

// The state of one pixel while its tile is drawn.
template <class T>
struct Pixel {
  T depth;
  int32_t face;

  __device__ void draw(const StagedFace<T>& s, T px, T py, T lowest, T highest) {
    const Triangle<T>& t = s.triangle;
    const Edges<T> edges = edge_functions(t.x[0] - px * t.w[0], t.x[1] - px * t.w[1], t.x[2] - px * t.w[2],
                                          s.sign * (t.y[0] - py * t.w[0]), s.sign * (t.y[1] - py * t.w[1]),
                                          s.sign * (t.y[2] - py * t.w[2]));
    if (!(edges.e[0] >= T(0) && edges.e[1] >= T(0) && edges.e[2] >= T(0))) return;
    const T sum_w = weighted_sum(edges, t.w);
    const T z = s.plane.base + weighted_sum(edges, s.plane.slope) / sum_w;
    if (!(sum_w > T(0) && z >= lowest && z <= highest && z < depth)) return;
    depth = z;
    face = s.face;
  }
};

template <class T>
__device__ void write_pixel(const dibr_rasterize_params& p, int64_t image, int x, int y, const Pixel<T>& result) {
  const int64_t pixel = (image * p.height + y) * p.width + x;
  T b[3] = {};
  if (result.face >= 0) {
    const Triangle<T> t = triangle_of<T>(p, image, result.face);
    barycentrics(t, edges_at(t, pixel_x<T>(x, p.width), pixel_y<T>(y, p.height)), p.perspective_correct != 0, b);
  }
  p.face_index[pixel] = result.face;
  for (int k = 0; k < 3; ++k) static_cast<T*>(p.barycentrics)[3 * pixel + k] = b[k];
  if (p.depth != nullptr) static_cast<T*>(p.depth)[pixel] = result.face < 0 ? T(1) : result.depth;
}

template <class T>
__global__ void __launch_bounds__(kTilePixels) raster_kernel(Bins bins, dibr_rasterize_params p) {
  __shared__ StagedFace<T> staged[kStaged];
  __shared__ T scratch[kTilePixels / kWarp];
  const T lowest = p.depth_clip != 0 ? T(-1) : -Limits<T>::max_depth;
  const T highest = p.depth_clip != 0 ? T(1) : Limits<T>::max_depth;
  for (int64_t index = blockIdx.x; index < bins.batch * bins.tiles(); index += gridDim.x) {
    const Tile tile = tile_at(bins, p, index);
    const int x = tile.x0 + int(threadIdx.x) % kTile, y = tile.y0 + int(threadIdx.x) / kTile;
    const bool inside = x < bins.width && y < bins.height;
    const T px = pixel_x<T>(x, p.width), py = pixel_y<T>(y, p.height);
    // A pixel outside the image holds back no face.
    Pixel<T> pixel = {inside ? T(INFINITY) : -T(INFINITY), -1};
    T farthest = T(INFINITY);
    for (int64_t base = 0; base < tile.count; base += kStaged) {
      if (base > 0) farthest = farthest_in_tile(pixel.depth, scratch);
      if (threadIdx.x < kStaged) stage(p, bins, tile, base + threadIdx.x, farthest, &staged[threadIdx.x]);
      __syncthreads();
      for (int i = 0; i < kStaged; ++i) {
        if (inside && contains(staged[i].box, x, y)) pixel.draw(staged[i], px, py, lowest, highest);
      }
      __syncthreads();
    }
    if (inside) write_pixel(p, tile.image, x, y, pixel);
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
