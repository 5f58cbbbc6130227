// The faces of a SoftMask's tile, each computed once for all cells of the tile that it reaches.
#pragma once

#include <algorithm>
#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One image of a SoftMask: what all of its tiles share.
template <class T>
struct MaskImage {
  const T* points;              // [V, 2] in NDC
  const int32_t* face_indices;  // [F, 3], in range
  int64_t height, width;
  SoftMaskRules<T> rules;
};

// x, y, edge_x and edge_y of each vertex of a face, then the three inverses.
template <class T>
struct alignas(64) FaceNumbers {
  T of[16];

  // Without its box.
  DIBR_HD MaskFace<T> face() const {
    MaskFace<T> out;
    for (int k = 0; k < 3; ++k) {
      out.x[k] = of[4 * k];
      out.y[k] = of[4 * k + 1];
      out.edge_x[k] = of[4 * k + 2];
      out.edge_y[k] = of[4 * k + 3];
      out.inverse[k] = of[12 + k];
    }
    return out;
  }
};

template <class T>
class ReadyFaces {
 public:
  // Where the pixels of the tile are.
  void enter(const MaskImage<T>& image, const TileArea& area) {
    image_ = &image;
    for (int i = 0; i < kTile; ++i) {
      px_[i] = pixel_x<T>(area.x0 + i, image.width);
      py_[i] = pixel_y<T>(area.y0 + i, image.height);
    }
  }
  const MaskImage<T>& image() const { return *image_; }
  const T* px() const { return px_; }  // [kTile]
  const T* py() const { return py_; }

  // None is ready yet. faces [count] must outlive this.
  void list(const int32_t* faces, int64_t count) {
    faces_ = faces;
    count_ = count;
    ready_ = 0;
    const size_t least = size_t(count + 2 * kEight);
    if (numbers_.size() >= least) return;
    numbers_.resize(2 * least);
    columns_.resize(2 * least);
    rows_.resize(2 * least);
  }
  const int32_t* faces() const { return faces_; }
  int64_t count() const { return count_; }
  int64_t ready() const { return std::min(ready_, count_); }

  // Those before `end`. Their pixels are found where kPixels.
  template <bool kPixels>
  void make_ready(int64_t end) {
    for (; ready_ < end; ready_ += kEight) make_eight<kPixels>(ready_);
  }

  // Bit x of columns()[i] is set where the enlarged box of face i contains the pixels of the tile's column x; row by
  // row the same. No columns beyond the last face.
  const uint32_t* columns() const { return columns_.data(); }
  const uint32_t* rows() const { return rows_.data(); }

  const FaceNumbers<T>* numbers() const { return numbers_.data(); }

 private:
  struct Corner {
    Eight<T> x, y;

    DIBR_HD Corner(const MaskImage<T>& image, const int32_t* faces, int k) {
      const auto point = [&](int lane) DIBR_INLINE_LAMBDA {
        return image.points + 2 * int64_t(image.face_indices[3 * int64_t(faces[lane]) + k]);
      };
      load_pairs(point, &x, &y);
    }
  };

  // Nothing here is an array of Eights: those stay in memory, and are copied four at a time with a stall each.
  template <bool kPixels>
  void make_eight(int64_t first) {
    if (first >= count_) return set_none(first);
    int32_t faces[kEight];
    for (int i = 0; i < kEight; ++i) faces[i] = faces_[std::min(first + i, count_ - 1)];
    T* numbers = numbers_[size_t(first)].of;
    const Corner a(*image_, faces, 0), b(*image_, faces, 1), c(*image_, faces, 2);
    const Eight<T> inverse_ab = set_edge(numbers, a, b), inverse_bc = set_edge(numbers + 4, b, c);
    const Eight<T> inverse_ca = set_edge(numbers + 8, c, a);
    store_fours(inverse_ab, inverse_bc, inverse_ca, Eight<T>(T(0)), numbers + 12, 16);
    if (!kPixels) return;
    find_pixels(a.x, b.x, c.x, px_, columns_.data() + first);
    find_pixels(a.y, b.y, c.y, py_, rows_.data() + first);
    for (int64_t i = count_; i < first + kEight; ++i) columns_[size_t(i)] = 0;
  }
  void set_none(int64_t first) { std::fill_n(columns_.begin() + first, kEight, 0); }

  static DIBR_HD Eight<T> set_edge(T* numbers, const Corner& from, const Corner& to) {
    Eight<T> dx, dy, inverse;
    set_mask_edge<T>(from.x, from.y, to.x, to.y, &dx, &dy, &inverse);
    store_fours(from.x, from.y, dx, dy, numbers, 16);
    return inverse;
  }

  // Of eight faces, which of a tile's columns or rows, with their centres at `places`, they reach.
  DIBR_HD void find_pixels(Eight<T> a, Eight<T> b, Eight<T> c, const T* places, uint32_t* out) const {
    Eight<T> least, greatest;
    set_mask_range(a, b, c, image_->rules.boxlen, &least, &greatest);
    T from[kEight], to[kEight];
    least.store(from);
    greatest.store(to);
    for (int i = 0; i < kEight; ++i) {
      uint32_t bits = 0;
      for (int x = 0; x < kTile; x += Pack<T>::kLanes) {
        const Pack<T> place = Pack<T>::load(places + x);
        bits |= uint32_t(((Pack<T>(from[i]) <= place) & (place < Pack<T>(to[i]))).lanes()) << x;
      }
      out[i] = bits;
    }
  }

  const MaskImage<T>* image_ = nullptr;
  T px_[kTile], py_[kTile];
  const int32_t* faces_ = nullptr;
  int64_t count_ = 0, ready_ = 0;
  std::vector<FaceNumbers<T>> numbers_;
  std::vector<uint32_t> columns_, rows_;
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
