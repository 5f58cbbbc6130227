// What SoftMask has found on its way, for the backward to start from: of every tile, its faces, and the visits of its
// cells. All tiles share one pool, whose size depends on shapes alone; a tile that does not fit is not kept, and its
// backward finds the same things again.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "abi/arena.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Which of a cell's pixels take a face, and what nearest_edge says of them; bit 4 * y + x is that of a pixel.
struct VisitBits {
  uint16_t takes, edges[3];
};

static_assert(sizeof(VisitBits) % alignof(int32_t) == 0);

// The faces that pixels of a cell take, as places among the tile's faces.
struct Visits {
  const int32_t* faces;
  const VisitBits* bits;
};

// One cell, followed in memory by its visits.
struct alignas(8) KeptCell {
  int32_t cell, count;

  Visits visits() const {
    const auto* bits = reinterpret_cast<const VisitBits*>(this + 1);
    return {reinterpret_cast<const int32_t*>(bits + count), bits};
  }
  size_t bytes() const {
    return sizeof(KeptCell) + size_t(count) * sizeof(VisitBits) + size_t(count + 1) / 2 * 2 * sizeof(int32_t);
  }
};

// The cells of one tile, one after another, then its faces.
class KeptTile {
 public:
  KeptTile(const char* begin, int64_t bytes_of_cells, int64_t faces)
      : begin_(begin), end_(begin + bytes_of_cells), faces_(faces) {}

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
  const int32_t* faces() const { return reinterpret_cast<const int32_t*>(end_); }
  int64_t face_count() const { return faces_; }

 private:
  const char *begin_, *end_;
  int64_t faces_;
};

// Where a tile's cells, and in the end its faces, are written first. One per thread.
class TileNotes {
 public:
  void clear() { bytes_ = bytes_of_cells_ = faces_ = 0; }
  // A cell with `count` visits, at least one, of these faces; they are read sixteen at a time. Returns where the bits
  // of the visits are to be written before anything else is added.
  VisitBits* add(int cell, int64_t count, const int32_t* faces) {
    auto* kept = reinterpret_cast<KeptCell*>(take(KeptCell{cell, int32_t(count)}.bytes()));
    *kept = {cell, int32_t(count)};
    auto* bits = reinterpret_cast<VisitBits*>(kept + 1);
    auto* own_faces = reinterpret_cast<uint32_t*>(bits + count);
    for (int64_t i = 0; i < count; i += kFacesAtOnce) {
      Sixteen<uint32_t>::load(reinterpret_cast<const uint32_t*>(faces) + i).store(own_faces + i);
    }
    bytes_of_cells_ = bytes_;
    return bits;
  }
  void finish(const int32_t* faces, int64_t count) {
    faces_ = count;
    char* own = take(size_t(count + 1) / 2 * 2 * sizeof(int32_t));
    if (count > 0) std::memcpy(own, faces, size_t(count) * sizeof(int32_t));
  }

  const char* begin() const { return pool_.get(); }
  int64_t bytes() const { return int64_t(bytes_); }
  int64_t bytes_of_cells() const { return int64_t(bytes_of_cells_); }
  int64_t faces() const { return faces_; }

 private:
  // Not a vector, which would fill with zeros what is written next.
  char* take(size_t bytes) {
    const size_t least = bytes_ + bytes + kFacesAtOnce * sizeof(int32_t);
    if (least > capacity_) {
      capacity_ = 2 * least;
      std::unique_ptr<char[]> larger(new char[capacity_]);
      if (bytes_ > 0) std::memcpy(larger.get(), pool_.get(), bytes_);
      pool_ = std::move(larger);
    }
    return pool_.get() + std::exchange(bytes_, bytes_ + bytes);
  }

  static constexpr int kFacesAtOnce = 16;  // so many more may be written beyond the end

  std::unique_ptr<char[]> pool_;
  size_t capacity_ = 0, bytes_ = 0, bytes_of_cells_ = 0;
  int64_t faces_ = 0;
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
    std::fill_n(places_, tiles_, Place{-1, 0, 0});
  }
  // From any thread.
  void keep(int64_t tile, const TileNotes& notes) const {
    const int64_t count = notes.bytes(), begin = __atomic_fetch_add(used_, count, __ATOMIC_RELAXED);
    if (begin + count > capacity_) return;
    std::copy_n(notes.begin(), count, pool_ + begin);
    places_[tile] = {begin, notes.bytes_of_cells(), notes.faces()};
  }

  bool has(int64_t tile) const { return places_[tile].begin >= 0; }
  KeptTile operator[](int64_t tile) const {
    const Place& place = places_[tile];
    return {pool_ + place.begin, place.bytes_of_cells, place.faces};
  }

 private:
  struct Place {
    int64_t begin, bytes_of_cells, faces;
  };

  // Outlines take one to three, to seven where a mesh has as many faces as the image has pixels.
  static constexpr int64_t kBytesOfPixel = 8;

  int64_t tiles_, capacity_;
  int64_t* used_;
  Place* places_;  // [tiles], from a negative one on where one is not kept
  char* pool_;     // [capacity]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
