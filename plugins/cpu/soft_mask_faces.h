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
#include <vector>

#include "cpu/bins.h"
#include "cpu/mesh.h"
#include "cpu/soft_mask_vertices.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

constexpr int kMaskCell = 4;

// The first of at least so many in a vector that is reused. It grows beyond that, so that it seldom has to.
template <class N>
N* room_for(std::vector<N>& numbers, int64_t count) {
  if (int64_t(numbers.size()) < count) numbers.resize(2 * size_t(count));
  return numbers.data();
}

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
};

// Of the cells of a tile, by the first and 8 times the last one of some columns, or rows: theirs.
struct CellTables {
  uint64_t columns[64] = {}, rows[64] = {};
  constexpr CellTables() {
    for (int last = 0; last < 8; ++last) {
      for (int first = 0; first <= last; ++first) {
        const uint64_t bits = (0xffu << first) & (0xffu >> (7 - last));
        columns[first + 8 * last] = bits * 0x0101010101010101u;
        for (int row = first; row <= last; ++row) rows[first + 8 * last] |= uint64_t(0xff) << (8 * row);
      }
    }
  }
};
constexpr CellTables kCellTables;

// Finds the cells of a tile that boxes reach, which meet the tile.
class CellsOfTile {
 public:
  explicit CellsOfTile(const TileArea& area) : column_(int16_t(area.x0)), row_(int16_t(area.y0)) {}

  uint64_t reached(const MaskReach& box) const {
    static_assert(kTile == 8 * kMaskCell && kMaskCell == 4);
#if defined(__SSE2__)
    // Four numbers of 16 bits side by side: from the tile's corner on, within the tile, not negated, in cells.
    const __m128i corner = numbers(column_, row_, int16_t(-column_), int16_t(-row_));
    const __m128i own = _mm_add_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(box.v)), corner);
    const __m128i inside = _mm_min_epi16(own, numbers(0, 0, kTile - 1, kTile - 1)), first = numbers(-1, -1, 0, 0);
    const __m128i cells = _mm_srli_epi16(_mm_sub_epi16(_mm_xor_si128(inside, first), first), 2);
    uint64_t all;
    _mm_storel_epi64(reinterpret_cast<__m128i*>(&all), cells);
    const uint32_t ranges =
        uint32_t(all) | uint32_t(all >> 29);  // first + 8 * last: columns, and rows in the upper half
    return kCellTables.columns[ranges & 63] & kCellTables.rows[ranges >> 16];
#else
    const int x0 = std::max(box.x0() - column_, 0) / kMaskCell, y0 = std::max(box.y0() - row_, 0) / kMaskCell;
    const int x1 = std::min(box.x1() - column_, kTile - 1) / kMaskCell;
    const int y1 = std::min(box.y1() - row_, kTile - 1) / kMaskCell;
    return kCellTables.columns[x0 + 8 * x1] & kCellTables.rows[y0 + 8 * y1];
#endif
  }

 private:
#if defined(__SSE2__)
  static __m128i numbers(int16_t a, int16_t b, int16_t c, int16_t d) { return _mm_setr_epi16(a, b, c, d, 0, 0, 0, 0); }
#endif

  int16_t column_, row_;
};

// Of 32 columns, a bit each, to the eight cells that have one of them.
inline unsigned cells_of_columns(uint32_t bits) {
  bits |= bits >> 2;
  bits = (bits | bits >> 1) & 0x11111111u;  // of every four, the lowest
  bits = (bits | bits >> 3) & 0x03030303u;
  bits = (bits | bits >> 6) & 0x000f000fu;
  return (bits | bits >> 12) & 0xff;
}

class MaskFaces {
 public:
  static constexpr int kCell = kMaskCell;

  MaskFaces(int64_t batch, int64_t vertices, int64_t faces, int64_t height, int64_t width, Arena& arena)
      : batch_(batch), vertices_(vertices), width_(width) {
    rows_ = (height + kCell - 1) / kCell;
    columns_ = (width + kCell - 1) / kCell;
    words_ = (columns_ + kWord - 1) / kWord;
    chunks_ = (faces + kChunk - 1) / kChunk;
    uncovered_ = arena.take<uint64_t>(batch * rows_ * words_);
    inside_ = arena.take<uint64_t>(batch * words_of_inside());
    chosen_ = arena.take<Chosen>(batch * chunks_);
    boxes_ = arena.take<MaskReach>(batch * chunks_ * kChunk);
    indices_ = arena.take<int32_t>(batch * chunks_ * kChunk);
  }

  // Bands of kCell rows of pixels, the last one perhaps lower.
  int64_t bands() const { return rows_; }

  // covering: of each column, the bitwise or of face_index over the band's rows: < 0 where one is uncovered. It goes
  // on, with 0, to the end of the last tile.
  void note_uncovered(int64_t image, int64_t band, const int32_t* covering) const {
    using N = Pack<int32_t>;
    uint8_t* cells = bytes(uncovered_ + (image * rows_ + band) * words_);
    for (int64_t tile = 0; tile * kTile < width_; ++tile) {
      uint32_t uncovered = 0;
      for (int x = 0; x < kTile; x += N::kLanes) {
        uncovered |= (N::load(covering + tile * kTile + x) < N(0)).lanes() << x;
      }
      cells[tile] = uint8_t(cells_of_columns(uncovered));
    }
  }

  // cells: those of a tile that have an uncovered pixel, bit 8 * row + column.
  void note_uncovered(int64_t image, const TileArea& area, uint64_t cells) const {
    const int64_t first = area.y0 / kCell, rows = std::min<int64_t>(rows_ - first, kCellsOfTile);
    for (int64_t y = 0; y < rows; ++y) {
      bytes(uncovered_ + (image * rows_ + first + y) * words_)[area.x0 / kTile] = uint8_t(cells >> (8 * y));
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
    return std::make_tuple(Phase{batch_, [=](int64_t image) { find_inside(image); }}, choose_all);
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
  static constexpr int kCellsOfTile = kTile / kCell, kLogCell = 2;
  static_assert(kCellsOfTile == 8 && 1 << kLogCell == kCell);
  static constexpr int kChunk = 256, kTask = 8;  // faces, and chunks
  static constexpr int kWord = 64;               // cells, a bit each; byte by byte those of a tile's row
  // Distances are told apart below this; what reaches as far is chosen.
  static constexpr int kFarthest = 8;

  // How many are chosen of kChunk faces, and the union of their boxes.
  struct Chosen {
    int32_t count;
    MaskReach box;
  };

  // What lies inside of the outline: two bits that stand for no cell, the first of which is set, in a word, then for
  // each distance below kFarthest a bit for each cell. It is set where nothing so many cells away or nearer, across
  // edges and corners alike, has an uncovered pixel.
  int64_t words_of_inside() const { return 1 + kFarthest * rows_ * words_; }
  static constexpr int32_t kNeverNear = 0, kAlwaysNear = 1;

  void find_inside(int64_t image) const {
    static thread_local std::vector<uint64_t> across_of_thread;
    across_of_thread.resize(size_t(rows_ * words_));
    uint64_t* across = across_of_thread.data();
    const uint64_t* uncovered = uncovered_ + image * rows_ * words_;
    uint64_t* inside = inside_ + image * words_of_inside();
    *inside++ = 1u << kNeverNear;
    const int64_t last = words_ - 1;
    const uint64_t beyond = columns_ % kWord == 0 ? 0 : ~uint64_t(0) << (columns_ % kWord);
    for (int64_t i = 0; i < rows_ * words_; ++i) inside[i] = ~uncovered[i] | (i % words_ == last ? beyond : 0);
    for (int step = 1; step < kFarthest; ++step, inside += rows_ * words_) {
      for (int64_t y = 0; y < rows_; ++y) shrink_row(inside + y * words_, words_, across + y * words_);
      for (int64_t i = 0; i < rows_ * words_; ++i) {
        const uint64_t above = i >= words_ ? across[i - words_] : ~uint64_t(0);
        const uint64_t below = i < (rows_ - 1) * words_ ? across[i + words_] : ~uint64_t(0);
        inside[rows_ * words_ + i] = above & across[i] & below;
      }
    }
  }
  // Leaves the bits set whose neighbours in the row are set, too, as is what lies beyond its ends.
  static void shrink_row(const uint64_t* row, int64_t words, uint64_t* out) {
    uint64_t before = ~uint64_t(0);
    for (int64_t i = 0; i < words; ++i) {
      const uint64_t after = i + 1 < words ? row[i + 1] : ~uint64_t(0);
      out[i] = row[i] & (row[i] << 1 | before >> 63) & (row[i] >> 1 | after << 63);
      before = row[i];
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
    // All of a box is within `radius` cells of its middle.
    int32_t places[kChunk];
    const int row = int(words_ * kWord), plane = int(rows_) * row;
    for (int i = 0; i < count; ++i) {
      const int x0 = all[i].x0(), y0 = all[i].y0(), x1 = all[i].x1(), y1 = all[i].y1();
      const int cx0 = x0 >> kLogCell, cy0 = y0 >> kLogCell, cx1 = x1 >> kLogCell, cy1 = y1 >> kLogCell;
      const bool empty = (x0 > x1) | (y0 > y1) | (x0 < 0);
      const int radius = std::min(std::max(cx1 - cx0 + 1, cy1 - cy0 + 1) >> 1, kFarthest);
      const int place = kWord + radius * plane + ((cy0 + cy1) >> 1) * row + ((cx0 + cx1) >> 1);
      places[i] = empty ? kNeverNear : radius == kFarthest ? kAlwaysNear : place;
    }
    const auto* inside = reinterpret_cast<const uint8_t*>(inside_ + image * words_of_inside());
    int32_t near[kChunk];
    int found = 0;
    for (int i = 0; i < count; ++i) {
      near[found] = i;
      found += ~(inside[places[i] >> 3] >> (places[i] & 7)) & 1;
    }
    MaskReach* boxes = boxes_ + (image * chunks_ + chunk) * kChunk;
    int32_t* indices = indices_ + (image * chunks_ + chunk) * kChunk;
    UnitedReach box(chosen.box);
    for (int i = 0; i < found; ++i) {
      boxes[i] = all[near[i]];
      indices[i] = int32_t(first + near[i]);
      box.include(all[near[i]]);
    }
    chosen.box = box.get();
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
    int32_t near[kChunk];
    int count = 0;
    const int chosen = chosen_[chunk].count;
    for (int i = 0; i < chosen; i += 16) {
      const unsigned meeting = meeting_boxes(boxes + i, box) & (0xffffu >> (16 - std::min(chosen - i, 16)));
      append_places(i, meeting, near + count);
      count += count_bits(meeting);
    }
    int32_t* faces = room_for(tile->faces, tile->count + count);
    const CellsOfTile cells(area);
    int64_t added = tile->count;
    uint64_t all = tile->all_cells;
    for (int i = 0; i < count; ++i) {
      const uint64_t reached = open & cells.reached(boxes[near[i]]);
      faces[added] = indices[near[i]];
      added += reached != 0;
      all |= reached;
    }
    tile->count = added;
    tile->all_cells = all;
  }

  uint64_t uncovered_cells(int64_t image, const TileArea& area) const {
    uint64_t open = 0;
    const int64_t first = area.y0 / kCell, rows = std::min<int64_t>(rows_ - first, kCellsOfTile);
    for (int64_t y = 0; y < rows; ++y) {
      open |= uint64_t(bytes(uncovered_ + (image * rows_ + first + y) * words_)[area.x0 / kTile]) << (8 * y);
    }
    return open;
  }
  // Byte by byte, cells follow one another as they do bit by bit in a word: every machine that this is built for has
  // the lowest byte first.
  static uint8_t* bytes(uint64_t* words) { return reinterpret_cast<uint8_t*>(words); }

  static MaskReach box_around(uint64_t cells, const TileArea& area) {
    uint64_t columns = cells | cells >> 32;
    columns |= columns >> 16;
    columns = (columns | columns >> 8) & 0xff;
    const int64_t x0 = area.x0 + kCell * __builtin_ctzll(columns), y0 = area.y0 + kCell * (__builtin_ctzll(cells) / 8);
    const int64_t x1 = area.x0 + kCell * (63 - __builtin_clzll(columns)) + kCell - 1;
    const int64_t y1 = area.y0 + kCell * ((63 - __builtin_clzll(cells)) / 8) + kCell - 1;
    return {{int16_t(-x0), int16_t(-y0), int16_t(x1), int16_t(y1)}};
  }

  int64_t batch_, vertices_, width_;
  int64_t rows_, columns_;  // of cells
  int64_t words_;           // of a row
  int64_t chunks_;
  uint64_t* uncovered_;  // [B, rows, words]: a bit for each cell with an uncovered pixel; beyond the columns undefined
  uint64_t* inside_;     // [B, words_of_inside()]
  Chosen* chosen_;       // [B, chunks]
  MaskReach* boxes_;     // [B, chunks, kChunk]: of those that are chosen
  int32_t* indices_;     // [B, chunks, kChunk]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
