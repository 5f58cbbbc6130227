// SoftMask of one tile, for whoever has the tile's coverage and the faces near it.
//
// The pixels that nothing covers are looked at cell by cell, four of them at a time: a visit is that of four faces to
// four pixels, a pair of them in each of sixteen lanes. So lanes stay in use both where a face reaches many pixels and
// where many faces reach a pixel. All of a cell's visits are found first; what follows is one loop without a branch,
// since a branch that is guessed wrong costs as much as half a visit.
// A mask is the product over a pixel's faces in index order, to the bit; the gradient's sums have an order that depends
// on the scene alone, since the lanes are the same on every instruction set.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/lanes.h"
#include "cpu/soft_mask_faces.h"
#include "cpu/soft_mask_kept.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One image of a SoftMask: what all of its tiles share.
template <class T>
struct MaskImage {
  const T* points;              // [V, 2] in NDC
  const int32_t* face_indices;  // [F, 3], in range
  int64_t height, width;
  SoftMaskRules<T> rules;
};

// Bit x of row y: the mask of that pixel of the tile is asked for.
struct OpenPixels {
  uint32_t rows[kTile] = {};

  // Bit 4 * y + x is that of pixel (x, y) of a cell.
  unsigned of_cell(int cell) const {
    const int column = cell % 8 * kMaskCell, row = cell / 8 * kMaskCell;
    unsigned bits = 0;
    for (int y = 0; y < kMaskCell; ++y) bits |= (rows[row + y] >> column & 15) << (4 * y);
    return bits;
  }

  // The cells that have such a pixel: bit 8 * row + column.
  uint64_t cells() const {
    uint64_t out = 0;
    for (int row = 0; row < kTile / kMaskCell; ++row) {
      const uint32_t* r = rows + row * kMaskCell;
      uint32_t bits = r[0] | r[1] | r[2] | r[3];
      bits |= bits >> 2;
      bits = (bits | bits >> 1) & 0x11111111u;  // of every four, the lowest
      bits = (bits | bits >> 3) & 0x03030303u;
      bits = (bits | bits >> 6) & 0x000f000fu;
      out |= uint64_t((bits | bits >> 12) & 0xff) << (8 * row);
    }
    return out;
  }
};

// The pixels of an area that nothing covers: `face_index` points to its first one.
template <class Index>
OpenPixels uncovered_pixels(const TileArea& area, const Index* face_index, int64_t stride) {
  OpenPixels open;
  const auto find = [&](int64_t columns) DIBR_INLINE_LAMBDA {
    for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
      uint32_t bits = 0;
      for (int64_t x = 0; x < columns; ++x) bits |= uint32_t(face_index[y * stride + x] < 0) << x;
      open.rows[y] = bits;
    }
  };
  // With a constant number of columns the compiler makes better vectors.
  const int64_t columns = area.x1 - area.x0;
  columns == kTile ? find(kTile) : find(columns);
  return open;
}

// Sixteen faces, each ready for its test against pixels.
template <class T>
struct alignas(64) SixteenFaces {
  static constexpr int kFaces = 16;

  T x[3][kFaces], y[3][kFaces];
  T edge_x[3][kFaces], edge_y[3][kFaces], inverse[3][kFaces];
  T x0[kFaces], y0[kFaces], x1[kFaces], y1[kFaces];
  int32_t index[kFaces];

  // The first `count` of them; no pixel lies in the boxes of others.
  DIBR_HD void load(const MaskImage<T>& image, const int32_t* faces, int count) {
    for (int i = 0; i < kFaces; ++i) index[i] = faces[std::min(i, count - 1)];
    for (int first = 0; first < count; first += kEight) load_eight(image, first);
    for (int i = count; i < kFaces; ++i) x0[i] = std::numeric_limits<T>::infinity();
  }

 private:
  DIBR_HD void load_eight(const MaskImage<T>& image, int first) {
    // Nothing here is an array of Eights: those stay in memory, and are copied four at a time with a stall each.
    const int32_t* faces = index + first;
    const Corner a(image, faces, 0), b(image, faces, 1), c(image, faces, 2);
    set_edge(0, first, a, b);
    set_edge(1, first, b, c);
    set_edge(2, first, c, a);
    Eight<T> least, greatest;
    set_mask_range(a.x, b.x, c.x, image.rules.boxlen, &least, &greatest);
    least.store(x0 + first);
    greatest.store(x1 + first);
    set_mask_range(a.y, b.y, c.y, image.rules.boxlen, &least, &greatest);
    least.store(y0 + first);
    greatest.store(y1 + first);
  }

  struct Corner {
    Eight<T> x, y;

    DIBR_HD Corner(const MaskImage<T>& image, const int32_t* faces, int k) {
      const auto point = [&](int lane) DIBR_INLINE_LAMBDA {
        return image.points + 2 * int64_t(image.face_indices[3 * int64_t(faces[lane]) + k]);
      };
      load_pairs(point, &x, &y);
    }
  };

  DIBR_HD void set_edge(int k, int first, const Corner& from, const Corner& to) {
    Eight<T> dx, dy, i;
    set_mask_edge<T>(from.x, from.y, to.x, to.y, &dx, &dy, &i);
    from.x.store(x[k] + first);
    from.y.store(y[k] + first);
    dx.store(edge_x[k] + first);
    dy.store(edge_y[k] + first);
    i.store(inverse[k] + first);
  }
};

// The open pixels of a cell, in fours: pixel i of four in the lanes from 4 * i on.
template <class T>
struct CellPixels {
  static constexpr int kMost = kMaskCell * kMaskCell, kFours = kMost / 4;

  int count = 0;
  uint8_t column[kMost + 4], row[kMost + 4];  // in the tile
  Sixteen<T> px[kFours], py[kFours];

  int fours() const { return (count + 3) / 4; }
};

// What one cell needs: its open pixels, its faces as far as those need them, and which of them meet. One per thread,
// reused from cell to cell.
template <class T>
class CellVisits {
 public:
  // Where the pixels of the tile are. `faces` is what `find` looks at.
  void enter(const MaskImage<T>& image, const TileArea& area, const FacesOfTile* faces) {
    image_ = &image;
    tile_ = faces;
    for (int i = 0; i < kTile; ++i) {
      px_[i] = pixel_x<T>(area.x0 + i, image.width);
      py_[i] = pixel_y<T>(area.y0 + i, image.height);
    }
  }

  // Of a pixel's faces, only the first knum take part.
  void find(int cell, const OpenPixels& open) {
    cell_ = cell;
    next_ = ready_ = waiting_ = 0;
    count_ = 0;
    list_pixels(open.of_cell(cell));
    shut_ = 0;
    while (shut_ < pixels_.count && make_ready()) {
      if (found_.size() < count_ + 5 * kFours) found_.resize(2 * count_ + 5 * kFours);
      visit_pixels(int32_t((ready_ - 1) / kAtOnce));
    }
    visits_ = found_.data();
  }

  // Writes down what `find` has found.
  void keep(TileNotes* notes) const {
    const KeptCell cell = {cell_, int32_t(ready_), int32_t(count_)};
    int32_t* faces = notes->add(cell, visits_);
    for (int64_t first = 0; first < ready_; first += kAtOnce) {
      std::copy_n(sixteens_[size_t(first / kAtOnce)].index, std::min<int64_t>(ready_ - first, kAtOnce), faces + first);
    }
  }
  // Is again as after `find`, with the same open pixels.
  void recall(const KeptCell& cell, const OpenPixels& open) {
    cell_ = cell.cell;
    ready_ = cell.faces;
    count_ = size_t(cell.visits);
    visits_ = cell.visit();
    list_pixels(open.of_cell(cell_));
    const size_t sixteens = size_t(ready_ + kAtOnce - 1) / kAtOnce;
    if (sixteens_.size() < sixteens) sixteens_.resize(sixteens);
    for (int64_t first = 0; first < ready_; first += kAtOnce) {
      const int count = int(std::min<int64_t>(ready_ - first, kAtOnce));
      sixteens_[size_t(first / kAtOnce)].load(*image_, cell.face() + first, count);
    }
  }

  size_t count() const { return count_; }
  const Visit& operator[](size_t i) const { return visits_[i]; }
  const CellPixels<T>& pixels() const { return pixels_; }
  int32_t fours() const { return int32_t((ready_ + 3) / 4); }

  // Four of its faces, again for every pixel.
  DIBR_HD MaskFace<Sixteen<T>> four(int32_t i) const {
    const SixteenFaces<T>& faces = sixteens_[size_t(i / 4)];
    const int first = i % 4 * 4;
    MaskFace<Sixteen<T>> out;
    for (int k = 0; k < 3; ++k) {
      out.x[k] = Sixteen<T>::repeat(faces.x[k] + first);
      out.y[k] = Sixteen<T>::repeat(faces.y[k] + first);
      out.edge_x[k] = Sixteen<T>::repeat(faces.edge_x[k] + first);
      out.edge_y[k] = Sixteen<T>::repeat(faces.edge_y[k] + first);
      out.inverse[k] = Sixteen<T>::repeat(faces.inverse[k] + first);
    }
    return out;
  }
  int32_t index(int32_t four, int lane) const { return sixteens_[size_t(four / 4)].index[four % 4 * 4 + lane]; }

 private:
  static constexpr int kFours = CellPixels<T>::kFours;
  static constexpr int kAtOnce = SixteenFaces<T>::kFaces;
  static constexpr int32_t kPlenty = std::numeric_limits<int32_t>::max();

  // In squares of two by two, so that pixels that come together are close.
  void list_pixels(unsigned open) {
    static constexpr uint8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    CellPixels<T>& p = pixels_;
    p.count = 0;
    for (const uint8_t place : kOrder) {
      p.column[p.count] = uint8_t(cell_ % 8 * kMaskCell + place % 4);
      p.row[p.count] = uint8_t(cell_ / 8 * kMaskCell + place / 4);
      p.count += open >> place & 1;
    }
    for (int i = p.count; i < 4 * p.fours(); ++i) p.column[i] = p.row[i] = 0;
    const int32_t most = int32_t(std::min<int64_t>(image_->rules.knum, kPlenty));
    for (int i = 0; i < 4 * p.fours(); ++i) {
      const T px = px_[p.column[i]];
      own_px_[i] = px;
      own_py_[i] = py_[p.row[i]];
      tested_px_[i] = i < p.count ? px : std::numeric_limits<T>::quiet_NaN();
      missing_[i] = most;
    }
    for (int i = 0; i < p.fours(); ++i) {
      p.px[i] = Sixteen<T>::each(own_px_ + 4 * i);
      p.py[i] = Sixteen<T>::each(own_py_ + 4 * i);
    }
  }

  void visit_pixels(int32_t sixteen) {
    const SixteenFaces<T>& faces = sixteens_[size_t(sixteen)];
    const Sixteen<T> x0 = Sixteen<T>::load(faces.x0), x1 = Sixteen<T>::load(faces.x1);
    const Sixteen<T> y0 = Sixteen<T>::load(faces.y0), y1 = Sixteen<T>::load(faces.y1);
    const int fours = pixels_.fours();
    Visit* visit = found_.data() + count_;
    for (int i = 0; i < fours; ++i) {
      unsigned taken[4];
      int32_t least = kPlenty;
      for (int k = 0; k < 4; ++k) {
        const Sixteen<T> px = tested_px_[4 * i + k], py = own_py_[4 * i + k];
        taken[k] = ((x0 <= px) & (px < x1) & (y0 <= py) & (py < y1)).bits();
        least = std::min(least, missing_[4 * i + k] -= count_bits(taken[k]));
      }
      if (least <= 0) cut(4 * i, taken);
      const uint64_t takes =
          transposed(taken[0] | uint64_t(taken[1]) << 16 | uint64_t(taken[2]) << 32 | uint64_t(taken[3]) << 48);
      for (int j = 0; j < 4; ++j) {
        const uint16_t own = uint16_t(takes >> (16 * j));
        *visit = {4 * sixteen + j, own, uint8_t(i)};
        visit += own != 0;
      }
    }
    count_ = size_t(visit - found_.data());
  }

  // Four times four groups of four bits, [pixel][faces], as [faces][pixel].
  static uint64_t transposed(uint64_t bits) {
    uint64_t swap = (bits ^ bits >> 12) & 0x0000f0f00000f0f0u;
    bits ^= swap | swap << 12;
    swap = (bits ^ bits >> 24) & 0x00000000ff00ff00u;
    return bits ^ (swap | swap << 24);
  }

  // Gives back what four pixels have taken beyond knum. One that has as many is shut: no box contains it any more.
  void cut(int first, unsigned* taken) {
    for (int k = 0; k < 4; ++k) {
      int32_t& missing = missing_[first + k];
      if (missing > 0) continue;
      unsigned beyond = taken[k];
      for (int left = count_bits(beyond) + missing; left > 0; --left) beyond &= beyond - 1;
      taken[k] ^= beyond;
      tested_px_[first + k] = std::numeric_limits<T>::quiet_NaN();
      missing = kPlenty;
      shut_ += first + k < pixels_.count;
    }
  }

  bool make_ready() {
    find_waiting();
    if (waiting_ == 0) return false;
    const int count = std::min(waiting_, kAtOnce);
    const size_t sixteen = size_t(ready_ / kAtOnce);
    if (sixteen == sixteens_.size()) sixteens_.emplace_back();
    sixteens_[sixteen].load(*image_, waiting_faces_, count);
    ready_ += count;
    waiting_ -= count;
    std::copy_n(waiting_faces_ + count, kEight, waiting_faces_);
    return true;
  }

  // Goes on through the tile's faces until sixteen wait, or there are no more.
  void find_waiting() {
    const int64_t count = tile_->count;
    const int32_t* faces = tile_->faces.data();
    const uint64_t* cells = tile_->cells.data();
    int waiting = waiting_;
    int64_t next = next_;
    for (; waiting < kAtOnce && next < count; next += kEight) {
      waiting += append_set(faces + next, bit_of_eight(cells + next, cell_), waiting_faces_ + waiting);
    }
    waiting_ = waiting;
    next_ = next;
  }

  const MaskImage<T>* image_ = nullptr;
  const FacesOfTile* tile_ = nullptr;
  T px_[kTile], py_[kTile];

  int cell_ = 0;
  int64_t next_ = 0;   // of the tile's faces, the next one to look at
  int64_t ready_ = 0;  // faces of the cell; a multiple of sixteen until the last one is
  std::vector<SixteenFaces<T>> sixteens_;
  int waiting_ = 0;
  int32_t waiting_faces_[kAtOnce + 2 * kEight];

  CellPixels<T> pixels_;
  int shut_ = 0;  // pixels that have knum faces
  T own_px_[4 * kFours], own_py_[4 * kFours];
  T tested_px_[4 * kFours];      // NaN where a pixel is shut, or none
  int32_t missing_[4 * kFours];  // faces that a pixel may still take
  size_t count_ = 0;
  const Visit* visits_ = nullptr;
  std::vector<Visit> found_;
};

// 1 - prod (1 - p), the faces of a pixel in index order: the same bits as one at a time.
template <class T>
void mask_cell(const CellVisits<T>& visits, const SoftMaskRules<T>& rules, T* mask, int64_t stride) {
  using N = Sixteen<T>;
  const CellPixels<T>& pixels = visits.pixels();
  N products[CellPixels<T>::kFours];
  for (int i = 0; i < pixels.fours(); ++i) products[i] = T(1);
  for (size_t i = 0; i < visits.count(); ++i) {
    const Visit visit = visits[i];
    const N distance2 =
        nearest_boundary_point(visits.four(visit.faces), pixels.px[visit.pixels], pixels.py[visit.pixels]).distance2;
    const N factor = N(T(1)) - keep(N::Flags::of(visit.takes), mask_probability(rules, distance2));
    N product = products[visit.pixels];
    product = product * spread_within_four<0>(factor);
    product = product * spread_within_four<1>(factor);
    product = product * spread_within_four<2>(factor);
    products[visit.pixels] = product * spread_within_four<3>(factor);
  }
  T lanes[CellPixels<T>::kFours][16];
  for (int i = 0; i < pixels.fours(); ++i) (N(T(1)) - products[i]).store(lanes[i]);
  for (int i = 0; i < pixels.count; ++i) {
    mask[pixels.row[i] * stride + pixels.column[i]] = lanes[i / 4][i % 4 * 4];
  }
}

// Not inlined: the address of what belongs to a thread takes a call each time the compiler asks for it.
template <class T>
__attribute__((noinline)) void mask_cells(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open,
                                          const FacesOfTile& faces, T* mask, int64_t stride, TileNotes* notes,
                                          CellVisits<T>& visits) {
  visits.enter(image, area, &faces);
  for (uint64_t cells = faces.all_cells; cells != 0; cells &= cells - 1) {
    visits.find(__builtin_ctzll(cells), open);
    mask_cell(visits, image.rules, mask, stride);
    if (notes != nullptr) visits.keep(notes);
  }
}

// Writes the mask of the open pixels that some face of the tile may reach; `mask` points to the tile's first pixel.
// Where there are notes, they receive what TileGradient can start from.
template <class T>
void mask_tile(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open, const FacesOfTile& faces,
               T* mask, int64_t stride, TileNotes* notes = nullptr) {
  static thread_local CellVisits<T> visits_of_thread;
  if (faces.all_cells != 0) mask_cells(image, area, open, faces, mask, stride, notes, visits_of_thread);
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

  // Adds to the vectors sums[i], (x, y), i < V. Not inlined, as mask_cells.
  template <class Sums>
  __attribute__((noinline)) void add(const FacesOfTile& faces, const Sums& sums) {
    visits_.enter(*image_, area_, &faces);
    for (uint64_t cells = faces.all_cells & pulled_cells_; cells != 0; cells &= cells - 1) {
      visits_.find(__builtin_ctzll(cells), open_);
      add_cell(sums);
    }
  }
  // The same from what mask_tile has written down.
  template <class Sums>
  __attribute__((noinline)) void add(const KeptTile& tile, const Sums& sums) {
    visits_.enter(*image_, area_, nullptr);
    for (const KeptCell& cell : tile) {
      if ((pulled_cells_ >> cell.cell & 1) == 0) continue;
      visits_.recall(cell, open_);
      add_cell(sums);
    }
  }

 private:
  static constexpr int kFours = CellPixels<T>::kFours;

  // Of a visit.
  struct Step {
    N probability;     // 0 where a pixel does not take a face
    N product_before;  // of (1 - p) over the faces of the lane before this one
    BoundaryPoint<N> point;
  };
  // The gradient with respect to (x, y) of the three vertices of four faces, lane by lane.
  struct alignas(64) Pull {
    T x[3][16], y[3][16];
  };

  // Open pixels through which a gradient comes.
  OpenPixels find_pulled() const {
    OpenPixels pulled;
    const auto find = [&](int64_t columns) DIBR_INLINE_LAMBDA {
      for (int64_t y = 0; y < area_.y1 - area_.y0; ++y) {
        uint32_t bits = 0;
        for (int64_t x = 0; x < columns; ++x) bits |= uint32_t(grad_mask_[y * stride_ + x] != T(0)) << x;
        pulled.rows[y] = bits & open_.rows[y];
      }
    };
    const int64_t columns = area_.x1 - area_.x0;
    columns == kTile ? find(kTile) : find(columns);
    return pulled;
  }

  template <class Sums>
  void add_cell(const Sums& sums) {
    if (visits_.count() == 0) return;
    take_steps(image_->rules);
    set_after(image_->rules);
    pull();
    for (int32_t four = 0; four < visits_.fours(); ++four) spread(four, sums);
  }

  void take_steps(const SoftMaskRules<T>& rules) {
    const CellPixels<T>& pixels = visits_.pixels();
    if (steps_.size() < visits_.count()) steps_.resize(2 * visits_.count());
    for (int i = 0; i < pixels.fours(); ++i) product_[i] = T(1);
    for (size_t i = 0; i < visits_.count(); ++i) {
      const Visit visit = visits_[i];
      Step& step = steps_[i];
      step.point = nearest_boundary_point(visits_.four(visit.faces), pixels.px[visit.pixels], pixels.py[visit.pixels]);
      step.probability = keep(N::Flags::of(visit.takes), mask_probability(rules, step.point.distance2));
      step.product_before = product_[visit.pixels];
      product_[visit.pixels] = step.product_before * (N(T(1)) - step.probability);
    }
  }

  // With m = 1 - prod_j (1 - p_j):
  //     dm / d(d_k^2) = -sigmainv * p_k * prod_{j != k} (1 - p_j)
  // and the product without k is that before it times that after it in its lane, times those of the pixel's other three
  // lanes: no division, so p_k = 1 is safe. These three are what the product after all faces begins with.
  void set_after(const SoftMaskRules<T>& rules) {
    const CellPixels<T>& pixels = visits_.pixels();
    for (int i = 0; i < pixels.fours(); ++i) {
      const N neighbour = swapped<1>(product_[i]);
      product_[i] = neighbour * swapped<2>(product_[i] * neighbour);
    }
    T grad[CellPixels<T>::kMost] = {};
    for (int i = 0; i < pixels.count; ++i) grad[i] = grad_mask_[pixels.row[i] * stride_ + pixels.column[i]];
    for (int i = 0; i < pixels.fours(); ++i) scale_[i] = N(T(2) * rules.sigmainv) * N::each(grad + 4 * i);
  }

  void pull() {
    if (pulls_.size() < size_t(visits_.fours())) pulls_.resize(2 * size_t(visits_.fours()));
    std::memset(pulls_.data(), 0, size_t(visits_.fours()) * sizeof(Pull));
    for (size_t i = visits_.count(); i-- > 0;) {
      const Visit visit = visits_[i];
      const Step& step = steps_[i];
      const N after = product_[visit.pixels], scale = scale_[visit.pixels];
      const N pull = keep(N::Flags::of(visit.takes), scale * step.probability * (step.product_before * after));
      product_[visit.pixels] = after * (N(T(1)) - step.probability);
      const N pull_x = pull * step.point.dx, pull_y = pull * step.point.dy;
      N shares[3];
      step.point.shares(shares);
      Pull& target = pulls_[size_t(visit.faces)];
      for (int k = 0; k < 3; ++k) {
        (N::load(target.x[k]) + shares[k] * pull_x).store(target.x[k]);
        (N::load(target.y[k]) + shares[k] * pull_y).store(target.y[k]);
      }
    }
  }

  template <class Sums>
  void spread(int32_t four, const Sums& sums) const {
    const Pull& pull = pulls_[size_t(four)];
    T points[3][4][2];
    for (int k = 0; k < 3; ++k) store_sums(pull.x[k], pull.y[k], points[k][0]);
    for (int lane = 0; lane < 4; ++lane) {
      const int32_t* vertices = image_->face_indices + 3 * int64_t(visits_.index(four, lane));
      for (int k = 0; k < 3; ++k) {
        T* sum = sums[vertices[k]];
        sum[0] += points[k][lane][0];
        sum[1] += points[k][lane][1];
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
  std::vector<Step> steps_;
  std::vector<Pull> pulls_;  // of every four faces of the cell
  N product_[kFours];        // of (1 - p) before a visit, then after it
  N scale_[kFours];          // what a pixel's gradient is multiplied by
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
