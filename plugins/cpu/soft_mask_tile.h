// SoftMask of one tile, for whoever has the tile's coverage and the faces near it.
//
// The pixels that nothing covers are looked at cell by cell: a visit is that of a face to the sixteen pixels of a cell,
// a lane each. All of a cell's visits are found first; what follows are loops without a branch, since a branch that is
// guessed wrong costs as much as half a visit. A mask is the product over a pixel's faces in index order, to the bit;
// the gradient's sums have an order that depends on the scene alone, since the lanes are the same on every instruction
// set.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/lanes.h"
#include "cpu/soft_mask_faces.h"
#include "cpu/soft_mask_kept.h"
#include "cpu/soft_mask_ready.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// The first column and row of a cell in its tile.
inline int column_of_cell(int cell) { return cell % 8 * kMaskCell; }
inline int row_of_cell(int cell) { return cell / 8 * kMaskCell; }

// Bit x of row y: the mask of that pixel of the tile is asked for.
struct OpenPixels {
  uint32_t rows[kTile] = {};

  // Bit 4 * y + x is that of pixel (x, y) of a cell.
  unsigned of_cell(int cell) const {
    const int column = column_of_cell(cell), row = row_of_cell(cell);
    unsigned bits = 0;
    for (int y = 0; y < kMaskCell; ++y) bits |= (rows[row + y] >> column & 15) << (4 * y);
    return bits;
  }

  // The cells that have such a pixel: bit 8 * row + column.
  uint64_t cells() const {
    uint64_t out = 0;
    for (int row = 0; row < kTile / kMaskCell; ++row) {
      const uint32_t* r = rows + row * kMaskCell;
      out |= uint64_t(cells_of_columns(r[0] | r[1] | r[2] | r[3])) << (8 * row);
    }
    return out;
  }
};

// The pixels of an area whose values the test names: test(values) has a bit for each lane of a Pack, none where it is
// 0. `values` points to those of the first pixel.
template <class V, class Test>
OpenPixels pixels_where(const TileArea& area, const V* values, int64_t stride, const Test& test) {
  OpenPixels out;
  const int64_t columns = area.x1 - area.x0;
  V padded[kTile] = {};
  for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
    const V* row = values + y * stride;
    if (columns < kTile) {
      std::copy_n(row, columns, padded);
      row = padded;
    }
    for (int x = 0; x < kTile; x += Pack<V>::kLanes) out.rows[y] |= test(Pack<V>::load(row + x)) << x;
  }
  return out;
}

// Those that nothing covers.
template <class Index>
OpenPixels uncovered_pixels(const TileArea& area, const Index* face_index, int64_t stride) {
  return pixels_where(area, face_index, stride,
                      [](Pack<Index> face) DIBR_INLINE_LAMBDA { return (face < Pack<Index>(0)).lanes(); });
}

// How many faces each of a cell's pixels may still take.
class PixelRoom {
 public:
  explicit PixelRoom(int64_t knum) : left_(uint32_t(std::min<int64_t>(knum, std::numeric_limits<int32_t>::max()))) {}
  // For a face that all of the pixels have room for.
  DIBR_HD void take_all(unsigned pixels) { left_ = left_ + spread_bits(pixels); }
  // Those of the pixels that have room: they take the face.
  DIBR_HD unsigned take(unsigned pixels) {
    const Sixteen<uint32_t> takes = spread_bits(pixels) & positive(left_);
    left_ = left_ + takes;
    return highest_bits(takes);
  }
  DIBR_HD unsigned open() const { return highest_bits(positive(left_)); }

 private:
  Sixteen<uint32_t> left_;
};

// A cell: where its pixels are, lane 4 * y + x each, and the faces that they take.
template <class T>
struct Cell {
  using N = Sixteen<T>;

  int number;
  N px, py;
  const FaceNumbers<T>* numbers;  // of the tile's faces
  int64_t count;
  const int32_t* faces;   // [count]: places among the tile's
  const uint32_t* takes;  // [count]: which pixels take each; NULL where there are VisitBits already

  DIBR_HD MaskFace<T> face(int64_t i) const { return numbers[faces[i]].face(); }
  DIBR_HD NearestEdge<N> nearest(int64_t i) const { return nearest_edge(face(i), px, py); }
  DIBR_HD VisitBits bits(int64_t i, const NearestEdge<N>& edge) const {
    return {uint16_t(takes[i]), {of(edge.is[0]), of(edge.is[1]), of(edge.is[2])}};
  }

 private:
  static DIBR_HD uint16_t of(typename N::Flags flags) { return uint16_t(flags.bits()); }
};

// Finds the visits of cell after cell. One per thread, reused from tile to tile.
template <class T>
class CellVisits {
 public:
  void enter(const MaskImage<T>& image, const TileArea& area) { faces_.enter(image, area); }
  // What `find` looks at.
  void list(const FacesOfTile& faces) { faces_.list(faces.faces.data(), faces.count); }
  // What `recall` refers to.
  void list(const KeptTile& tile) {
    faces_.list(tile.faces(), tile.face_count());
    faces_.template make_ready<false>(tile.face_count());
  }

  // Of a pixel's faces, only the first knum take part. What is returned holds until the next call.
  Cell<T> find(int cell, unsigned pixels) {
    make_room();
    const int64_t knum = faces_.image().rules.knum;
    PixelRoom room(knum);
    int64_t next = 0, count = 0, cut = 0;
    while (pixels != 0 && next < faces_.count()) {
      add_faces(cell, pixels, &next, &count);
      if (count <= knum) continue;
      cut = count = keep_takes(room, cut, count);
      pixels &= room.open();
    }
    return cell_of(cell, count, own_faces_.data(), own_takes_.data());
  }

  // What the cells that were found refer to.
  void finish(TileNotes* notes) const { notes->finish(faces_.faces(), faces_.ready()); }
  Cell<T> recall(const KeptCell& kept) const { return cell_of(kept.cell, kept.count, kept.visits().faces, nullptr); }

  const ReadyFaces<T>& of_tile() const { return faces_; }

 private:
  static constexpr int kAtOnce = 16;

  Cell<T> cell_of(int cell, int64_t count, const int32_t* faces, const uint32_t* takes) const {
    const T *px = faces_.px() + column_of_cell(cell), *py = faces_.py() + row_of_cell(cell);
    return {cell, Sixteen<T>::repeat(px), Sixteen<T>::each(py), faces_.numbers(), count, faces, takes};
  }

  void make_room() {
    const size_t least = size_t(faces_.count() + 2 * kAtOnce);
    if (own_faces_.size() >= least) return;
    own_faces_.resize(2 * least);
    own_takes_.resize(2 * least);
  }

  // Goes on through the tile's faces from *next on until sixteen more, or all, are added that contain some of the
  // pixels.
  void add_faces(int cell, unsigned pixels, int64_t* next, int64_t* count) {
    const int64_t all = faces_.count(), enough = *count + kAtOnce;
    const int first_column = column_of_cell(cell), first_row = row_of_cell(cell);
    int64_t i = *next, added = *count;
    while (added < enough && i < all) {
      faces_.template make_ready<true>(i + kAtOnce);
      const int64_t ready = faces_.ready();
      const uint32_t *columns = faces_.columns(), *rows = faces_.rows();
      int32_t* own_faces = own_faces_.data();
      uint32_t* own_takes = own_takes_.data();
      for (; added < enough && i < ready; i += kAtOnce) {
        uint32_t takes[kAtOnce];
        const unsigned taken = pixels_of_cell(Sixteen<uint32_t>::load(columns + i) >> first_column,
                                              Sixteen<uint32_t>::load(rows + i) >> first_row, pixels, takes);
        append_places(int32_t(i), taken, own_faces + added);
        append_set(takes, taken, own_takes + added);
        added += count_bits(taken);
      }
    }
    *next = i;
    *count = added;
  }

  // From the columns and rows of sixteen boxes, the lowest four bits of each, to those of a cell's pixels that they
  // contain. Bit i of what is returned is set where there are some.
  static DIBR_HD unsigned pixels_of_cell(Sixteen<uint32_t> columns, Sixteen<uint32_t> rows, unsigned pixels,
                                         uint32_t* takes) {
    columns = columns & 15;
    columns = columns | columns << 4;
    columns = columns | columns << 8;
    rows = rows & 15;
    rows = (rows | rows << 6) & 0x0303;
    rows = (rows | rows << 3) & 0x1111;  // of every four, the lowest
    const Sixteen<uint32_t> own = columns & ((rows << 4) - rows) & pixels;
    own.store(takes);
    return highest_bits(positive(own));
  }

  // Leaves out of visits `begin` to `end` the pixels that have no room for them, and the visits that no pixel is left
  // of. Returns where they end then.
  int64_t keep_takes(PixelRoom& room, int64_t begin, int64_t end) {
    int32_t* faces = own_faces_.data();
    uint32_t* takes = own_takes_.data();
    for (; begin < faces_.image().rules.knum; ++begin) room.take_all(takes[begin]);
    int64_t out = begin;
    for (int64_t i = begin; i < end; ++i) {
      const unsigned taking = room.take(takes[i]);
      faces[out] = faces[i];
      takes[out] = taking;
      out += taking != 0;
    }
    return out;
  }

  ReadyFaces<T> faces_;
  std::vector<int32_t> own_faces_;
  std::vector<uint32_t> own_takes_;
};

// The mask of one tile. One per thread, reused from tile to tile.
template <class T>
class TileMask {
 public:
  // Writes the mask of the open pixels that some face of the tile may reach; `mask` points to the tile's first pixel.
  // Where there are notes, they receive what TileGradient can start from. Not inlined: the address of what belongs to a
  // thread takes a call each time the compiler asks for it.
  __attribute__((noinline)) void write(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open,
                                       const FacesOfTile& faces, T* mask, int64_t stride, TileNotes* notes) {
    visits_.enter(image, area);
    visits_.list(faces);
    for (uint64_t cells = faces.all_cells; cells != 0; cells &= cells - 1) {
      const int number = __builtin_ctzll(cells);
      const unsigned pixels = open.of_cell(number);
      const Cell<T> cell = visits_.find(number, pixels);
      find_distances(cell, notes);
      write_pixels(mask_of(cell, image.rules), pixels, mask + row_of_cell(number) * stride + column_of_cell(number),
                   stride);
    }
    if (notes != nullptr) visits_.finish(notes);
  }

 private:
  using N = Sixteen<T>;

  static void write_pixels(N values, unsigned pixels, T* mask, int64_t stride) {
    T lanes[16];
    values.store(lanes);
    if (pixels == 0xffff) {
      for (int y = 0; y < kMaskCell; ++y) std::copy_n(lanes + y * kMaskCell, kMaskCell, mask + y * stride);
    } else {
      for (; pixels != 0; pixels &= pixels - 1) {
        const int i = __builtin_ctz(pixels);
        mask[i / kMaskCell * stride + i % kMaskCell] = lanes[i];
      }
    }
  }

  // All distances go before what is made of them: a processor looks ahead over few visits, and so what it sees does not
  // wait for each other.
  void find_distances(const Cell<T>& cell, TileNotes* notes) {
    N* distances2 = room_for(distances2_, cell.count);
    if (notes == nullptr) {
      for (int64_t i = 0; i < cell.count; ++i) distances2[i] = cell.nearest(i).distance2;
      return;
    }
    if (cell.count == 0) return;
    VisitBits* bits = notes->add(cell.number, cell.count, cell.faces);
    for (int64_t i = 0; i < cell.count; ++i) {
      const NearestEdge<N> edge = cell.nearest(i);
      bits[i] = cell.bits(i, edge);
      distances2[i] = edge.distance2;
    }
  }

  // 1 - prod (1 - p), the faces of a pixel in index order: the same bits as one at a time.
  N mask_of(const Cell<T>& cell, const SoftMaskRules<T>& rules) const {
    const N one = T(1);
    N product = one;
    for (int64_t i = 0; i < cell.count; ++i) {
      const N probability = keep(N::Flags::of(cell.takes[i]), mask_probability(rules, distances2_[size_t(i)]));
      product = less_product(product, product, probability);
    }
    return one - product;
  }

  CellVisits<T> visits_;
  std::vector<N> distances2_;
};

template <class T>
void mask_tile(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open, const FacesOfTile& faces,
               T* mask, int64_t stride, TileNotes* notes = nullptr) {
  static thread_local const std::unique_ptr<TileMask<T>> mask_of_thread(new TileMask<T>);
  if (faces.all_cells != 0) mask_of_thread->write(image, area, open, faces, mask, stride, notes);
}

// The gradient of one tile's mask with respect to the vertices' places in NDC. One per thread, reused from tile to
// tile.
template <class T>
class TileGradient {
 public:
  using N = Sixteen<T>;

  // The tile of an image, and its pixels that nothing covers; grad_mask points to the first pixel.
  void enter(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open, const T* grad_mask,
             int64_t stride) {
    image_ = &image;
    area_ = area;
    open_ = open;
    grad_mask_ = grad_mask;
    stride_ = stride;
    pulled_cells_ = find_pulled().cells();
  }

  // Adds to the vectors sums[i], (x, y), i < V. Not inlined, as TileMask::write.
  template <class Sums>
  __attribute__((noinline)) void add(const FacesOfTile& faces, const Sums& sums) {
    visits_.enter(*image_, area_);
    visits_.list(faces);
    clear_faces();
    for (uint64_t cells = faces.all_cells & pulled_cells_; cells != 0; cells &= cells - 1) {
      const int number = __builtin_ctzll(cells);
      const Cell<T> cell = visits_.find(number, open_.of_cell(number));
      add_cell(cell, find_bits(cell));
    }
    spread(sums);
  }
  // The same from what mask_tile has written down.
  template <class Sums>
  __attribute__((noinline)) void add(const KeptTile& tile, const Sums& sums) {
    visits_.enter(*image_, area_);
    visits_.list(tile);
    clear_faces();
    for (const KeptCell& cell : tile) {
      if ((pulled_cells_ >> cell.cell & 1) != 0) add_cell(visits_.recall(cell), cell.visits().bits);
    }
    spread(sums);
  }

 private:
  // Of a visit.
  struct Step {
    N probability;     // 0 where a pixel does not take the face
    N product_before;  // of (1 - p) over the faces before this one
    BoundaryPoint<N> point;
  };
  // The gradient with respect to (x, y) of the three vertices of a face, and two zeros.
  struct alignas(32) FaceSum {
    T of[8];
  };

  // Open pixels through which a gradient comes.
  OpenPixels find_pulled() const {
    OpenPixels pulled = pixels_where(area_, grad_mask_, stride_, [](Pack<T> gradient) DIBR_INLINE_LAMBDA {
      return (gradient == Pack<T>(T(0))).lanes() ^ (~0u >> (32 - Pack<T>::kLanes));
    });
    for (int y = 0; y < kTile; ++y) pulled.rows[y] &= open_.rows[y];
    return pulled;
  }

  const VisitBits* find_bits(const Cell<T>& cell) {
    VisitBits* bits = room_for(bits_, cell.count);
    for (int64_t i = 0; i < cell.count; ++i) bits[i] = cell.bits(i, cell.nearest(i));
    return bits;
  }

  void add_cell(const Cell<T>& cell, const VisitBits* bits) {
    if (cell.count == 0) return;
    take_steps(cell, bits, image_->rules);
    pull(cell, bits, image_->rules);
  }

  // All points go first, as distances do in TileMask.
  void take_steps(const Cell<T>& cell, const VisitBits* bits, const SoftMaskRules<T>& rules) {
    Step* steps = room_for(steps_, cell.count);
    for (int64_t i = 0; i < cell.count; ++i) {
      const uint16_t* edges = bits[i].edges;
      const typename N::Flags flags[3] = {N::Flags::of(edges[0]), N::Flags::of(edges[1]), N::Flags::of(edges[2])};
      steps[i].point = BoundaryPoint<N>(cell.face(i), flags, cell.px, cell.py);
    }
    N product = T(1);
    for (int64_t i = 0; i < cell.count; ++i) {
      Step& step = steps[i];
      step.probability = keep(N::Flags::of(bits[i].takes), mask_probability(rules, step.point.distance2));
      step.product_before = product;
      product = less_product(product, product, step.probability);
    }
  }

  // With m = 1 - prod_j (1 - p_j):
  //     dm / d(d_k^2) = -sigmainv * p_k * prod_{j != k} (1 - p_j)
  // and the product without k is that before it times that after it: no division, so p_k = 1 is safe.
  void pull(const Cell<T>& cell, const VisitBits* bits, const SoftMaskRules<T>& rules) {
    const N scale = N(T(2) * rules.sigmainv) * gradient_of(cell.number);
    const Step* steps = steps_.data();
    FaceSum* sums = face_sums_.data();
    N after = T(1);
    for (int64_t i = cell.count; i-- > 0;) {
      const Step& step = steps[i];
      const N pull = keep(N::Flags::of(bits[i].takes), scale * step.probability * (step.product_before * after));
      after = less_product(after, after, step.probability);
      const N pull_x = pull * step.point.dx, pull_y = pull * step.point.dy;
      N shares[3];
      step.point.shares(shares);
      add_totals({shares[0] * pull_x, shares[0] * pull_y, shares[1] * pull_x, shares[1] * pull_y, shares[2] * pull_x,
                  shares[2] * pull_y},
                 sums[cell.faces[i]].of);
    }
  }

  // 0 beyond the image.
  N gradient_of(int cell) const {
    const int64_t columns = std::min<int64_t>(area_.x1 - area_.x0 - column_of_cell(cell), kMaskCell);
    const int64_t rows = std::min<int64_t>(area_.y1 - area_.y0 - row_of_cell(cell), kMaskCell);
    T lanes[16] = {};
    const T* grad = grad_mask_ + row_of_cell(cell) * stride_ + column_of_cell(cell);
    for (int64_t y = 0; y < rows; ++y) std::copy_n(grad + y * stride_, columns, lanes + y * kMaskCell);
    return N::load(lanes);
  }

  void clear_faces() {
    const int64_t count = visits_.of_tile().count();
    std::fill_n(room_for(face_sums_, count), count, FaceSum{});
  }

  // From the tile's faces to the vertices.
  template <class Sums>
  void spread(const Sums& sums) const {
    const ReadyFaces<T>& faces = visits_.of_tile();
    for (int64_t i = 0; i < faces.ready(); ++i) {
      const int32_t* vertices = image_->face_indices + 3 * int64_t(faces.faces()[i]);
      const FaceSum& face = face_sums_[size_t(i)];
      for (int k = 0; k < 3; ++k) {
        T* sum = sums[vertices[k]];
        const T x = face.of[2 * k], y = face.of[2 * k + 1];
        sum[0] += x;
        sum[1] += y;
      }
    }
  }

  const MaskImage<T>* image_ = nullptr;
  TileArea area_ = {};
  OpenPixels open_;
  const T* grad_mask_ = nullptr;
  int64_t stride_ = 0;
  uint64_t pulled_cells_ = 0;

  CellVisits<T> visits_;
  std::vector<VisitBits> bits_;
  std::vector<Step> steps_;
  std::vector<FaceSum> face_sums_;  // of the tile's faces
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
