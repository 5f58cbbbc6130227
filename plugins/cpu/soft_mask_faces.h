// Which faces a tile's mask needs, found with little work for those inside of the outline: of a mesh in front of a
// background, most faces are far from every pixel that nothing covers.
//
//     MaskFaces near(batch, vertices, faces, height, width, arena);     // the same calls measure the workspace
//     near.note_uncovered(image, band, covering)                        // for every band of kCell rows of every image,
//     near.note_uncovered(image, area, cells)                           // or for every tile
//     near.choose(face_indices, range_of, reaches_of, fault)            // phases after that
//     if (near.of_tile(image, area, &tile)) ...                         // for any tile
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/bins.h"
#include "cpu/mesh.h"
#include "cpu/soft_mask_vertices.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

constexpr int kMaskCell = 4;

// The faces that a tile needs, and which of the tile's cells they reach: bit 8 * row + column. A cell is kMaskCell by
// kMaskCell pixels.
struct FacesOfTile {
  std::vector<int32_t> faces;  // [count] and more, ascending in face index
  int64_t count = 0;
  uint64_t all_cells = 0;

  void clear() {
    count = 0;
    all_cells = 0;
  }
  // Makes room for so many more.
  void reserve(int64_t more) {
    const size_t least = size_t(count + more);
    if (faces.size() < least) faces.resize(2 * least);
  }
  // There must be room. What reaches nothing is not added.
  void add(int32_t face, uint64_t reached) {
    faces[size_t(count)] = face;
    count += reached != 0;
    all_cells |= reached;
  }
};

// Of the cells of a tile, those from a column or row on, or up to it.
struct CellTables {
  uint64_t columns_from[8] = {}, columns_to[8] = {}, rows_from[8] = {}, rows_to[8] = {};
  constexpr CellTables() {
    for (int i = 0; i < 8; ++i) {
      columns_from[i] = uint64_t(0xff << i & 0xff) * 0x0101010101010101u;
      columns_to[i] = uint64_t(0xff >> (7 - i)) * 0x0101010101010101u;
      rows_from[i] = ~uint64_t(0) << (8 * i);
      rows_to[i] = ~uint64_t(0) >> (8 * (7 - i));
    }
  }
};
constexpr CellTables kCellTables;

// The cells of a tile that a box reaches, which meets the tile.
inline uint64_t cells_reached(const MaskReach& box, const TileArea& area) {
  static_assert(kTile == 8 * kMaskCell);
  const int column = int(area.x0), row = int(area.y0);
  const unsigned x0 = unsigned(std::max(box.x0() - column, 0)) / kMaskCell;
  const unsigned y0 = unsigned(std::max(box.y0() - row, 0)) / kMaskCell;
  const unsigned x1 = unsigned(std::min(box.x1() - column, kTile - 1)) / kMaskCell;
  const unsigned y1 = unsigned(std::min(box.y1() - row, kTile - 1)) / kMaskCell;
  const CellTables& t = kCellTables;
  return t.columns_from[x0] & t.columns_to[x1] & t.rows_from[y0] & t.rows_to[y1];
}

class MaskFaces {
 public:
  static constexpr int kCell = kMaskCell;

  MaskFaces(int64_t batch, int64_t vertices, int64_t faces, int64_t height, int64_t width, Arena& arena)
      : batch_(batch), vertices_(vertices), height_(height), width_(width) {
    rows_ = (height + kCell - 1) / kCell;
    columns_ = (width + kTile - 1) / kTile * kCellsOfTile;
    chunks_ = (faces + kChunk - 1) / kChunk;
    uncovered_ = arena.take<uint8_t>(batch * rows_ * columns_);
    distances_ = arena.take<uint8_t>(batch * rows_ * columns_);
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

  // cells: those of a tile that have an uncovered pixel, bit 8 * row + column.
  void note_uncovered(int64_t image, const TileArea& area, uint64_t cells) const {
    const int64_t first = area.y0 / kCell, rows = std::min<int64_t>(rows_ - first, kCellsOfTile);
    for (int64_t y = 0; y < rows; ++y) {
      // Bit i to byte i, alone; then to 0 or 1.
      const uint64_t bits = (cells >> (8 * y) & 0xff) * 0x0101010101010101u & 0x8040201008040201u;
      const uint64_t bytes = (bits + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
      std::memcpy(uncovered_ + (image * rows_ + first + y) * columns_ + area.x0 / kCell, &bytes, sizeof bytes);
    }
  }

  // The phases that choose, of the faces range_of(image), those that may reach an uncovered pixel, from the
  // reaches_of(image) [V] of their vertices. They look at every index of every face; one that is not below the number
  // of vertices is reported, as a position in faces [F, 3], and nothing is usable then.
  template <class RangeOf, class ReachesOf>
  auto choose(const int32_t* face_indices, const RangeOf& range_of, const ReachesOf& reaches_of,
              LowestFault& fault) const {
    const int64_t tasks = (chunks_ + kTask - 1) / kTask;
    const Phase choose_all = {batch_ * tasks, [=, &fault](int64_t i) {
                                const int64_t image = i / tasks, first = i % tasks * kTask;
                                const FaceRange range = range_of(image);
                                for (int64_t chunk = first; chunk < std::min(first + kTask, chunks_); ++chunk) {
                                  choose_in_chunk(image, chunk, face_indices, range, reaches_of(image), fault);
                                }
                              }};
    return std::make_tuple(Phase{batch_, [=](int64_t image) { find_distances(image); }}, choose_all);
  }

  // False where no face reaches an uncovered pixel of the tile.
  bool of_tile(int64_t image, const TileArea& area, FacesOfTile* tile) const {
    const uint64_t open = uncovered_cells(image, area);
    if (open == 0) return false;
    tile->clear();
    const MaskReach box = box_around(open, area);
    for (int64_t chunk = image * chunks_; chunk < (image + 1) * chunks_; ++chunk) {
      if (chosen_[chunk].box.meets(box)) add_chunk(chunk, box, open, area, tile);
    }
    return tile->all_cells != 0;
  }

 private:
  static constexpr int kCellsOfTile = kTile / kCell;
  static_assert(kCellsOfTile == 8);
  static constexpr int kChunk = 256, kTask = 8;  // faces, and chunks
  // Distances are told apart up to here; what reaches further is chosen.
  static constexpr int kFarthest = 8;

  // How many are chosen of kChunk faces, and the union of their boxes.
  struct Chosen {
    int32_t count;
    MaskReach box;
  };

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
                       const MaskReach* reaches, LowestFault& fault) const {
    Chosen& chosen = chosen_[image * chunks_ + chunk];
    chosen = {0, {{INT16_MIN, INT16_MIN, -1, -1}}};
    const int64_t first = range.start + chunk * kChunk, end = std::min(first + kChunk, range.start + range.count);
    if (first >= end || !in_range(face_indices, 3 * first, 3 * end, fault)) return;
    const int count = int(end - first);
    MaskReach all[kChunk];
    for (int i = 0; i < count; ++i) all[i] = reach_of_face(reaches, face_indices + 3 * (first + i));
    // All of a box is within `radius` cells of `middle`.
    int32_t radii[kChunk], middles[kChunk];
    for (int i = 0; i < count; ++i) {
      const int x0 = all[i].x0(), y0 = all[i].y0(), x1 = all[i].x1(), y1 = all[i].y1();
      const int cx0 = x0 / kCell, cy0 = y0 / kCell, cx1 = x1 / kCell, cy1 = y1 / kCell;
      const bool empty = (x0 > x1) | (y0 > y1) | (x0 < 0);
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

  // Adds the faces of a chunk that reach open cells of the tile. Whether one does is as good as chance: no branch.
  void add_chunk(int64_t chunk, const MaskReach& box, uint64_t open, const TileArea& area, FacesOfTile* tile) const {
    const MaskReach* boxes = boxes_ + chunk * kChunk;
    const int32_t* indices = indices_ + chunk * kChunk;
    int near[kChunk], count = 0;
    for (int i = 0; i < chosen_[chunk].count; ++i) {
      near[count] = i;
      count += boxes[i].meets(box);
    }
    tile->reserve(count);
    for (int i = 0; i < count; ++i) {
      tile->add(indices[near[i]], open & cells_reached(boxes[near[i]], area));
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

  int64_t batch_, vertices_, height_, width_;
  int64_t rows_, columns_;  // of cells; the columns of all tiles, also where they go beyond the image
  int64_t chunks_;
  uint8_t* uncovered_;  // [B, rows, columns]: 1 where a pixel of the cell is not covered
  uint8_t* distances_;  // [B, rows, columns]
  Chosen* chosen_;      // [B, chunks]
  MaskReach* boxes_;    // [B, chunks, kChunk]: of those that are chosen
  int32_t* indices_;    // [B, chunks, kChunk]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
