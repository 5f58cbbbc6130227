// Rasterises one tile by one block, a thread per pixel, faces staged in shared memory: what Rasterize writes out, and
// what a fused op goes on with.
#pragma once

#include "core/rasterize.h"
#include "cuda/bins.cuh"
#include "cuda/reduce.cuh"

namespace dibr::cuda {

constexpr int kStagedTriangles = 64;

template <class P>
__host__ __device__ RasterRules rules_of(const P& p) {
  return {p.perspective_correct != 0, p.cull == DIBR_CULL_BACK, p.depth_clip != 0};
}

template <class T>
struct RasterBoxOf {
  template <class P>
  __device__ PixelBox operator()(const P& p, int64_t image, int64_t face) const {
    if (p.face_valid != nullptr && p.face_valid[image * p.faces + face] == 0) return empty_box();
    return raster_box(triangle_of<T>(p, image, face), rules_of(p), p.width, p.height);
  }
};

// A face in shared memory. Where the tile has nothing to gain from it, its box is empty.
template <class T>
struct StagedTriangle {
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

template <class T, class P>
__device__ void stage_triangle(const P& p, const Bins& bins, const Tile& tile, int64_t i, T farthest,
                               StagedTriangle<T>* staged) {
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

  __device__ void draw(const StagedTriangle<T>& s, T px, T py, T lowest, T highest) {
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

// The shared memory of a block.
template <class T>
struct RasterScratch {
  StagedTriangle<T> staged[kStagedTriangles];
  T depths[kTilePixels / kWarp];
};

// What the block's tile shows at this thread's pixel. Every thread of the block must call it.
template <class T, class P>
__device__ Pixel<T> draw_tile(const P& p, const Bins& bins, const Tile& tile, const TilePixel<T>& at,
                              RasterScratch<T>& scratch) {
  const T lowest = p.depth_clip != 0 ? T(-1) : -Limits<T>::max_depth;
  const T highest = p.depth_clip != 0 ? T(1) : Limits<T>::max_depth;
  // A pixel outside the image holds back no face.
  Pixel<T> pixel = {at.inside ? T(INFINITY) : -T(INFINITY), -1};
  T farthest = T(INFINITY);
  for (int64_t base = 0; base < tile.count; base += kStagedTriangles) {
    if (base > 0) farthest = farthest_in_tile(pixel.depth, scratch.depths);
    if (threadIdx.x < kStagedTriangles) {
      stage_triangle(p, bins, tile, base + threadIdx.x, farthest, &scratch.staged[threadIdx.x]);
    }
    __syncthreads();
    for (int i = 0; i < kStagedTriangles; ++i) {
      if (at.inside && contains(scratch.staged[i].box, at.x, at.y)) {
        pixel.draw(scratch.staged[i], at.px, at.py, lowest, highest);
      }
    }
    __syncthreads();
  }
  return pixel;
}

// Barycentrics of a drawn pixel, 0 on background.
template <class T, class P>
__device__ void pixel_barycentrics(const P& p, int64_t image, const TilePixel<T>& at, const Pixel<T>& result, T* b) {
  for (int k = 0; k < 3; ++k) b[k] = T(0);
  if (result.face < 0) return;
  const Triangle<T> t = triangle_of<T>(p, image, result.face);
  barycentrics(t, edges_at(t, at.px, at.py), p.perspective_correct != 0, b);
}

}  // namespace dibr::cuda
