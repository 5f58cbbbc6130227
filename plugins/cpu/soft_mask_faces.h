// Which faces a tile's mask needs, found with little work for those inside of the outline: of a mesh in front of a
// background, most faces are far from every pixel that nothing covers.
//
//     MaskFaces near(batch, vertices, faces, height, width, arena);  // the same calls measure the workspace
//     near.note_uncovered(image, band, covering)                     // for every band of kCell rows of every image
//     near.note_reach(positions, boxlen, begin, end)                 // for all vertices
//     near.choose(launch, face_indices, range_of, fault)             // after both
//     if (near.of_tile(image, area, &tile)) ...                      // for any tile
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/mesh.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Faces that a tile needs.
struct FacesOfTile {
  std::vector<int32_t> faces;  // ascending in face index
  uint64_t cells;  // bit 8 * row + column: what kCell by kCell pixels a face reaches, not all of them covered
};

// The pixels that an enlarged box can contain the centres of: -first column, -first row, last column, last row, clamped
// to the image. So two boxes unite by the larger of each; a box beside the image ends before it begins.
struct MaskReach {
  int16_t v[4];

  int x0() const { return -v[0]; }
  int y0() const { return -v[1]; }
  int x1() const { return v[2]; }
  int y1() const { return v[3]; }
  bool meets(const MaskReach& b) const {
    return ((v[0] + b.v[2]) | (v[1] + b.v[3]) | (v[2] + b.v[0]) | (v[3] + b.v[1])) >= 0;
  }
};

class MaskFaces {
 public:
  static constexpr int kCell = 4;

  MaskFaces(int64_t batch, int64_t vertices, int64_t faces, int64_t height, int64_t width, Arena& arena)
      : batch_(batch), vertices_(vertices), height_(height), width_(width) {
    rows_ = (height + kCell - 1) / kCell;
    columns_ = (width + kTile - 1) / kTile * kCellsOfTile;
    chunks_ = (faces + kChunk - 1) / kChunk;
    uncovered_ = arena.take<uint8_t>(batch * rows_ * columns_);
    distances_ = arena.take<uint8_t>(batch * rows_ * columns_);
    reaches_ = arena.take<MaskReach>(batch * vertices);
    chosen_ = arena.take<Chosen>(batch * chunks_);
    boxes_ = arena.take<MaskReach>(batch * chunks_ * kChunk);
    indices_ = arena.take<int32_t>(batch * chunks_ * kChunk);
  }

  // Bands of kCell rows of pixels, the last one perhaps lower.
  int64_t bands() const { return rows_; }

  // covering [width]: of each column, the bitwise or of face_index over the band's rows: < 0 where one is uncovered.
  void note_uncovered(int64_t image, int64_t band, const int32_t* covering) const {
    uint8_t* cells = uncovered_ + (image * rows_ + band) * columns_;
    const int64_t whole = width_ / kCell;
    for (int64_t i = 0; i < whole; ++i) {
      const int32_t* c = covering + i * kCell;
      static_assert(kCell == 4);
      cells[i] = uint8_t(uint32_t(c[0] | c[1] | c[2] | c[3]) >> 31);
    }
    std::memset(cells + whole, 0, size_t(columns_ - whole));
    for (int64_t x = whole * kCell; x < width_; ++x) cells[whole] |= uint8_t(uint32_t(covering[x]) >> 31);
  }

  // Notes how far the vertices [begin, end) of all images reach with a margin of boxlen. positions [B, V, 4].
  template <class T>
  void note_reach(const T* positions, T boxlen, int64_t begin, int64_t end) const {
    const T width = T(width_), height = T(height_);
    for (int64_t i = begin; i < end; ++i) {
      const T* p = positions + 4 * i;
      const T x = p[0] / p[3], y = p[1] / p[3];
      // A twentieth of a pixel is far more than rounding can do to the border of a box in the image.
      const T margin = T(0.05), half = T(0.5);
      const T x0 = ((x - boxlen + T(1)) * width - T(1)) * half - margin;
      const T x1 = ((x + boxlen + T(1)) * width - T(1)) * half + margin;
      const T y0 = ((T(1) - y - boxlen) * height - T(1)) * half - margin;
      const T y1 = ((T(1) - y + boxlen) * height - T(1)) * half + margin;
      // Where the vertex has no place, its faces are left to project_mask_face.
      const bool placed = (p[3] > T(0)) & (x == x) & (y == y);
      int16_t* v = reaches_[i].v;
      v[0] = int16_t(placed ? -int32_t(clamped(x0, T(0), width)) : 0);
      v[1] = int16_t(placed ? -int32_t(clamped(y0, T(0), height)) : 0);
      v[2] = int16_t(placed ? int32_t(clamped(x1, T(-1), width - T(1)) + T(1)) - 1 : int32_t(width_) - 1);
      v[3] = int16_t(placed ? int32_t(clamped(y1, T(-1), height - T(1)) + T(1)) - 1 : int32_t(height_) - 1);
    }
  }

  // Chooses, of the faces range_of(image), those that may reach an uncovered pixel. Looks at every index of every face;
  // one that is not below the number of vertices is reported, as a position in faces [F, 3], and nothing is usable
  // then.
  template <class RangeOf>
  void choose(const dibr_launch& launch, const int32_t* face_indices, const RangeOf& range_of,
              LowestFault& fault) const {
    parallel_for(launch, batch_, [&](int64_t image) { find_distances(image); });
    constexpr int64_t kTask = 8;
    const int64_t tasks = (chunks_ + kTask - 1) / kTask;
    parallel_for(launch, batch_ * tasks, [&](int64_t i) {
      const int64_t image = i / tasks, first = i % tasks * kTask;
      const FaceRange range = range_of(image);
      for (int64_t chunk = first; chunk < std::min(first + kTask, chunks_); ++chunk) {
        choose_in_chunk(image, chunk, face_indices, range, fault);
      }
    });
  }

  // False where no face reaches an uncovered pixel of the tile.
  bool of_tile(int64_t image, const TileArea& area, FacesOfTile* tile) const {
    tile->faces.clear();
    tile->cells = 0;
    const uint64_t open = uncovered_cells(image, area);
    if (open == 0) return false;
    const MaskReach box = box_around(open, area);
    const int column = int(area.x0) / kCell, row = int(area.y0) / kCell;
    for (int64_t chunk = image * chunks_; chunk < (image + 1) * chunks_; ++chunk) {
      if (!chosen_[chunk].box.meets(box)) continue;
      const MaskReach* boxes = boxes_ + chunk * kChunk;
      for (int i = 0; i < chosen_[chunk].count; ++i) {
        if (!boxes[i].meets(box)) continue;
        const uint64_t cells = open & rectangle(boxes[i].x0() / kCell - column, boxes[i].y0() / kCell - row,
                                                boxes[i].x1() / kCell - column, boxes[i].y1() / kCell - row);
        if (cells == 0) continue;
        tile->cells |= cells;
        tile->faces.push_back(indices_[chunk * kChunk + i]);
      }
    }
    return tile->cells != 0;
  }

 private:
  static constexpr int kCellsOfTile = kTile / kCell;
  static_assert(kCellsOfTile == 8);
  static constexpr int kChunk = 256;
  // Distances are told apart up to here; what reaches further is chosen.
  static constexpr int kFarthest = 8;

  // How many are chosen of kChunk faces, and the union of their boxes.
  struct Chosen {
    int32_t count;
    MaskReach box;
  };

  template <class T>
  static T clamped(T x, T low, T high) {
    x = x > low ? x : low;
    return x < high ? x : high;
  }

  // Of each cell, how many cells it is from the nearest with an uncovered pixel, across edges and corners alike.
  void find_distances(int64_t image) const {
    static thread_local std::vector<uint8_t> far_of_thread, next_of_thread;
    std::vector<uint8_t>&far = far_of_thread, &next = next_of_thread;
    const int64_t stride = columns_ + 2;
    far.assign(size_t(stride * (rows_ + 2)), 1);
    next.assign(size_t(stride * (rows_ + 2)), 1);
    const uint8_t* cells = uncovered_ + image * rows_ * columns_;
    uint8_t* distances = distances_ + image * rows_ * columns_;
    for (int64_t y = 0; y < rows_; ++y) {
      uint8_t* row = far.data() + (y + 1) * stride + 1;
      for (int64_t x = 0; x < columns_; ++x) row[x] = cells[y * columns_ + x] ^ 1;
    }
    std::fill_n(distances, rows_ * columns_, uint8_t(0));
    for (int step = 0; step < kFarthest; ++step) {
      for (int64_t y = 0; y < rows_; ++y) {
        spread_row(far.data() + y * stride, stride, columns_, distances + y * columns_,
                   next.data() + (y + 1) * stride + 1);
      }
      far.swap(next);
    }
  }

  static void spread_row(const uint8_t* __restrict above, int64_t stride, int64_t count, uint8_t* __restrict distances,
                         uint8_t* __restrict next) {
    const uint8_t *row = above + stride, *below = row + stride;
    for (int64_t x = 0; x < count; ++x) {
      distances[x] = uint8_t(distances[x] + row[x + 1]);
      next[x] = above[x] & above[x + 1] & above[x + 2] & row[x] & row[x + 1] & row[x + 2] & below[x] & below[x + 1] &
                below[x + 2];
    }
  }

  void choose_in_chunk(int64_t image, int64_t chunk, const int32_t* face_indices, const FaceRange& range,
                       LowestFault& fault) const {
    Chosen& chosen = chosen_[image * chunks_ + chunk];
    chosen = {0, {{INT16_MIN, INT16_MIN, -1, -1}}};
    const int64_t first = range.start + chunk * kChunk, end = std::min(first + kChunk, range.start + range.count);
    if (first >= end || !in_range(face_indices, 3 * first, 3 * end, fault)) return;
    const int count = int(end - first);
    MaskReach all[kChunk];
    unite(face_indices + 3 * first, reaches_ + image * vertices_, count, all);
    // All of a box is within `radius` cells of `middle`.
    int32_t radii[kChunk], middles[kChunk];
    for (int i = 0; i < count; ++i) {
      const int x0 = all[i].x0(), y0 = all[i].y0(), x1 = all[i].x1(), y1 = all[i].y1();
      const int cx0 = x0 / kCell, cy0 = y0 / kCell, cx1 = x1 / kCell, cy1 = y1 / kCell;
      const bool empty = (x0 > x1) | (y0 > y1);
      radii[i] = empty ? -1 : std::max(cx1 - cx0 + 1, cy1 - cy0 + 1) >> 1;
      middles[i] = empty ? 0 : ((cy0 + cy1) >> 1) * int(columns_) + ((cx0 + cx1) >> 1);
    }
    const uint8_t* distances = distances_ + image * rows_ * columns_;
    MaskReach* boxes = boxes_ + (image * chunks_ + chunk) * kChunk;
    int32_t* indices = indices_ + (image * chunks_ + chunk) * kChunk;
    int found = 0;
    for (int i = 0; i < count; ++i) {
      boxes[found] = all[i];
      indices[found] = int32_t(first + i);
      found += (distances[middles[i]] <= radii[i]) | (radii[i] >= kFarthest);
    }
    for (int i = 0; i < found; ++i) {
      for (int k = 0; k < 4; ++k) chosen.box.v[k] = std::max(chosen.box.v[k], boxes[i].v[k]);
    }
    chosen.count = found;
  }

  bool in_range(const int32_t* face_indices, int64_t begin, int64_t end, LowestFault& fault) const {
    // Numbers of vertices fit an int32: the sign of (vertices - 1 - i) or of i is set where i is out of range.
    const uint32_t last = uint32_t(vertices_ - 1);
    uint32_t signs = vertices_ > 0 ? 0 : ~0u;
    for (int64_t i = begin; i < end; ++i) signs |= uint32_t(face_indices[i]) | (last - uint32_t(face_indices[i]));
    if (int32_t(signs) >= 0) return true;
    fault.report(begin);
    return false;
  }

  // The boxes of faces, from those of their vertices.
  static void unite(const int32_t* face_indices, const MaskReach* reaches, int count, MaskReach* boxes) {
    for (int i = 0; i < count; ++i) {
      const MaskReach *a = reaches + face_indices[3 * i], *b = reaches + face_indices[3 * i + 1],
                      *c = reaches + face_indices[3 * i + 2];
#if defined(__SSE2__)
      const auto load = [](const MaskReach* r) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(r)); };
      const __m128i box = _mm_max_epi16(_mm_max_epi16(load(a), load(b)), load(c));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(boxes + i), box);
#else
      for (int k = 0; k < 4; ++k) boxes[i].v[k] = std::max(std::max(a->v[k], b->v[k]), c->v[k]);
#endif
    }
  }

  uint64_t uncovered_cells(int64_t image, const TileArea& area) const {
    uint64_t open = 0;
    const int64_t first = area.y0 / kCell, rows = std::min<int64_t>(rows_ - first, kCellsOfTile);
    for (int64_t y = 0; y < rows; ++y) {
      uint64_t bytes;
      std::memcpy(&bytes, uncovered_ + (image * rows_ + first + y) * columns_ + area.x0 / kCell, sizeof bytes);
      // Byte i, 0 or 1, to bit i.
      open |= bytes * 0x0102040810204080u >> 56 << (8 * y);
    }
    return open;
  }

  static MaskReach box_around(uint64_t cells, const TileArea& area) {
    uint64_t columns = cells | cells >> 32;
    columns |= columns >> 16;
    columns = (columns | columns >> 8) & 0xff;
    const int64_t x0 = area.x0 + kCell * __builtin_ctzll(columns), y0 = area.y0 + kCell * (__builtin_ctzll(cells) / 8);
    const int64_t x1 = area.x0 + kCell * (63 - __builtin_clzll(columns)) + kCell - 1;
    const int64_t y1 = area.y0 + kCell * ((63 - __builtin_clzll(cells)) / 8) + kCell - 1;
    return {{int16_t(-x0), int16_t(-y0), int16_t(x1), int16_t(y1)}};
  }

  // The cells of a tile from (x0, y0) to (x1, y1), which may go beyond it.
  static uint64_t rectangle(int x0, int y0, int x1, int y1) {
    x0 = std::max(x0, 0);
    y0 = std::max(y0, 0);
    x1 = std::min(x1, 7);
    y1 = std::min(y1, 7);
    const uint64_t columns = uint64_t((2 << x1) - (1 << x0)) * 0x0101010101010101u;
    return columns & (~uint64_t(0) << (8 * y0)) & (~uint64_t(0) >> (8 * (7 - y1)));
  }

  int64_t batch_, vertices_, height_, width_;
  int64_t rows_, columns_;  // of cells; the columns of all tiles, also where they go beyond the image
  int64_t chunks_;
  uint8_t* uncovered_;  // [B, rows, columns]: 1 where a pixel of the cell is not covered
  uint8_t* distances_;  // [B, rows, columns]
  MaskReach* reaches_;  // [B, V]
  Chosen* chosen_;      // [B, chunks]
  MaskReach* boxes_;    // [B, chunks, kChunk]: of those that are chosen
  int32_t* indices_;    // [B, chunks, kChunk]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
