// SoftMask of one tile, for whoever has the tile's coverage and the faces near it.
//
// The pixels that nothing covers are taken eight at a time, neighbours together, and face after face, in index order,
// is tested against all eight. A pixel's own operations and their order are the same whichever pixels go with it, and
// eight they are on every instruction set.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "core/soft_mask.h"
#include "cpu/bins.h"
#include "cpu/eight.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

#define DIBR_INLINE_LAMBDA __attribute__((always_inline))

// One image of a SoftMask: what all of its tiles share.
template <class T>
struct MaskImage {
  const T* positions;           // [V, 4] clip space
  const int32_t* face_indices;  // [F, 3], in range
  int64_t height, width;
  SoftMaskRules<T> rules;
};

// The pixels of one tile: pointers to its first pixel, and the elements from one row to the next.
template <class T, class Index>
struct MaskPixels {
  TileArea area;            // at most kTile wide and high
  const Index* face_index;  // < 0 where nothing covers the pixel
  int64_t face_index_stride;
  T* mask;
  int64_t mask_stride;
};

// Bit x of row y: the mask of that pixel of the tile is asked for.
struct OpenPixels {
  uint32_t rows[kTile] = {};
  static_assert(kTile == 32);

  bool any() const {
    uint32_t all = 0;
    for (const uint32_t row : rows) all |= row;
    return all != 0;
  }

  // Leaves the pixels of those cells, of four by four, whose bits are set: bit 8 * row + column.
  void keep(uint64_t cells) {
    for (int y = 0; y < kTile; ++y) {
      uint32_t bits = uint32_t(cells >> (8 * (y / 4)) & 0xff);
      bits = (bits | bits << 12) & 0x000f000f;
      bits = (bits | bits << 6) & 0x03030303;
      bits = (bits | bits << 3) & 0x11111111;
      rows[y] &= bits * 15;
    }
  }
};

// Eight faces, each ready for its test against pixels.
template <class T>
struct FacePacket {
  T x[3][kEight], y[3][kEight];
  T edge_x[3][kEight], edge_y[3][kEight], inverse[3][kEight];
  T x0[kEight], y0[kEight], x1[kEight], y1[kEight];

  void store(const MaskFace<Eight<T>>& faces) {
    for (int k = 0; k < 3; ++k) {
      faces.x[k].store(x[k]);
      faces.y[k].store(y[k]);
      faces.edge_x[k].store(edge_x[k]);
      faces.edge_y[k].store(edge_y[k]);
      faces.inverse[k].store(inverse[k]);
    }
    faces.x0.store(x0);
    faces.y0.store(y0);
    faces.x1.store(x1);
    faces.y1.store(y1);
  }

  DIBR_HD MaskFace<T> face(int lane) const {
    MaskFace<T> out;
    for (int k = 0; k < 3; ++k) {
      out.x[k] = x[k][lane];
      out.y[k] = y[k][lane];
      out.edge_x[k] = edge_x[k][lane];
      out.edge_y[k] = edge_y[k][lane];
      out.inverse[k] = inverse[k][lane];
    }
    out.x0 = x0[lane];
    out.y0 = y0[lane];
    out.x1 = x1[lane];
    out.y1 = y1[lane];
    return out;
  }
};

// A rectangle of pixel centres in NDC, both ends inclusive.
template <class T>
struct CentreBox {
  T x0, y0, x1, y1;

  // Bit i: the box of face i may contain one of the centres.
  DIBR_HD unsigned reached_by(const FacePacket<T>& faces) const {
    using Lanes = Eight<T>;
    return ((Lanes::load(faces.x0) <= Lanes(x1)) & (Lanes(x0) < Lanes::load(faces.x1)) &
            (Lanes::load(faces.y0) <= Lanes(y1)) & (Lanes(y0) < Lanes::load(faces.y1)))
        .bits();
  }
};

// Eight open pixels of a tile, or fewer: the lanes beyond `count` repeat the first one.
template <class T>
struct PixelGroup {
  int count;
  uint8_t column[kEight], row[kEight];  // in the tile
  Eight<T> px, py;
  CentreBox<T> box;

  EightFlags<T> lanes() const { return Eight<T>::load(kNumbers) < Eight<T>(T(count)); }

 private:
  static constexpr T kNumbers[kEight] = {0, 1, 2, 3, 4, 5, 6, 7};
};

// The faces of one tile, and the search for those that take part in its pixels. One per thread, reused from tile to
// tile.
template <class T>
class TileFaces {
 public:
  using Lanes = Eight<T>;

  // faces [count] must stay where they are until the next load.
  void load(const MaskImage<T>& image, const TileArea& area, const int32_t* faces, int64_t count) {
    faces_ = faces;
    packets_.resize(size_t((count + kEight - 1) / kEight));
    for (size_t i = 0; i < packets_.size(); ++i) {
      const int64_t first = int64_t(i) * kEight;
      load_packet(image, faces + first, int(std::min<int64_t>(count - first, kEight)), &packets_[i]);
    }
    for (int i = 0; i < kTile; ++i) {
      px_[i] = pixel_x<T>(area.x0 + i, image.width);
      py_[i] = pixel_y<T>(area.y0 + i, image.height);
    }
  }

  int64_t slots() const { return int64_t(packets_.size()) * kEight; }
  MaskFace<T> face(int32_t slot) const { return packets_[size_t(slot / kEight)].face(slot % kEight); }
  int32_t index(int32_t slot) const { return faces_[slot]; }

  // Calls use(group) for open pixels, eight at a time, leaving out some of those that no face's box contains. Within,
  // for_each_face finds the faces for the group.
  template <class Use>
  void for_each_group(const OpenPixels& open, const Use& use) {
    for (int y = 0; y < kTile; y += kBlock) {
      for (int x = 0; x < kTile; x += kBlock) {
        if (!find_reaching(open, x, y)) continue;
        const int count = list_pixels(open, x, y);
        for (int first = 0; first < count; first += kEight) use(group(first, std::min(count - first, kEight)));
      }
    }
  }

  // Calls visit(slot, packet, lane), in index order, for the faces whose boxes may contain one of the group's centres.
  // After every packet it asks go_on() whether there is need for more: not after every face, since what that depends on
  // takes long to compute, and a wrong guess of it would be as long in the coming.
  template <class Visit, class GoOn>
  DIBR_HD void for_each_face(const PixelGroup<T>& group, const Visit& visit, const GoOn& go_on) const {
    for (const int32_t i : reaching_) {
      const FacePacket<T>& packet = packets_[size_t(i)];
      unsigned bits = group.box.reached_by(packet);
      if (bits == 0) continue;
      for (; bits != 0; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        visit(i * kEight + lane, packet, lane);
      }
      if (!go_on()) return;
    }
  }

 private:
  // Faces are looked for in two steps: for a block of pixels, and then for each group in it.
  static constexpr int kBlock = 16;

  static void load_packet(const MaskImage<T>& image, const int32_t* faces, int count, FacePacket<T>* packet) {
    T gathered[3][4][kEight];
    for (int lane = 0; lane < kEight; ++lane) {
      const int32_t* vertices = image.face_indices + 3 * int64_t(faces[std::min(lane, count - 1)]);
      for (int k = 0; k < 3; ++k) {
        const T* p = image.positions + 4 * int64_t(vertices[k]);
        for (int c = 0; c < 4; ++c) gathered[k][c][lane] = p[c];
      }
    }
    Triangle<Lanes> t;
    for (int k = 0; k < 3; ++k) {
      t.x[k] = Lanes::load(gathered[k][0]);
      t.y[k] = Lanes::load(gathered[k][1]);
      t.z[k] = Lanes::load(gathered[k][2]);
      t.w[k] = Lanes::load(gathered[k][3]);
    }
    MaskFace<Lanes> projected;
    const EightFlags<T> takes_part = project_mask_face(t, image.rules.boxlen, &projected);
    // A box that nothing lies in.
    projected.x0 = select(takes_part, projected.x0, Lanes(std::numeric_limits<T>::infinity()));
    packet->store(projected);
    for (int lane = count; lane < kEight; ++lane) packet->x0[lane] = std::numeric_limits<T>::infinity();
  }

  CentreBox<T> centres(int column0, int row0, int column1, int row1) const {
    return {px_[column0], py_[row1], px_[column1], py_[row0]};
  }

  // Collects the packets with faces that reach open pixels of the block at (x, y).
  bool find_reaching(const OpenPixels& open, int x, int y) {
    reaching_.clear();
    uint32_t columns = 0;
    int row0 = kTile, row1 = -1;
    for (int row = y; row < y + kBlock; ++row) {
      const uint32_t bits = open.rows[row] >> x & kBlockBits;
      columns |= bits;
      if (bits == 0) continue;
      row0 = std::min(row0, row);
      row1 = row;
    }
    if (columns == 0) return false;
    const CentreBox<T> box = centres(x + __builtin_ctz(columns), row0, x + 31 - __builtin_clz(columns), row1);
    for (size_t i = 0; i < packets_.size(); ++i) {
      if (box.reached_by(packets_[i]) != 0) reaching_.push_back(int32_t(i));
    }
    return !reaching_.empty();
  }

  // Lists the open pixels of the block at (x, y), in squares of four by four along a curve that keeps neighbours
  // together.
  int list_pixels(const OpenPixels& open, int x, int y) {
    int count = 0;
    for (int square = 0; square < 16; ++square) {
      const int column = x + 4 * ((square & 1) | (square >> 1 & 2));
      const int row = y + 4 * ((square >> 1 & 1) | (square >> 2 & 2));
      uint32_t bits = 0;
      for (int i = 0; i < 4; ++i) bits |= (open.rows[row + i] >> column & 15) << (4 * i);
      for (; bits != 0; bits &= bits - 1) {
        const int i = __builtin_ctz(bits);
        column_[count] = uint8_t(column + i % 4);
        row_[count++] = uint8_t(row + i / 4);
      }
    }
    return count;
  }

  PixelGroup<T> group(int first, int count) const {
    PixelGroup<T> out;
    out.count = count;
    T px[kEight], py[kEight];
    int column0 = kTile, row0 = kTile, column1 = 0, row1 = 0;
    for (int lane = 0; lane < kEight; ++lane) {
      const int i = lane < count ? first + lane : first;
      const int column = column_[i], row = row_[i];
      out.column[lane] = column_[i];
      out.row[lane] = row_[i];
      px[lane] = px_[column];
      py[lane] = py_[row];
      column0 = std::min(column0, column);
      column1 = std::max(column1, column);
      row0 = std::min(row0, row);
      row1 = std::max(row1, row);
    }
    out.px = Lanes::load(px);
    out.py = Lanes::load(py);
    out.box = centres(column0, row0, column1, row1);
    return out;
  }

  static constexpr uint32_t kBlockBits = (uint32_t(1) << kBlock) - 1;

  const int32_t* faces_ = nullptr;
  std::vector<FacePacket<T>> packets_;
  std::vector<int32_t> reaching_;  // packets, for the current block
  uint8_t column_[kBlock * kBlock], row_[kBlock * kBlock];
  T px_[kTile], py_[kTile];
};

// Which pixels of a group may still take a face: those with fewer than knum, for as long as `keep_open` holds too.
template <class T>
class OpenLanes {
 public:
  OpenLanes(EightFlags<T> lanes, int64_t knum) : lanes_(lanes) {
    const int32_t limit = int32_t(std::min<int64_t>(knum, std::numeric_limits<int32_t>::max()));
    for (auto& part : missing_) part = typename PartOf<T>::Flags{} - limit;
  }

  // Those whose centre the face's box contains; they are counted.
  DIBR_HD EightFlags<T> take(const FacePacket<T>& face, int lane, Eight<T> px, Eight<T> py) {
    using Lanes = Eight<T>;
    const EightFlags<T> takes = lanes_ & (Lanes(face.x0[lane]) <= px) & (px < Lanes(face.x1[lane])) &
                                (Lanes(face.y0[lane]) <= py) & (py < Lanes(face.y1[lane]));
    for (int i = 0; i < kParts<T>; ++i) {
      missing_[i] -= takes.v[i];
      lanes_.v[i] &= missing_[i] >> (8 * sizeof(T) - 1);
    }
    return takes;
  }
  DIBR_HD void keep_open(EightFlags<T> lanes) { lanes_ = lanes_ & lanes; }
  DIBR_HD bool any() const { return lanes_.any(); }

 private:
  EightFlags<T> lanes_;
  typename PartOf<T>::Flags missing_[kParts<T>];  // minus the faces that a pixel may still take
};

// 1 - prod (1 - p) for the pixels of a group. Once the product is so small that 1 minus it is 1, nothing changes.
template <class T>
Eight<T> group_mask(const TileFaces<T>& faces, const PixelGroup<T>& group, const SoftMaskRules<T>& rules) {
  const Eight<T> least = std::numeric_limits<T>::epsilon() / 4;
  OpenLanes<T> open(group.lanes(), rules.knum);
  Eight<T> product = T(1);
  const Eight<T> px = group.px, py = group.py;
  const auto visit = [&](int32_t, const FacePacket<T>& packet, int lane) DIBR_INLINE_LAMBDA {
    const EightFlags<T> takes = open.take(packet, lane, px, py);
    if (!takes.any()) return;
    const Eight<T> distance2 = nearest_boundary_point(packet.face(lane), px, py).distance2;
    const Eight<T> factor = Eight<T>(T(1)) - keep(takes, mask_probability(rules, distance2));
    product = product * factor;
  };
  faces.for_each_face(group, visit, [&]() DIBR_INLINE_LAMBDA {
    open.keep_open(least < product);
    return open.any();
  });
  return Eight<T>(T(1)) - product;
}

// Writes the mask of every pixel of the tile, 1 where it is covered. faces [count] are indices of faces, ascending:
// all whose enlarged boxes (mask_box) reach an uncovered pixel of the tile must be among them, others may be. cells may
// say which pixels they reach (OpenPixels::keep).
template <class T, class Index>
void mask_tile(const MaskImage<T>& image, const MaskPixels<T, Index>& pixels, const int32_t* faces, int64_t count,
               uint64_t cells = ~uint64_t(0)) {
  static thread_local TileFaces<T> tile_of_thread;
  TileFaces<T>& tile = tile_of_thread;
  const TileArea& area = pixels.area;
  OpenPixels open;
  for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
    const Index* face_index = pixels.face_index + y * pixels.face_index_stride;
    T* mask = pixels.mask + y * pixels.mask_stride;
    uint32_t bits = 0;
    for (int64_t x = 0; x < area.x1 - area.x0; ++x) {
      mask[x] = face_index[x] < 0 ? T(0) : T(1);
      bits |= uint32_t(face_index[x] < 0) << x;
    }
    open.rows[y] = bits;
  }
  open.keep(cells);
  if (count == 0 || !open.any()) return;
  tile.load(image, area, faces, count);
  tile.for_each_group(open, [&](const PixelGroup<T>& group) {
    T lanes[kEight];
    group_mask(tile, group, image.rules).store(lanes);
    for (int lane = 0; lane < group.count; ++lane) {
      pixels.mask[group.row[lane] * pixels.mask_stride + group.column[lane]] = lanes[lane];
    }
  });
}

// The gradient of one tile's mask with respect to the vertices. One per thread, reused from tile to tile.
template <class T>
class TileGradient {
 public:
  using Lanes = Eight<T>;

  // Adds to the vectors sums[i], of four T, i < V. grad_mask points to the tile's first pixel.
  template <class Sums>
  void add(const MaskImage<T>& image, const TileArea& area, const OpenPixels& open, const T* grad_mask,
           int64_t grad_mask_stride, const int32_t* faces, int64_t count, const Sums& sums) {
    faces_.load(image, area, faces, count);
    pull_of_.assign(size_t(faces_.slots()), -1);
    pulls_.clear();
    faces_.for_each_group(open, [&](const PixelGroup<T>& group) {
      T grad[kEight] = {};
      for (int lane = 0; lane < group.count; ++lane) {
        grad[lane] = grad_mask[group.row[lane] * grad_mask_stride + group.column[lane]];
      }
      add_group(image.rules, group, Lanes::load(grad));
    });
    for (const Pull& pull : pulls_) spread(image, pull, sums);
  }

 private:
  // A face that pixels of a group take.
  struct Step {
    int32_t pull;
    Lanes probability;     // 0 for a pixel that does not take it
    Lanes product_before;  // of (1 - p) over the faces before this one
    BoundaryPoint<Lanes> point;
  };
  // The gradient with respect to (x, y) of the three vertices of a face, in NDC, of each lane.
  struct alignas(64) Pull {
    T x[3][kEight], y[3][kEight];
    int32_t slot;
  };

  // With m = 1 - prod_j (1 - p_j):
  //     dm / d(d_k^2) = -sigmainv * p_k * prod_{j != k} (1 - p_j)
  // and the product without k is the one before it times the one after it: no division, so p_k = 1 is safe.
  void add_group(const SoftMaskRules<T>& rules, const PixelGroup<T>& group, Lanes grad_mask) {
    const size_t count = take_steps(rules, group);
    const Lanes scale = Lanes(T(2) * rules.sigmainv) * grad_mask;
    Lanes product_after = T(1);
    for (size_t i = count; i-- > 0;) {
      const Step& step = steps_[i];
      const Lanes pull =
          keep(Lanes(T(0)) < step.probability, scale * step.probability * (step.product_before * product_after));
      product_after = product_after * (Lanes(T(1)) - step.probability);
      const Lanes pull_x = pull * step.point.dx, pull_y = pull * step.point.dy;
      Lanes shares[3];
      step.point.shares(shares);
      Pull& target = pulls_[size_t(step.pull)];
      for (int k = 0; k < 3; ++k) {
        (Lanes::load(target.x[k]) + shares[k] * pull_x).store(target.x[k]);
        (Lanes::load(target.y[k]) + shares[k] * pull_y).store(target.y[k]);
      }
    }
  }

  size_t take_steps(const SoftMaskRules<T>& rules, const PixelGroup<T>& group) {
    OpenLanes<T> open(group.lanes(), rules.knum);
    Lanes product = T(1);
    size_t count = 0;
    const Lanes px = group.px, py = group.py;
    const auto visit = [&](int32_t slot, const FacePacket<T>& packet, int lane) DIBR_INLINE_LAMBDA {
      const EightFlags<T> takes = open.take(packet, lane, px, py);
      if (!takes.any()) return;
      if (count == steps_.size()) steps_.resize(2 * count + 64);
      Step& step = steps_[count++];
      step.pull = pull_of(slot);
      step.point = nearest_boundary_point(packet.face(lane), px, py);
      step.probability = keep(takes, mask_probability(rules, step.point.distance2));
      step.product_before = product;
      product = product * (Lanes(T(1)) - step.probability);
    };
    faces_.for_each_face(group, visit, [&]() DIBR_INLINE_LAMBDA { return open.any(); });
    return count;
  }

  int32_t pull_of(int32_t slot) {
    int32_t& pull = pull_of_[size_t(slot)];
    if (pull < 0) {
      pull = int32_t(pulls_.size());
      pulls_.push_back({{}, {}, slot});
    }
    return pull;
  }

  template <class Sums>
  void spread(const MaskImage<T>& image, const Pull& pull, const Sums& sums) const {
    const MaskFace<T> face = faces_.face(pull.slot);
    const int32_t* vertices = image.face_indices + 3 * int64_t(faces_.index(pull.slot));
    T x[4], y[4];
    four_sums(pull.x[0], pull.x[1], pull.x[2], pull.x[2], x);
    four_sums(pull.y[0], pull.y[1], pull.y[2], pull.y[2], y);
    for (int k = 0; k < 3; ++k) {
      const int64_t vertex = vertices[k];
      mask_vertex_gradient(x[k], y[k], face.x[k], face.y[k], image.positions[4 * vertex + 3], sums[vertex]);
    }
  }

  TileFaces<T> faces_;
  std::vector<Step> steps_;
  std::vector<int32_t> pull_of_;  // of each slot, -1 where no pixel has taken the face yet
  std::vector<Pull> pulls_;
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
