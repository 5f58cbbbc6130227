// Which faces a tile's mask needs, found with little work for those inside of the outline: of a mesh in front of a
// background, most faces are far from every pixel that nothing covers.
//
//     MaskFaces near(batch, vertices, faces, height, width, arena);     // the same calls measure the workspace
//     near.note_uncovered(image, band, covering)                        // for every band of kCell rows of every image
//     near.choose(launch, face_indices, range_of, reaches_of, fault)    // after that
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

// The faces that a tile needs, and of each, which of the tile's cells it reaches: bit 8 * row + column. A cell is
// kMaskCell by kMaskCell pixels.
struct FacesOfTile {
  std::vector<int32_t> faces;  // [count] and more, ascending in face index
  std::vector<uint64_t> cells;
  int64_t count = 0;
  uint64_t all_cells = 0;

  void clear() {
    count = 0;
    all_cells = 0;
  }
  // Makes room for so many more.
  void reserve(int64_t more) {
    const size_t least = size_t(count + more);
    if (faces.size() >= least) return;
    faces.resize(2 * least);
    cells.resize(2 * least);
  }
  // There must be room. What reaches nothing is not added.
  void add(int32_t face, uint64_t reached) {
    faces[size_t(count)] = face;
    cells[size_t(count)] = reached;
    count += reached != 0;
    all_cells |= reached;
  }
  // For those that read eight at a time: what follows reaches nothing.
  void finish() {
    reserve(kEight);
    std::fill_n(faces.begin() + count, kEight, 0);
    std::fill_n(cells.begin() + count, kEight, 0);
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
    words_ = (columns_ + 63) / 64;
    uncovered_ = arena.take<uint64_t>(batch * rows_ * words_);
    inner_ = arena.take<uint64_t>(batch * kSteps * rows_ * words_);
    chosen_ = arena.take<Chosen>(batch * chunks_);
    boxes_ = arena.take<MaskReach>(batch * chunks_ * kChunk);
    indices_ = arena.take<int32_t>(batch * chunks_ * kChunk);
  }

  // Bands of kCell rows of pixels, the last one perhaps lower.
  int64_t bands() const { return rows_; }

  // covering [width]: of each column, the bitwise or of face_index over the band's rows: < 0 where one is uncovered.
  void note_uncovered(int64_t image, int64_t band, const int32_t* covering) const {
    uint64_t* words = uncovered_ + (image * rows_ + band) * words_;
    const int64_t whole = width_ / kCell;
    static_assert(kCell == 4);
    for (int64_t word = 0; word < words_; ++word) {
      uint8_t cells[64] = {};
      const int64_t first = 64 * word, count = std::clamp<int64_t>(whole - first, 0, 64);
      for (int64_t i = 0; i < count; ++i) {
        const int32_t* c = covering + (first + i) * kCell;
        cells[i] = uint8_t(uint32_t(c[0] | c[1] | c[2] | c[3]) >> 31);
      }
      words[word] = 0;
      for (int byte = 0; byte < 8; ++byte) words[word] |= bits_of_bytes(cells + 8 * byte) << (8 * byte);
    }
    for (int64_t x = whole * kCell; x < width_; ++x) {
      words[whole / 64] |= uint64_t(uint32_t(covering[x]) >> 31) << (whole % 64);
    }
  }

  // Chooses, of the faces range_of(image), those that may reach an uncovered pixel, from the reaches_of(image) [V] of
  // their vertices. Looks at every index of every face; one that is not below the number of vertices is reported, as a
  // position in faces [F, 3], and nothing is usable then.
  template <class RangeOf, class ReachesOf>
  void choose(const dibr_launch& launch, const int32_t* face_indices, const RangeOf& range_of,
              const ReachesOf& reaches_of, LowestFault& fault) const {
    parallel_for(launch, batch_, [&](int64_t image) { find_inner(image); });
    constexpr int64_t kTask = 8;
    const int64_t tasks = (chunks_ + kTask - 1) / kTask;
    parallel_for(launch, batch_ * tasks, [&](int64_t i) {
      const int64_t image = i / tasks, first = i % tasks * kTask;
      const FaceRange range = range_of(image);
      for (int64_t chunk = first; chunk < std::min(first + kTask, chunks_); ++chunk) {
        choose_in_chunk(image, chunk, face_indices, range, reaches_of(image), fault);
      }
    });
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
    tile->finish();
    return tile->all_cells != 0;
  }

 private:
  static constexpr int kCellsOfTile = kTile / kCell;
  static constexpr int kChunk = 256;
  // So many faces are looked at together first: neighbours, in most meshes.
  static constexpr int kGroup = 64;
  // What reaches further than this many cells from its middle is chosen.
  static constexpr int kSteps = 8;

  // How many are chosen of kChunk faces, and the union of their boxes.
  struct Chosen {
    int32_t count;
    MaskReach box;
  };

  // Bit i is byte i, 0 or 1.
  static uint64_t bits_of_bytes(const uint8_t* bytes) {
    uint64_t all;
    std::memcpy(&all, bytes, sizeof all);
    return all * 0x0102040810204080u >> 56;
  }

  // inner_: for each number of steps, the cells from which so many, across edges and corners alike, lead to no cell
  // with an uncovered pixel. Beyond the image there is none.
  void find_inner(int64_t image) const {
    const int64_t size = rows_ * words_;
    uint64_t* inner = inner_ + image * kSteps * size;
    for (int64_t i = 0; i < size; ++i) inner[i] = ~uncovered_[image * size + i];
    static thread_local std::vector<uint64_t> row_of_thread;
    std::vector<uint64_t>& row = row_of_thread;
    row.assign(size_t(words_ + 2), ~uint64_t(0));
    for (int step = 1; step < kSteps; ++step, inner += size) {
      for (int64_t y = 0; y < rows_; ++y) {
        const uint64_t* own = inner + y * words_;
        const uint64_t *above = y > 0 ? own - words_ : own, *below = y + 1 < rows_ ? own + words_ : own;
        for (int64_t i = 0; i < words_; ++i) row[size_t(i + 1)] = own[i] & above[i] & below[i];
        uint64_t* next = inner + size + y * words_;
        for (int64_t i = 0; i < words_; ++i) {
          const uint64_t *r = row.data() + i, bits = r[1];
          next[i] = bits & (bits << 1 | r[0] >> 63) & (bits >> 1 | r[2] << 63);
        }
      }
    }
  }

  // Whether a box certainly reaches no cell with an uncovered pixel.
  bool is_inner(const uint64_t* inner, const MaskReach& box) const {
    const int x0 = box.x0() / kCell, y0 = box.y0() / kCell, x1 = box.x1() / kCell, y1 = box.y1() / kCell;
    // All of it is within so many steps of its middle.
    const int steps = std::max(x1 - x0 + 1, y1 - y0 + 1) >> 1;
    const bool known = !box.is_empty() & (steps < kSteps);
    const int64_t row = known ? int64_t(steps) * rows_ + ((y0 + y1) >> 1) : 0, column = known ? (x0 + x1) >> 1 : 0;
    return known & bool(inner[row * words_ + column / 64] >> (column % 64) & 1);
  }

  void choose_in_chunk(int64_t image, int64_t chunk, const int32_t* face_indices, const FaceRange& range,
                       const MaskReach* reaches, LowestFault& fault) const {
    Chosen& chosen = chosen_[image * chunks_ + chunk];
    chosen = {0, MaskReach::nothing()};
    const int64_t first = range.start + chunk * kChunk, end = std::min(first + kChunk, range.start + range.count);
    if (first >= end || !in_range(face_indices, 3 * first, 3 * end, fault)) return;
    const uint64_t* inner = inner_ + image * kSteps * rows_ * words_;
    MaskReach* boxes = boxes_ + (image * chunks_ + chunk) * kChunk;
    int32_t* indices = indices_ + (image * chunks_ + chunk) * kChunk;
    int found = 0;
    for (int64_t begin = first; begin < end; begin += kGroup) {
      const int count = int(std::min<int64_t>(end - begin, kGroup));
      MaskReach group[kGroup], all = MaskReach::nothing();
      for (int i = 0; i < count; ++i) {
        group[i] = reach_of_face(reaches, face_indices + 3 * (begin + i));
        all = united(all, group[i]);
      }
      if (is_inner(inner, all)) continue;
      for (int i = 0; i < count; ++i) {
        boxes[found] = group[i];
        indices[found] = int32_t(begin + i);
        found += !group[i].is_empty() & !is_inner(inner, group[i]);
      }
    }
    for (int i = 0; i < found; ++i) chosen.box = united(chosen.box, boxes[i]);
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
    const int64_t column = area.x0 / kCell;
    static_assert(kCellsOfTile == 8);
    for (int64_t y = 0; y < rows; ++y) {
      open |= (uncovered_[(image * rows_ + first + y) * words_ + column / 64] >> (column % 64) & 0xff) << (8 * y);
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
  int64_t words_;           // of 64 cells, in a row
  int64_t chunks_;
  uint64_t* uncovered_;  // [B, rows, words]: bits of the cells that have an uncovered pixel
  uint64_t* inner_;      // [B, kSteps, rows, words]
  Chosen* chosen_;       // [B, chunks]
  MaskReach* boxes_;     // [B, chunks, kChunk]: of those that are chosen
  int32_t* indices_;     // [B, chunks, kChunk]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
