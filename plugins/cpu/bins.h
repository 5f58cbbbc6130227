// Bins: for every tile of every image, the faces that can touch it, ascending in face index. Count, scan, fill in a
// workspace whose size depends on shapes only. Where the lists of an image do not fit, its last tiles are given no list
// and walk all faces instead: slower, never wrong.
#pragma once

#include <utility>
#include <vector>

#include "abi/arena.h"
#include "core/triangle.h"
#include "cpu/mesh.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

constexpr int kTile = 32;

struct TileArea {
  int64_t x0, y0, x1, y1;  // half-open, in pixels
};

// The pixels that a face can touch, both ends inclusive, and which way it faces: +1 front, -1 back. Image sides are at
// most 32768, so a coordinate fits an int16.
struct FaceBox {
  int16_t x0, y0, x1, y1, sign;
};

inline FaceBox pack_box(const PixelBox& b, int sign) {
  return {int16_t(b.x0), int16_t(b.y0), int16_t(b.x1), int16_t(b.y1), int16_t(sign)};
}
inline bool is_empty(const FaceBox& b) { return b.x0 > b.x1 || b.y0 > b.y1; }
constexpr FaceBox kEmptyBox = {1, 1, 0, 0, 0};

class Bins {
 public:
  Bins(int64_t batch, int64_t faces, int64_t height, int64_t width, Arena& arena)
      : batch_(batch), faces_(faces), height_(height), width_(width) {
    columns_ = (width + kTile - 1) / kTile;
    rows_ = (height + kTile - 1) / kTile;
    chunks_ = std::clamp<int64_t>(faces / 1024, 1, 16);
    capacity_ = 4 * faces + 256 * tiles();
    boxes_ = arena.take<FaceBox>(batch * faces);
    starts_ = arena.take<int64_t>(batch * chunks_ * (tiles() + 1));
    entries_ = arena.take<int32_t>(batch * capacity_);
    drawn_ = arena.take<int32_t>(batch * faces);
    drawn_counts_ = arena.take<int64_t>(batch * chunks_);
  }

  int64_t tiles() const { return columns_ * rows_; }
  int64_t tile_rows() const { return rows_; }
  int64_t tile_columns() const { return columns_; }

  // The phases that fill the bins. range_of(image) gives the image's faces; boxes_of(image, face, count, boxes) makes
  // the boxes of at most eight faces from that one on, and says which of them can be drawn: bit i is that of face + i.
  // A box that cannot is of no interest. Of a box of many tiles, band_of(image, face)(y0, y1, x0, x1) narrows the
  // columns from *x0 to *x1, both inclusive, to those that the face can touch in the rows from y0 to y1.
  template <class BoxesOf, class RangeOf, class BandOf>
  auto build(const RangeOf& range_of, const BoxesOf& boxes_of, const BandOf& band_of) const {
    const int64_t tasks = batch_ * chunks_;
    return std::make_tuple(
        Phase{tasks, [=](int64_t i) { count_chunk(i / chunks_, i % chunks_, range_of, boxes_of, band_of); }},
        Phase{batch_, [=](int64_t image) { scan(image); }},
        Phase{tasks, [=](int64_t i) { fill_chunk(i / chunks_, apart(i % chunks_), range_of, band_of); }});
  }

  TileArea area(int64_t tile) const {
    const int64_t x = tile % columns_ * kTile, y = tile / columns_ * kTile;
    return {x, y, std::min(x + kTile, width_), std::min(y + kTile, height_)};
  }

  const FaceBox& box(int64_t image, int64_t face) const { return boxes_[image * faces_ + face]; }

  // Calls visit(face) for every face that can touch the tile, ascending, until it returns false.
  template <class Visit>
  void for_each_face(int64_t image, int64_t tile, const FaceRange& range, const Visit& visit) const {
    const int64_t* starts = slots(image, 0) + tile;
    const int64_t begin = starts[0], end = starts[1];
    if (end <= capacity_) {
      const int32_t* entries = entries_ + image * capacity_;
      for (int64_t i = begin; i < end; ++i) {
        __builtin_prefetch(&box(image, entries[std::min(i + kAhead, end - 1)]));
        if (!visit(entries[i])) return;
      }
      return;
    }
    const TileArea tile_area = area(tile);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (const int32_t face : drawn_faces(image, chunk, range)) {
        const FaceBox& b = box(image, face);
        const bool touches = b.x0 < tile_area.x1 && b.x1 >= tile_area.x0 && b.y0 < tile_area.y1 && b.y1 >= tile_area.y0;
        if (touches && !visit(face)) return;
      }
    }
  }

 private:
  // How many faces ahead a box is fetched, which another thread may have made.
  static constexpr int64_t kAhead = 8;
  // From how many tiles on a face's box is narrowed row by row: of a few, the face touches nearly all.
  static constexpr int kManyTiles = 6;

  // Of every tile, how many faces of the chunk touch it; after `scan`, where these begin among the image's entries. The
  // last slot of the first chunk is then where all end. Threads write to different slots at the same time, so those of
  // a chunk lie together.
  int64_t* slots(int64_t image, int64_t chunk) const { return starts_ + (image * chunks_ + chunk) * (tiles() + 1); }

  // The faces of a chunk that can be drawn, ascending, as `count_chunk` has found them.
  struct DrawnFaces {
    const int32_t *first, *last;
    const int32_t* begin() const { return first; }
    const int32_t* end() const { return last; }
  };
  DrawnFaces drawn_faces(int64_t image, int64_t chunk, const FaceRange& range) const {
    const int32_t* first = drawn_ + image * faces_ + part_of(range.count, chunks_, chunk).begin;
    return {first, first + drawn_counts_[image * chunks_ + chunk]};
  }

  template <class BandOf, class Visit>
  void for_each_tile(int64_t image, int64_t face, const FaceBox& b, const BandOf& band_of, const Visit& visit) const {
    const auto tile_of = [](int16_t pixel) { return int(uint16_t(pixel) / kTile); };  // none is negative
    const int x0 = tile_of(b.x0), x1 = tile_of(b.x1), y0 = tile_of(b.y0), y1 = tile_of(b.y1);
    if (x0 == x1 && y0 == y1) return visit(y0 * columns_ + x0);
    if ((x1 - x0 + 1) * (y1 - y0 + 1) >= kManyTiles) return for_each_tile_of_many(b, band_of(image, face), visit);
    for (int y = y0; y <= y1; ++y) {
      for (int x = x0; x <= x1; ++x) visit(y * columns_ + x);
    }
  }
  template <class Band, class Visit>
  __attribute__((noinline)) void for_each_tile_of_many(const FaceBox& b, const Band& band, const Visit& visit) const {
    const int y1 = b.y1 / kTile;
    for (int y = b.y0 / kTile; y <= y1; ++y) {
      int first = b.x0, last = b.x1;
      band(std::max<int>(b.y0, y * kTile), std::min<int>(b.y1, y * kTile + kTile - 1), &first, &last);
      for (int x = first / kTile; first <= last && x <= last / kTile; ++x) visit(y * columns_ + x);
    }
  }

  // The chunks in an order in which neighbours, whose entries share lines of memory, are not filled at the same time.
  int64_t apart(int64_t i) const { return i % 2 == 0 ? i / 2 : (chunks_ + 1) / 2 + i / 2; }

  template <class BoxesOf, class RangeOf, class BandOf>
  void count_chunk(int64_t image, int64_t chunk, const RangeOf& range_of, const BoxesOf& boxes_of,
                   const BandOf& band_of) const {
    int64_t* counts = slots(image, chunk);
    std::fill_n(counts, tiles(), 0);
    const FaceRange range = range_of(image);
    const Range part = part_of(range.count, chunks_, chunk);
    int32_t *const first = drawn_ + image * faces_ + part.begin, *next = first;
    const int64_t end = range.start + part.end;
    for (int64_t face = range.start + part.begin; face < end; face += 8) {
      FaceBox* boxes = boxes_ + image * faces_ + face;
      for (unsigned bits = boxes_of(image, face, int(std::min<int64_t>(end - face, 8)), boxes); bits != 0;
           bits &= bits - 1) {
        const int i = __builtin_ctz(bits);
        *next++ = int32_t(face + i);
        for_each_tile(image, face + i, boxes[i], band_of, [&](int64_t tile) { ++counts[tile]; });
      }
    }
    drawn_counts_[image * chunks_ + chunk] = next - first;
  }

  void scan(int64_t image) const {
    int64_t* first = slots(image, 0);
    int64_t next = 0;
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        int64_t& slot = first[chunk * (tiles() + 1) + tile];
        next += std::exchange(slot, next);
      }
    }
    first[tiles()] = next;
  }

  template <class RangeOf, class BandOf>
  void fill_chunk(int64_t image, int64_t chunk, const RangeOf& range_of, const BandOf& band_of) const {
    // Starts must survive for the reader, so the running positions live in a thread's own scratch.
    static thread_local std::vector<int64_t> next;
    const int64_t* first = slots(image, chunk);
    next.assign(first, first + tiles());
    int64_t* next_of = next.data();
    const int64_t capacity = capacity_;
    int32_t* entries = entries_ + image * capacity;
    for (const int32_t face : drawn_faces(image, chunk, range_of(image))) {
      for_each_tile(image, face, box(image, face), band_of, [&](int64_t tile) {
        const int64_t position = next_of[tile]++;
        if (position < capacity) entries[position] = face;
      });
    }
  }

  int64_t batch_, faces_, height_, width_;
  int64_t columns_, rows_, chunks_, capacity_;
  FaceBox* boxes_;         // [B, F]
  int64_t* starts_;        // [B, chunks, tiles + 1]
  int32_t* entries_;       // [B, capacity]
  int32_t* drawn_;         // [B, F]: those of each chunk from its first face on
  int64_t* drawn_counts_;  // [B, chunks]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
