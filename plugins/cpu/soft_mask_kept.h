// What SoftMask has found on its way, for the backward to start from: of every tile, the faces and visits of its cells.
// All tiles share one pool, whose size depends on shapes alone; a tile that does not fit is not kept, and its backward
// finds the same things again.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "abi/arena.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Four faces, one or more of which take one or more of four pixels: bit 4 * i + k where face k takes pixel i.
struct Visit {
  int32_t faces;
  uint16_t takes;
  uint8_t pixels;
};

// One cell, followed in memory by its visits and by its faces.
struct KeptCell {
  int32_t cell, faces, visits;

  const Visit* visit() const { return reinterpret_cast<const Visit*>(this + 1); }
  const int32_t* face() const { return reinterpret_cast<const int32_t*>(visit() + visits); }
  size_t bytes() const { return sizeof(KeptCell) + size_t(visits) * sizeof(Visit) + size_t(faces) * sizeof(int32_t); }
};
static_assert(alignof(KeptCell) == alignof(int32_t) && alignof(Visit) == alignof(int32_t));

// The cells of one tile, one after another.
class KeptTile {
 public:
  KeptTile(const char* begin, const char* end) : begin_(begin), end_(end) {}

  class Iterator {
   public:
    explicit Iterator(const char* place) : place_(place) {}
    const KeptCell& operator*() const { return *reinterpret_cast<const KeptCell*>(place_); }
    Iterator& operator++() {
      place_ += (**this).bytes();
      return *this;
    }
    bool operator!=(const Iterator& other) const { return place_ != other.place_; }

   private:
    const char* place_;
  };
  bool is_empty() const { return begin_ == end_; }
  Iterator begin() const { return Iterator(begin_); }
  Iterator end() const { return Iterator(end_); }

 private:
  const char *begin_, *end_;
};

// Where a tile's cells are written first. One per thread.
class TileNotes {
 public:
  void clear() { bytes_.clear(); }
  // Returns where the cell's faces belong.
  int32_t* add(const KeptCell& cell, const Visit* visits) {
    const size_t first = bytes_.size();
    bytes_.resize(first + cell.bytes());
    char* own = bytes_.data() + first;
    std::memcpy(own, &cell, sizeof cell);
    if (cell.visits > 0) std::memcpy(own + sizeof cell, visits, size_t(cell.visits) * sizeof(Visit));
    return reinterpret_cast<int32_t*>(own + cell.bytes()) - cell.faces;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

class KeptTiles {
 public:
  // All tiles and pixels of a batch.
  KeptTiles(int64_t tiles, int64_t pixels, Arena& arena) : tiles_(tiles), capacity_(pixels * kBytesOfPixel) {
    used_ = arena.take<int64_t>(1);
    places_ = arena.take<Place>(tiles);
    pool_ = arena.take<char>(capacity_);
  }

  void clear() const {
    *used_ = 0;
    std::fill_n(places_, tiles_, Place{-1, -1});
  }
  // From any thread.
  void keep(int64_t tile, const TileNotes& notes) const {
    const int64_t count = int64_t(notes.bytes().size());
    const int64_t begin = __atomic_fetch_add(used_, count, __ATOMIC_RELAXED);
    if (begin + count > capacity_) return;
    std::copy_n(notes.bytes().data(), count, pool_ + begin);
    places_[tile] = {begin, begin + count};
  }

  bool has(int64_t tile) const { return places_[tile].begin >= 0; }
  KeptTile operator[](int64_t tile) const { return {pool_ + places_[tile].begin, pool_ + places_[tile].end}; }

 private:
  struct Place {
    int64_t begin, end;
  };

  // Outlines of fine meshes take one or two.
  static constexpr int64_t kBytesOfPixel = 4;

  int64_t tiles_, capacity_;
  int64_t* used_;
  Place* places_;  // [tiles], negative where one is not kept
  char* pool_;     // [capacity]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
