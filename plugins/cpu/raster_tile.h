// Rasterises one tile: what Rasterize writes out, and what a fused op reads without writing it out.
//
//     TileRasterizer<T> rasterizer(scene, arena);     // the same calls measure the workspace (arena without a base)
//     rasterizer.project(), rasterizer.bin()          // phases: vertices to the screen, then faces to tiles
//     rasterizer.draw(image, tile)                    // in a phase after them; nullptr: nothing covers the tile
//
// A TileBuffer belongs to the thread, and holds until that thread draws the next tile.
#pragma once

#include <limits>

#include "core/rasterize.h"
#include "cpu/bins.h"
#include "cpu/screen.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// What is rasterised, from the parameters of any op that rasterises.
template <class T>
struct RasterScene {
  const T* positions;           // [B, V, 4]
  const int32_t* face_indices;  // [F, 3]
  const int32_t* face_ranges;   // [B, 2] or NULL
  const int32_t* face_valid;    // [B, F] or NULL
  int64_t batch, vertices, faces, height, width;
  RasterRules rules;

  template <class P>
  explicit RasterScene(const P& p)
      : positions(static_cast<const T*>(p.positions)),
        face_indices(p.face_indices),
        face_ranges(p.face_ranges),
        face_valid(p.face_valid),
        batch(p.batch),
        vertices(p.vertices),
        faces(p.faces),
        height(p.height),
        width(p.width),
        rules{p.perspective_correct != 0, p.cull == DIBR_CULL_BACK, p.depth_clip != 0} {}

  Triangle<T> triangle(int64_t image, int64_t face) const {
    return gather_triangle(positions + image * vertices * 4, face_indices + 3 * face);
  }
};

// The nearest depth, its face and that face's weights for each pixel of one tile.
template <class T>
class TileBuffer {
 public:
  using Lanes = Pack<T>;
  using Integer = IntegerLike<T>;
  // Room for a row of a tile that is written a whole Pack at a time.
  static constexpr int kRow = kTile + Lanes::kLanes;

  // The pixels of the image that the tile has; rows and columns below count from its corner.
  const TileArea& area() const { return area_; }

  // For each column of a row of the tile, the visible face, -1 where nothing covers the pixel.
  const Integer* faces(int row) const { return face_ + row * kTile; }

  // Barycentrics, 0 where nothing covers the pixel, and depth, 1 there, of a row of the tile. Each array has kRow
  // elements, of which those beyond the tile's columns are left undefined.
  void resolve(int row, T* b0, T* b1, T* b2, T* depth) const {
    const int columns = int(area_.x1 - area_.x0);
    for (int x = 0; x < columns; x += Lanes::kLanes) {
      Lanes b[3], z;
      resolve(row, x, b, &z);
      b[0].store(b0 + x);
      b[1].store(b1 + x);
      b[2].store(b2 + x);
      z.store(depth + x);
    }
  }

  // The same of as many columns from x on as a Pack has lanes.
  DIBR_HD void resolve(int row, int x, Lanes* b, Lanes* depth) const {
    const int i = row * kTile + x;
    const Mask<T> covered = (Pack<Integer>::load(face_ + i) >= Pack<Integer>(0)).template of<T>();
    for (int k = 0; k < 3; ++k) b[k] = T(0);
    *depth = T(1);
    if (!covered.any()) return;
    const Lanes u0 = Lanes::load(weight_[0] + i), u1 = Lanes::load(weight_[1] + i), u2 = Lanes::load(weight_[2] + i);
    const Lanes total = u0 + u1 + u2;
    b[0] = select(covered, u0 / total, b[0]);
    b[1] = select(covered, u1 / total, b[1]);
    b[2] = select(covered, u2 / total, b[2]);
    *depth = select(covered, Lanes::load(depth_ + i), *depth);
  }

  // For TileRasterizer.
  void start(const RasterScene<T>& scene, const TileArea& area) {
    area_ = area;
    large_faces_ = 0;
    farthest_ = std::numeric_limits<T>::infinity();
    std::fill_n(depth_, kPixels, std::numeric_limits<T>::infinity());
    std::fill_n(face_, kPixels, Integer(-1));
    for (int i = 0; i < kTile; ++i) {
      px_[i] = pixel_x<T>(area.x0 + i, scene.width);
      py_[i] = pixel_y<T>(area.y0 + i, scene.height);
    }
  }

  void draw(const RasterScene<T>& scene, int64_t image, int32_t face, const FaceBox& box) {
    const Triangle<T> t = scene.triangle(image, face);
    const int x0 = std::max<int>(box.x0 - int(area_.x0), 0), x1 = std::min<int>(box.x1 + 1 - int(area_.x0), kTile);
    const int y0 = std::max<int>(box.y0 - int(area_.y0), 0), y1 = std::min<int>(box.y1 + 1 - int(area_.y0), kTile);
    if ((x1 - x0) * (y1 - y0) >= kManyPixels) return draw_large(scene.rules, t, face, box.sign, x0, x1, y0, y1);
    const Face f = {broadcast(t), broadcast(depth_plane(t)), T(box.sign), face};
    for (int x = x0; x < x1; x += Lanes::kLanes) draw_columns(scene.rules, t, f, x, x1, y0, y1);
  }

 private:
  static constexpr int kPixels = kTile * kTile;
  // From how many pixels of its box on a face is looked at as a whole before its pixels are, and after how many such
  // faces the farthest depth is found again.
  static constexpr int kManyPixels = 256, kFarthestEvery = 8, kLeastLanes = 2;

  struct Face {
    Triangle<Lanes> triangle;
    DepthPlane<Lanes> plane;
    T sign;
    int32_t face;
  };

  // A face whose box has many pixels in the tile: often it covers few of them, none, or is behind all others.
  __attribute__((noinline)) void draw_large(const RasterRules& rules, const Triangle<T>& t, int32_t face, int sign,
                                            int x0, int x1, int y0, int y1) {
    if (is_hidden(t)) return;
    int first[kTile / kLeastLanes], last[kTile / kLeastLanes];
    bool any = false;
    for (int x = x0, i = 0; x < x1; x += Lanes::kLanes, ++i) {
      first[i] = y0;
      last[i] = y1;
      narrow(t, T(sign), px_[x], px_[std::min(x + Lanes::kLanes, x1) - 1], &first[i], &last[i]);
      any = any || first[i] < last[i];
    }
    if (!any) return;
    const Face f = {broadcast(t), broadcast(depth_plane(t)), T(sign), face};
    for (int x = x0, i = 0; x < x1; x += Lanes::kLanes, ++i) draw_columns(rules, t, f, x, x1, first[i], last[i]);
    if (++large_faces_ % kFarthestEvery == 0) farthest_ = farthest_depth();
  }

  // Leaves out of the rows from *first on, before *last, those where no centre between left and right can be inside of
  // the face. An edge function is linear: where it is negative at the farther of left and right, by more than what
  // rounding can do to it, it is so between them. A row more at each end covers the rounding of the row itself.
  void narrow(const Triangle<T>& t, T sign, T left, T right, int* first, int* last) const {
    const T cx = (left + right) / 2, half = (right - left) / 2, cy = py_[0], pitch = py_[0] - py_[1];
    T x[3], y[3], reach[3];
    for (int k = 0; k < 3; ++k) {
      x[k] = t.x[k] - cx * t.w[k];
      y[k] = t.y[k] - cy * t.w[k];
      reach[k] = absolute(t.x[k]) + absolute(t.y[k]) + 2 * absolute(t.w[k]);
    }
    T from = T(0), to = T(kTile);
    for (int k = 0; k < 3; ++k) {
      const int i = k == 2 ? 0 : k + 1, j = k == 0 ? 2 : k - 1;
      const T rounding = 32 * std::numeric_limits<T>::epsilon() * reach[i] * reach[j];
      const T most = sign * (x[i] * y[j] - y[i] * x[j]) + half * absolute(y[i] * t.w[j] - t.w[i] * y[j]) + rounding;
      const T down = sign * pitch * (x[i] * t.w[j] - t.w[i] * x[j]);  // from one row to the next
      if (down > T(0)) {
        from = maximum(from, -most / down);
      } else if (down < T(0)) {
        to = minimum(to, most / -down);
      } else if (most < T(0)) {
        to = T(-1);
      }
    }
    *first = std::max(*first, int(minimum(from, T(kTile))) - 1);
    *last = std::min(*last, int(maximum(to, T(-2))) + 2);
  }

  // Whether the whole tile shows something nearer than any point of the face, rounding included.
  bool is_hidden(const Triangle<T>& t) const {
    if (!(farthest_ < std::numeric_limits<T>::infinity() && t.w[0] > T(0) && t.w[1] > T(0) && t.w[2] > T(0)))
      return false;
    T nearest = t.z[0] / t.w[0], largest = absolute(nearest);
    for (int k = 1; k < 3; ++k) {
      const T depth = t.z[k] / t.w[k];
      nearest = minimum(nearest, depth);
      largest = maximum(largest, absolute(depth));
    }
    return nearest - 64 * std::numeric_limits<T>::epsilon() * largest > farthest_;
  }

  T farthest_depth() const {
    Lanes farthest = Lanes::load(depth_);
    for (int i = Lanes::kLanes; i < kPixels; i += Lanes::kLanes) {
      const Lanes depth = Lanes::load(depth_ + i);
      farthest = select(farthest < depth, depth, farthest);
    }
    T lanes[Lanes::kLanes];
    farthest.store(lanes);
    return *std::max_element(lanes, lanes + Lanes::kLanes);
  }

  static Triangle<Lanes> broadcast(const Triangle<T>& t) {
    Triangle<Lanes> out;
    for (int k = 0; k < 3; ++k) {
      out.x[k] = t.x[k];
      out.y[k] = t.y[k];
      out.z[k] = t.z[k];
      out.w[k] = t.w[k];
    }
    return out;
  }
  static DepthPlane<Lanes> broadcast(const DepthPlane<T>& plane) {
    return {plane.base, {plane.slope[0], plane.slope[1], plane.slope[2]}};
  }

  // Rows y0 to y1 of the columns from x on, as many as there are lanes but none from x_end on. Multiplying y' by the
  // face's sign makes all three edge functions positive inside, front or back; the weights are ratios, so it cancels
  // there. A later face wins only when it is strictly nearer: on equal depth the lowest index stays.
  void draw_columns(const RasterRules& rules, const Triangle<T>& t, const Face& f, int x, int x_end, int y0, int y1) {
    const Lanes lowest = rules.depth_clip ? T(-1) : -Limits<T>::max_depth;
    const Lanes highest = rules.depth_clip ? T(1) : Limits<T>::max_depth;
    const Mask<T> in_box = Lanes::count_from(T(x)) < Lanes(T(x_end));
    const Lanes px = Lanes::load(px_ + x);
    Lanes column[3];
    for (int k = 0; k < 3; ++k) column[k] = f.triangle.x[k] - px * f.triangle.w[k];
    for (int y = y0; y < y1; ++y) {
      T row[3];
      for (int k = 0; k < 3; ++k) row[k] = f.sign * (t.y[k] - py_[y] * t.w[k]);
      const Edges<Lanes> edges = edge_functions<Lanes>(column[0], column[1], column[2], row[0], row[1], row[2]);
      const Mask<T> inside = in_box & (edges.e[0] >= T(0)) & (edges.e[1] >= T(0)) & (edges.e[2] >= T(0));
      if (!inside.any()) continue;
      const Lanes sum_w = weighted_sum(edges, f.triangle.w);
      const Lanes z = f.plane.base + weighted_sum(edges, f.plane.slope) / sum_w;
      const int i = y * kTile + x;
      const Lanes depth = Lanes::load(depth_ + i);
      const Mask<T> visible = inside & (sum_w > T(0)) & (z >= lowest) & (z <= highest) & (z < depth);
      if (!visible.any()) continue;
      select(visible, z, depth).store(depth_ + i);
      select(visible.template of<Integer>(), Pack<Integer>(f.face), Pack<Integer>::load(face_ + i)).store(face_ + i);
      for (int k = 0; k < 3; ++k) {
        const Lanes weight = rules.perspective_correct ? edges.e[k] : edges.e[k] * f.triangle.w[k];
        select(visible, weight, Lanes::load(weight_[k] + i)).store(weight_[k] + i);
      }
    }
  }

  // What lies beyond the last pixel lets every load be a whole Pack. Rows begin where a vector in memory does: one that
  // lies across two lines takes twice the time.
  TileArea area_ = {};
  int large_faces_ = 0;
  T farthest_ = 0;  // no pixel shows anything beyond
  alignas(kVectorBytes) T px_[kRow] = {}, py_[kTile] = {};
  alignas(kVectorBytes) T depth_[kPixels + Lanes::kLanes] = {}, weight_[3][kPixels + Lanes::kLanes] = {};
  alignas(kVectorBytes) Integer face_[kPixels + Lanes::kLanes] = {};
};

// Draws any tile of a scene.
template <class T>
class TileRasterizer {
 public:
  TileRasterizer(const RasterScene<T>& scene, Arena& arena)
      : scene_(scene),
        bins_(scene.batch, scene.faces, scene.height, scene.width, arena),
        screen_(scene.batch, scene.vertices, arena) {}

  auto project() const {
    return screen_.project(scene_.positions, scene_.rules.depth_clip, scene_.height, scene_.width);
  }
  // After `project`, with face_indices and face_ranges that were found to be in range.
  auto bin() const {
    return bins_.build_by_eights([this](int64_t image) { return faces_of(scene_, image); },
                                 [this](int64_t image, int64_t face, int count, FaceBox* out) {
                                   return boxes(screen_.of_image(image), image, face, count, out);
                                 });
  }

  int64_t tiles() const { return bins_.tiles(); }  // of one image
  TileArea area(int64_t tile) const { return bins_.area(tile); }

  // On the calling thread. NULL where nothing covers the tile.
  const TileBuffer<T>* draw(int64_t image, int64_t tile) const {
    static thread_local TileBuffer<T> buffer_of_thread;
    TileBuffer<T>& buffer = buffer_of_thread;
    bool started = false;
    bins_.for_each_face(image, tile, faces_of(scene_, image), [&](int32_t face) {
      if (!started) buffer.start(scene_, bins_.area(tile));
      started = true;
      buffer.draw(scene_, image, face, bins_.box(image, face));
      return true;
    });
    return started ? &buffer : nullptr;
  }

 private:
  // The boxes of at most eight faces from one on, and which of them can be drawn, as Bins takes them.
  unsigned boxes(const ScreenVertex* screen, int64_t image, int64_t face, int count, FaceBox* out) const {
    const int32_t* corners = scene_.face_indices + 3 * face;
    int32_t of_eight[3 * kEight];
    if (count < kEight) {
      for (int i = 0; i < 3 * kEight; ++i) of_eight[i] = corners[i < 3 * count ? i : i % 3];
      corners = of_eight;
    }
    prefetch_corners(screen, face + 16);
    const ClearSigns signs = clear_signs(screen, corners);
    const unsigned valid = valid_faces(image, face, count);
    unsigned drawn = 0;
    for (unsigned bits = (signs.front | (scene_.rules.cull_back ? 0 : signs.back)) & valid; bits != 0;
         bits &= bits - 1) {
      const int i = __builtin_ctz(bits);
      const int32_t* v = corners + 3 * i;
      out[i] = box_around(screen[v[0]], screen[v[1]], screen[v[2]], signs.front >> i & 1 ? 1 : -1);
      drawn |= unsigned(!is_empty(out[i])) << i;
    }
    for (unsigned bits = ~(signs.front | signs.back) & valid; bits != 0; bits &= bits - 1) {
      const int i = __builtin_ctz(bits);
      out[i] = exact_box(image, face + i);
      drawn |= unsigned(!is_empty(out[i])) << i;
    }
    return drawn;
  }
  unsigned valid_faces(int64_t image, int64_t face, int count) const {
    unsigned bits = (1u << count) - 1;
    if (scene_.face_valid == nullptr) return bits;
    const int32_t* valid = scene_.face_valid + image * scene_.faces + face;
    for (int i = 0; i < count; ++i) bits &= ~(unsigned(valid[i] == 0) << i);
    return bits;
  }
  // Another thread may have placed the vertices of these eight: they come from far.
  void prefetch_corners(const ScreenVertex* screen, int64_t face) const {
    const int32_t* v = scene_.face_indices + 3 * std::max<int64_t>(std::min(face, scene_.faces - kEight), 0);
    for (int k = 0; k < 3 * std::min<int64_t>(kEight, scene_.faces); ++k) __builtin_prefetch(screen + v[k]);
  }
  FaceBox exact_box(int64_t image, int64_t face) const {
    const Triangle<T> t = scene_.triangle(image, face);
    const PixelBox box = raster_box(t, scene_.rules, scene_.width, scene_.height);
    return is_empty(box) ? kEmptyBox : pack_box(box, face_sign(t, false));
  }

  RasterScene<T> scene_;
  Bins bins_;
  Screen screen_;
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
