// Topology on the device. Nothing can be reported from here without synchronising, so what is out of range is absent.
#pragma once

#include "core/triangle.h"
#include "cuda/launch.h"

namespace dibr::cuda {

struct FaceRange {
  int64_t start, count;
};

template <class P>
__device__ FaceRange faces_of(const P& p, int64_t image) {
  if (p.face_ranges == nullptr) return {0, p.faces};
  const int64_t start = p.face_ranges[2 * image], count = p.face_ranges[2 * image + 1];
  if (start < 0 || count < 0 || start + count > p.faces) return {0, 0};
  return {start, count};
}

template <class P>
__device__ bool has_vertices(const P& p, int64_t face) {
  bool inside = true;
  for (int k = 0; k < 3; ++k) {
    const int32_t v = p.face_indices[3 * face + k];
    inside = inside && v >= 0 && v < p.vertices;
  }
  return inside;
}

// The face that a pixel shows, or -1 on background and where face_index or its vertices are out of range.
template <class P>
__device__ int32_t face_at(const P& p, int64_t pixel) {
  const int32_t face = p.face_index[pixel];
  return face >= 0 && face < p.faces && has_vertices(p, face) ? face : -1;
}

template <class T, class P>
__device__ Triangle<T> triangle_of(const P& p, int64_t image, int64_t face) {
  return gather_triangle(static_cast<const T*>(p.positions) + image * p.vertices * 4, p.face_indices + 3 * face);
}

}  // namespace dibr::cuda
