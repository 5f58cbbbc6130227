// SoftMask of one tile, for whoever has the tile's coverage and the faces near it.
#pragma once

#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One image of a SoftMask: what all of its tiles share.
template <class T>
struct MaskImage {
  const T* positions;           // [V, 4] clip space
  const int32_t* face_indices;  // [F, 3], in range
  int64_t height, width;
  SoftMaskRules<T> rules;
};

// The pixels of one tile: pointers to its first pixel, and the elements from one row to the next.
template <class T, class Index>
struct MaskPixels {
  TileArea area;            // at most kTile wide and high
  const Index* face_index;  // < 0 where nothing covers the pixel
  int64_t face_index_stride;
  T* mask;
  int64_t mask_stride;
};

// The faces of one tile, and the search for those that take part in a pixel. One per thread, reused from tile to tile.
template <class T>
class TileFaces {
 public:
  void load(const MaskImage<T>& image, const int32_t* faces, int64_t count) {
    faces_.clear();
    indices_.clear();
    for (int64_t i = 0; i < count; ++i) {
      MaskFace<T> projected;
      const Triangle<T> triangle = gather_triangle(image.positions, image.face_indices + 3 * int64_t(faces[i]));
      if (!project_mask_face(triangle, image.rules.boxlen, &projected)) continue;
      faces_.push_back(projected);
      indices_.push_back(faces[i]);
    }
  }

  bool empty() const { return faces_.empty(); }
  const MaskFace<T>& face(int32_t slot) const { return faces_[size_t(slot)]; }
  int32_t index(int32_t slot) const { return indices_[size_t(slot)]; }

  void select_row(T py) {
    row_.clear();
    for (size_t i = 0; i < faces_.size(); ++i) {
      if (faces_[i].y0 <= py && py < faces_[i].y1) row_.push_back({faces_[i].x0, faces_[i].x1, int32_t(i)});
    }
  }

  // Calls use(slot, probability, point) for the pixel's candidates in index order.
  template <class Use>
  void for_each_candidate(T px, T py, const SoftMaskRules<T>& rules, const Use& use) const {
    int64_t used = 0;
    for (const Span& span : row_) {
      if (!(span.x0 <= px && px < span.x1)) continue;
      const MaskFace<T>& f = faces_[size_t(span.slot)];
      const BoundaryPoint<T> point = nearest_boundary_point(f.x, f.y, px, py);
      use(span.slot, std::exp(-rules.sigmainv * point.distance2), point);
      if (++used == rules.knum) return;
    }
  }

 private:
  struct Span {
    T x0, x1;
    int32_t slot;
  };
  std::vector<MaskFace<T>> faces_;
  std::vector<int32_t> indices_;
  std::vector<Span> row_;  // the faces whose boxes reach the current row
};

// Writes the mask of every pixel of the tile, 1 where it is covered. faces [count] are indices of faces, ascending:
// all whose enlarged boxes (mask_box) reach an uncovered pixel of the tile must be among them, others may be.
template <class T, class Index>
void mask_tile(const MaskImage<T>& image, const MaskPixels<T, Index>& pixels, const int32_t* faces, int64_t count) {
  static thread_local TileFaces<T> tile;
  const TileArea& area = pixels.area;
  bool loaded = false;
  for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
    const Index* face_index = pixels.face_index + y * pixels.face_index_stride;
    T* mask = pixels.mask + y * pixels.mask_stride;
    const T py = pixel_y<T>(area.y0 + y, image.height);
    bool selected = false;
    for (int64_t x = 0; x < area.x1 - area.x0; ++x) {
      mask[x] = T(1);
      if (face_index[x] >= 0) continue;
      if (!loaded) tile.load(image, faces, count);
      if (!selected) tile.select_row(py);
      loaded = selected = true;
      T product = T(1);
      tile.for_each_candidate(pixel_x<T>(area.x0 + x, image.width), py, image.rules,
                              [&](int32_t, T probability, const BoundaryPoint<T>&) { product *= T(1) - probability; });
      mask[x] = T(1) - product;
    }
  }
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
