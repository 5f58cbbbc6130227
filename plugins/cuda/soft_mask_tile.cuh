// SoftMask of one tile by one block, a thread per pixel, faces staged in shared memory in index order.
#pragma once

#include "core/soft_mask.h"
#include "cuda/bins.cuh"

namespace dibr::cuda {

constexpr int kStagedMaskFaces = 64;

template <class T, class P>
struct MaskBoxOf {
  __device__ PixelBox operator()(const P& p, int64_t image, int64_t face) const {
    return mask_box(triangle_of<T>(p, image, face), T(p.boxlen), p.width, p.height);
  }
};

// A face in shared memory; takes_part is false where the tile has nothing to do with it.
template <class T>
struct StagedMaskFace {
  MaskFace<T> face;
  T w[3];
  int32_t vertices[3];
  bool takes_part;
};

template <class T, class P>
__device__ void stage_mask_face(const P& p, const Bins& bins, const Tile& tile, int64_t i, StagedMaskFace<T>* staged) {
  staged->takes_part = false;
  if (i >= tile.count) return;
  const int64_t face = tile.face(i);
  if (is_empty(bins.boxes[tile.image * bins.faces + face])) return;
  const Triangle<T> t = triangle_of<T>(p, tile.image, face);
  staged->takes_part = project_mask_face(t, T(p.boxlen), &staged->face);
  for (int k = 0; k < 3; ++k) {
    staged->w[k] = t.w[k];
    staged->vertices[k] = p.face_indices[3 * face + k];
  }
}

template <class T>
__device__ bool in_box(const StagedMaskFace<T>& s, T px, T py) {
  return s.takes_part && s.face.x0 <= px && px < s.face.x1 && s.face.y0 <= py && py < s.face.y1;
}

// Stages the tile's faces batch by batch and calls use(staged face, whether this pixel takes it) for each, until no
// pixel of the tile can take another. Every thread of the block runs through the same calls.
// open: nothing covers this thread's pixel, and its mask is asked for.
template <class T, class P, class Use>
__device__ void for_each_staged(const P& p, const Bins& bins, const Tile& tile, const TilePixel<T>& at, bool open,
                                StagedMaskFace<T>* staged, const Use& use) {
  int64_t taken = 0;
  for (int64_t base = 0; base < tile.count; base += kStagedMaskFaces) {
    if (__syncthreads_or(open && taken < p.knum) == 0) break;
    if (threadIdx.x < kStagedMaskFaces) stage_mask_face(p, bins, tile, base + threadIdx.x, &staged[threadIdx.x]);
    __syncthreads();
    for (int i = 0; i < kStagedMaskFaces; ++i) {
      const bool takes = open && taken < p.knum && in_box(staged[i], at.px, at.py);
      taken += takes;
      use(staged[i], takes);
    }
  }
  __syncthreads();
}

// The mask at this thread's pixel. Every thread of the block must call it.
template <class T, class P>
__device__ T tile_mask(const P& p, const Bins& bins, const Tile& tile, const TilePixel<T>& at, bool open,
                       StagedMaskFace<T>* staged) {
  const SoftMaskRules<T> rules(p.sigmainv, p.boxlen, p.knum);
  T product = T(1);
  for_each_staged(p, bins, tile, at, open, staged, [&](const StagedMaskFace<T>& s, bool takes) {
    if (!takes) return;
    const T distance2 = nearest_edge(s.face, at.px, at.py).distance2;
    product = less_product(product, product, mask_probability(rules, distance2));
  });
  return open ? T(1) - product : T(1);
}

}  // namespace dibr::cuda
