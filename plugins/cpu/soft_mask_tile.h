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
#include <memory>
#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/lanes.h"
#include "cpu/soft_mask_faces.h"
#include "cpu/soft_mask_kept.h"
#include "cpu/soft_mask_ready.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

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

// The open pixels of a cell, in fours: pixel i of four in the lanes from 4 * i on.
template <class T>
struct CellPixels {
  static constexpr int kMost = kMaskCell * kMaskCell, kFours = kMost / 4;

  int count = 0;
  uint16_t column[kMost + 1], row[kMost + 1];  // in the cell
  Sixteen<T> px[kFours], py[kFours];

  int fours() const { return (count + 3) / 4; }
};

// What one cell needs: its open pixels, its faces as far as those need them, and which of them meet. One per thread,
// reused from cell to cell.
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

  // Of a pixel's faces, only the first knum take part.
  void find(int cell, const OpenPixels& open) {
    cell_ = cell;
    next_ = listed_ = taken_ = 0;
    count_ = 0;
    list_pixels(open.of_cell(cell));
    open_pixels();
    make_room();
    places_ = own_places_.data();
    while (shut_ < pixels_.count && take_sixteen()) {
      if (found_.size() < count_ + 5 * kFours) found_.resize(2 * count_ + 5 * kFours);
      visit_pixels(taken_ - kAtOnce);
    }
    taken_ = std::min(taken_, listed_);
    visits_ = found_.data();
  }

  // Writes down what `find` has found; in the end, what it refers to.
  void keep(TileNotes* notes) const { notes->add({cell_, int32_t(taken_), int32_t(count_)}, visits_, places_); }
  void finish(TileNotes* notes) const { notes->finish(faces_.faces(), faces_.ready()); }
  // Is again as after `find`, with the same open pixels.
  void recall(const KeptCell& cell, const OpenPixels& open) {
    cell_ = cell.cell;
    taken_ = cell.faces;
    count_ = size_t(cell.visits);
    visits_ = cell.visit();
    places_ = cell.face();
    list_pixels(open.of_cell(cell_));
    if (fours_.size() < size_t(fours())) fours_.resize(2 * size_t(fours()));
    for (int64_t first = 0; first < taken_; first += 4) load_four(first, taken_);
  }

  size_t count() const { return count_; }
  const Visit& operator[](size_t i) const { return visits_[i]; }
  const CellPixels<T>& pixels() const { return pixels_; }
  // A pixel's column and row in the tile.
  int column(int pixel) const { return cell_ % 8 * kMaskCell + pixels_.column[pixel]; }
  int row(int pixel) const { return cell_ / 8 * kMaskCell + pixels_.row[pixel]; }
  int32_t fours() const { return int32_t((taken_ + 3) / 4); }

  // Four of its faces, again for every pixel.
  DIBR_HD MaskFace<Sixteen<T>> four(int32_t i) const { return fours_[size_t(i)].repeated(); }
  // Which of the tile's faces it has.
  int64_t faces() const { return taken_; }
  const int32_t* places() const { return places_; }
  const ReadyFaces<T>& of_tile() const { return faces_; }

 private:
  static constexpr int kFours = CellPixels<T>::kFours;
  static constexpr int kAtOnce = 16;
  static constexpr int32_t kPlenty = std::numeric_limits<int32_t>::max();

  // In squares of two by two, so that pixels that come together are close.
  void list_pixels(unsigned open) {
    static constexpr uint8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    CellPixels<T>& p = pixels_;
    p.count = 0;
    for (const uint8_t place : kOrder) {
      p.column[p.count] = place % 4;
      p.row[p.count] = place / 4;
      p.count += open >> place & 1;
    }
    const int fours = p.fours();
    for (int i = p.count; i < CellPixels<T>::kMost; ++i) p.column[i] = p.row[i] = 0;
    const T *px = faces_.px() + cell_ % 8 * kMaskCell, *py = faces_.py() + cell_ / 8 * kMaskCell;
    for (int i = 0; i < fours; ++i) {
      const uint16_t *x = p.column + 4 * i, *y = p.row + 4 * i;
      const T own_px[4] = {px[x[0]], px[x[1]], px[x[2]], px[x[3]]};
      const T own_py[4] = {py[y[0]], py[y[1]], py[y[2]], py[y[3]]};
      p.px[i] = Sixteen<T>::each(own_px);
      p.py[i] = Sixteen<T>::each(own_py);
    }
  }

  // All open pixels may take faces, those that only fill up a four may not.
  void open_pixels() {
    const int32_t most = int32_t(std::min<int64_t>(knum(), kPlenty));
    for (int i = 0; i < CellPixels<T>::kMost; ++i) {
      may_take_[i] = i < pixels_.count ? 0xffff : 0;
      missing_[i] = most;
    }
    counted_ = 0;
    shut_ = 0;
  }

  void make_room() {
    const size_t least = size_t(faces_.count() + 2 * kAtOnce);
    if (own_places_.size() >= least) return;
    own_places_.resize(2 * least);
    columns_.resize(2 * least);
    rows_.resize(2 * least);
  }

  // Goes on through the tile's faces until sixteen more are listed, or there are no more. False where none is left.
  bool take_sixteen() {
    if (listed_ < taken_ + kAtOnce) list_more();
    if (listed_ <= taken_) return false;
    if (fours_.size() < size_t(taken_ + kAtOnce) / 4) fours_.resize(size_t(taken_ + kAtOnce) / 2);
    const int64_t end = std::min(listed_, taken_ + kAtOnce);
    for (int64_t first = taken_; first < end; first += 4) load_four(first, end);
    taken_ += kAtOnce;
    return true;
  }
  void list_more() {
    const uint32_t in_columns = 15u << (cell_ % 8 * kMaskCell), in_rows = 15u << (cell_ / 8 * kMaskCell);
    const int64_t count = faces_.count(), enough = taken_ + kAtOnce;
    int64_t next = next_, listed = listed_;
    while (listed < enough && next < count) {
      faces_.template make_ready<true>(next + kAtOnce);
      const int64_t ready = std::min(faces_.ready(), count);
      const uint32_t *columns = faces_.columns(), *rows = faces_.rows();
      const int32_t* places = faces_.places();
      int32_t* own_places = own_places_.data();
      uint32_t *own_columns = columns_.data(), *own_rows = rows_.data();
      for (; listed < enough && next < ready; next += kAtOnce) {
        const unsigned reaching = both_have(columns + next, in_columns, rows + next, in_rows);
        append_set(places + next, reaching, own_places + listed);
        append_set(columns + next, reaching, own_columns + listed);
        append_set(rows + next, reaching, own_rows + listed);
        listed += count_bits(reaching);
      }
    }
    if (listed < enough) std::fill_n(columns_.begin() + listed, kAtOnce, 0u);
    next_ = next;
    listed_ = listed;
  }

  // The last face again and again where there are not four.
  void load_four(int64_t first, int64_t end) {
    const int32_t* own = places_ + first;
    if (first + 4 <= end) return faces_.load_four(own, &fours_[size_t(first) / 4]);
    int32_t some[4];
    for (int i = 0; i < 4; ++i) some[i] = own[std::min<int64_t>(i, end - first - 1)];
    faces_.load_four(some, &fours_[size_t(first) / 4]);
  }

  // Those of the sixteen faces from `first` on.
  void visit_pixels(int64_t first) {
    if (taken_by_.size() < size_t(first + kAtOnce)) taken_by_.resize(2 * size_t(first + kAtOnce));
    uint16_t* taken = taken_by_.data() + first;
    const int columns = cell_ % 8 * kMaskCell, rows = cell_ / 8 * kMaskCell;
    uint64_t in_column = 0, in_row = 0;
    for (int i = 0; i < kMaskCell; ++i) {
      in_column |= uint64_t(bit_of_sixteen(columns_.data() + first, columns + i)) << (16 * i);
      in_row |= uint64_t(bit_of_sixteen(rows_.data() + first, rows + i)) << (16 * i);
    }
    store_both(in_column, pixels_.column, in_row, pixels_.row, may_take_, taken);
    if (std::min(first + kAtOnce, listed_) > knum()) {
      for (; counted_ < first; counted_ += kAtOnce) count_taken(taken_by_.data() + counted_);
      count_taken(taken);
      counted_ = first + kAtOnce;
      cut(taken);
    }
    const int fours = pixels_.fours();
    Visit* visit = found_.data() + count_;
    for (int i = 0; i < fours; ++i) {
      uint64_t takes;
      std::memcpy(&takes, taken + 4 * i, sizeof takes);
      takes = transposed(takes);
      for (int j = 0; j < 4; ++j) {
        const unsigned own = unsigned(takes >> (16 * j)) & 0xffff;
        *visit = Visit(first / 4 + j, own, i);
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

  int64_t knum() const { return faces_.image().rules.knum; }
  void count_taken(const uint16_t* taken) {
    for (int i = 0; i < CellPixels<T>::kMost; ++i) missing_[i] -= count_bits(taken[i]);
  }
  // Gives back what pixels have taken beyond knum. One that has as many is shut: it takes none any more.
  void cut(uint16_t* taken) {
    for (int i = 0; i < pixels_.count; ++i) {
      if (missing_[i] > 0) continue;
      unsigned beyond = taken[i];
      for (int left = count_bits(beyond) + missing_[i]; left > 0; --left) beyond &= beyond - 1;
      taken[i] = uint16_t(taken[i] ^ beyond);
      may_take_[i] = 0;
      missing_[i] = kPlenty;
      ++shut_;
    }
  }

  ReadyFaces<T> faces_;

  int cell_ = 0;
  int64_t next_ = 0;                // of the tile's faces, the next one to look at
  int64_t listed_ = 0, taken_ = 0;  // faces of the cell, and those that its pixels were tested with
  std::vector<int32_t> own_places_;
  const int32_t* places_ = nullptr;
  std::vector<uint32_t> columns_, rows_;  // as those of ReadyFaces
  std::vector<FourFaces<T>> fours_;

  CellPixels<T> pixels_;
  int shut_ = 0;                    // pixels that have knum faces
  std::vector<uint16_t> taken_by_;  // of each sixteen faces, those that each pixel takes
  uint16_t may_take_[CellPixels<T>::kMost];
  int32_t missing_[CellPixels<T>::kMost];  // faces that a pixel may still take, of which `counted_` are counted
  int64_t counted_ = 0;
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
        nearest_boundary_point(visits.four(visit.faces()), pixels.px[visit.pixels()], pixels.py[visit.pixels()])
            .distance2;
    const N factor = N(T(1)) - keep(N::Flags::of(visit.takes()), mask_probability(rules, distance2));
    N product = products[visit.pixels()];
    product = product * spread_within_four<0>(factor);
    product = product * spread_within_four<1>(factor);
    product = product * spread_within_four<2>(factor);
    products[visit.pixels()] = product * spread_within_four<3>(factor);
  }
  T lanes[CellPixels<T>::kFours][16];
  for (int i = 0; i < pixels.fours(); ++i) (N(T(1)) - products[i]).store(lanes[i]);
  for (int i = 0; i < pixels.count; ++i) {
    mask[visits.row(i) * stride + visits.column(i)] = lanes[i / 4][i % 4 * 4];
  }
}

// Not inlined: the address of what belongs to a thread takes a call each time the compiler asks for it.
template <class T>
__attribute__((noinline)) void mask_cells(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open,
                                          const FacesOfTile& faces, T* mask, int64_t stride, TileNotes* notes,
                                          CellVisits<T>& visits) {
  visits.enter(image, area);
  visits.list(faces);
  for (uint64_t cells = faces.all_cells; cells != 0; cells &= cells - 1) {
    visits.find(__builtin_ctzll(cells), open);
    mask_cell(visits, image.rules, mask, stride);
    if (notes != nullptr) visits.keep(notes);
  }
  if (notes != nullptr) visits.finish(notes);
}

// Writes the mask of the open pixels that some face of the tile may reach; `mask` points to the tile's first pixel.
// Where there are notes, they receive what TileGradient can start from.
template <class T>
void mask_tile(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open, const FacesOfTile& faces,
               T* mask, int64_t stride, TileNotes* notes = nullptr) {
  static thread_local const std::unique_ptr<CellVisits<T>> visits_of_thread(new CellVisits<T>);
  if (faces.all_cells != 0) mask_cells(image, area, open, faces, mask, stride, notes, *visits_of_thread);
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
    visits_.enter(*image_, area_);
    visits_.list(faces);
    clear_faces();
    for (uint64_t cells = faces.all_cells & pulled_cells_; cells != 0; cells &= cells - 1) {
      visits_.find(__builtin_ctzll(cells), open_);
      add_cell();
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
      if ((pulled_cells_ >> cell.cell & 1) == 0) continue;
      visits_.recall(cell, open_);
      add_cell();
    }
    spread(sums);
  }

 private:
  static constexpr int kFours = CellPixels<T>::kFours;

  // Of a visit.
  struct Step {
    N probability;     // 0 where a pixel does not take a face
    N product_before;  // of (1 - p) over the faces of the lane before this one
    BoundaryPoint<N> point;
  };
  // The gradient with respect to (x, y) of the three vertices of a face, and two zeros.
  struct alignas(32) FaceSum {
    T of[8];
  };
  // The gradient with respect to (x, y) of the three vertices of four faces, lane by lane.
  struct alignas(64) Pull {
    T x[3][16], y[3][16];
  };

  // Open pixels through which a gradient comes.
  OpenPixels find_pulled() const {
    OpenPixels pulled = pixels_where(area_, grad_mask_, stride_, [](Pack<T> gradient) DIBR_INLINE_LAMBDA {
      return (gradient == Pack<T>(T(0))).lanes() ^ (~0u >> (32 - Pack<T>::kLanes));
    });
    for (int y = 0; y < kTile; ++y) pulled.rows[y] &= open_.rows[y];
    return pulled;
  }

  void add_cell() {
    if (visits_.count() == 0) return;
    take_steps(image_->rules);
    set_after(image_->rules);
    pull();
    for (int32_t four = 0; four < visits_.fours(); ++four) add_four(four);
  }

  void take_steps(const SoftMaskRules<T>& rules) {
    const CellPixels<T>& pixels = visits_.pixels();
    if (steps_.size() < visits_.count()) steps_.resize(2 * visits_.count());
    for (int i = 0; i < pixels.fours(); ++i) product_[i] = T(1);
    for (size_t i = 0; i < visits_.count(); ++i) {
      const Visit visit = visits_[i];
      Step& step = steps_[i];
      step.point =
          nearest_boundary_point(visits_.four(visit.faces()), pixels.px[visit.pixels()], pixels.py[visit.pixels()]);
      step.probability = keep(N::Flags::of(visit.takes()), mask_probability(rules, step.point.distance2));
      step.product_before = product_[visit.pixels()];
      product_[visit.pixels()] = step.product_before * (N(T(1)) - step.probability);
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
    for (int i = 0; i < pixels.count; ++i) grad[i] = grad_mask_[visits_.row(i) * stride_ + visits_.column(i)];
    for (int i = 0; i < pixels.fours(); ++i) scale_[i] = N(T(2) * rules.sigmainv) * N::each(grad + 4 * i);
  }

  void pull() {
    if (pulls_.size() < size_t(visits_.fours())) pulls_.resize(2 * size_t(visits_.fours()));
    std::memset(pulls_.data(), 0, size_t(visits_.fours()) * sizeof(Pull));
    for (size_t i = visits_.count(); i-- > 0;) {
      const Visit visit = visits_[i];
      const Step& step = steps_[i];
      const N after = product_[visit.pixels()], scale = scale_[visit.pixels()];
      const N pull = keep(N::Flags::of(visit.takes()), scale * step.probability * (step.product_before * after));
      product_[visit.pixels()] = after * (N(T(1)) - step.probability);
      const N pull_x = pull * step.point.dx, pull_y = pull * step.point.dy;
      N shares[3];
      step.point.shares(shares);
      Pull& target = pulls_[size_t(visit.faces())];
      for (int k = 0; k < 3; ++k) {
        (N::load(target.x[k]) + shares[k] * pull_x).store(target.x[k]);
        (N::load(target.y[k]) + shares[k] * pull_y).store(target.y[k]);
      }
    }
  }

  void clear_faces() {
    const size_t count = size_t(visits_.of_tile().count());
    if (face_sums_.size() < count) face_sums_.resize(2 * count);
    if (count > 0) std::memset(face_sums_.data(), 0, count * sizeof(FaceSum));
  }

  // Where a cell's last four are fewer, what their other lanes were not pulled by is added to the last.
  void add_four(int32_t four) {
    static constexpr T kNothing[16] = {};
    const Pull& pull = pulls_[size_t(four)];
    const int32_t* places = visits_.places() + 4 * four;
    const int64_t last = visits_.faces() - 1 - 4 * four;
    T* targets[4];
    for (int i = 0; i < 4; ++i) targets[i] = face_sums_[size_t(places[std::min<int64_t>(i, last)])].of;
    add_sums(pull.x[0], pull.y[0], pull.x[1], pull.y[1], targets);
    for (T*& target : targets) target += 4;
    add_sums(pull.x[2], pull.y[2], kNothing, kNothing, targets);
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
        sum[0] += face.of[2 * k];
        sum[1] += face.of[2 * k + 1];
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
  std::vector<Pull> pulls_;         // of every four faces of the cell
  std::vector<FaceSum> face_sums_;  // of the tile's faces
  N product_[kFours];               // of (1 - p) before a visit, then after it
  N scale_[kFours];                 // what a pixel's gradient is multiplied by
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
