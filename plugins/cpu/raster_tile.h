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
#include "cpu/face_lines.h"
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
  // The same for a tile that no face touches.
  static const Integer* no_faces() {
    static constexpr NoFaces kNoFaces = {};
    return kNoFaces.of_columns;
  }

  // Barycentrics of as many columns of a row from x on as a Pack has lanes; undefined where nothing covers the pixel,
  // and beyond the tile's columns.
  DIBR_HD void weigh(int row, int x, Lanes* b) const {
    const int i = row * kTile + x;
    const Lanes u0 = Lanes::load(weight_[0] + i), u1 = Lanes::load(weight_[1] + i), u2 = Lanes::load(weight_[2] + i);
    const Lanes total = u0 + u1 + u2;
    b[0] = u0 / total;
    b[1] = u1 / total;
    b[2] = u2 / total;
  }
  // The same, 0 where nothing covers the pixel, and depth, 1 there.
  DIBR_HD void resolve(int row, int x, Lanes* b, Lanes* depth) const {
    const int i = row * kTile + x;
    const Mask<T> covered = (Pack<Integer>::load(face_ + i) >= Pack<Integer>(0)).template of<T>();
    weigh(row, x, b);
    for (int k = 0; k < 3; ++k) b[k] = select(covered, b[k], Lanes(T(0)));
    *depth = select(covered, Lanes::load(depth_ + i), Lanes(T(1)));
  }

  // For TileRasterizer.
  void start(const RasterScene<T>& scene, const TileArea& area) {
    area_ = area;
    width_ = scene.width;
    height_ = scene.height;
    pitch_x_ = T(2) / T(width_);
    pitch_y_ = T(2) / T(height_);
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
    const int x0 = std::max<int>(box.x0 - int(area_.x0), 0), x1 = std::min<int>(box.x1 + 1 - int(area_.x0), kTile);
    const int y0 = std::max<int>(box.y0 - int(area_.y0), 0), y1 = std::min<int>(box.y1 + 1 - int(area_.y0), kTile);
    if ((x1 - x0) * (y1 - y0) >= kManyPixels) {
      return draw_large(scene.rules, scene.triangle(image, face), face, box, x0, x1, y0, y1);
    }
    const Triangle<T> t = scene.triangle(image, face);
    const Face f = {broadcast(t), broadcast(depth_plane(t)), T(box.sign), face};
    place_rows(f, y0, y1);
    const int aligned = x0 - x0 % Lanes::kLanes, first = x1 <= aligned + Lanes::kLanes ? aligned : x0;
    for (int x = first; x < x1; x += Lanes::kLanes) draw_columns(scene.rules, f, x, columns_of(x, x0, x1), y0, y1);
  }

 private:
  static constexpr int kPixels = kTile * kTile;
  // From how many pixels of its box on a face is looked at as a whole before its pixels are, and after how many such
  // faces the farthest depth is found again.
  static constexpr int kManyPixels = 256, kFarthestEvery = 8, kLeastLanes = 2;
  // From what longer side of its box on a face may be thin.
  static constexpr int kLong = 64;

  struct NoFaces {
    Integer of_columns[kTile];
    constexpr NoFaces() : of_columns() {
      for (Integer& face : of_columns) face = -1;
    }
  };

  struct Face {
    Triangle<Lanes> triangle;
    DepthPlane<Lanes> plane;
    T sign;
    int32_t face;
  };

  // Finds y' of the face's vertices at the rows from y0 to y1, for `draw_columns`.
  void place_rows(const Face& f, int y0, int y1) {
    for (int y = y0; y < y1; y += Lanes::kLanes) {
      const Lanes py = Lanes::load(py_ + y);
      for (int k = 0; k < 3; ++k) (Lanes(f.sign) * (f.triangle.y[k] - py * f.triangle.w[k])).store(vertex_y_[k] + y);
    }
  }

  // A face whose box has many pixels in the tile: often it covers few of them, none, or is behind all others.
  __attribute__((noinline)) void draw_large(const RasterRules& rules, const Triangle<T>& t, int32_t face,
                                            const FaceBox& box, int x0, int x1, int y0, int y1) {
    if (is_hidden(t)) return;
    const FaceLines<T> lines = face_lines<T>(t, box.sign);
    if (std::max(box.x1 - box.x0, box.y1 - box.y0) >= kLong) {
      const Thinness thinness = thinness_of(lines);
      if (thinness != Thinness::kNone) {
        const Face f = {broadcast(t), broadcast(depth_plane(t)), T(box.sign), face};
        return thinness == Thinness::kAcross ? draw_thin<true>(rules, f, lines, x0, x1, y0, y1)
                                             : draw_thin<false>(rules, f, lines, x0, x1, y0, y1);
      }
    }
    int first[kTile / kLeastLanes], last[kTile / kLeastLanes];
    T inverse[3];
    for (int k = 0; k < 3; ++k) inverse[k] = T(1) / (lines.b[k] * pitch_y_);
    bool any = false;
    for (int x = x0, i = 0; x < x1; x += Lanes::kLanes, ++i) {
      first[i] = y0;
      last[i] = y1;
      narrow(lines, inverse, px_[x], px_[std::min(x + Lanes::kLanes, x1) - 1], &first[i], &last[i]);
      any = any || first[i] < last[i];
    }
    if (!any) return;
    const Face f = {broadcast(t), broadcast(depth_plane(t)), T(box.sign), face};
    place_rows(f, y0, y1);
    for (int x = x0, i = 0; x < x1; x += Lanes::kLanes, ++i) {
      draw_columns(rules, f, x, columns_of(x, x0, x1), first[i], last[i]);
    }
    if (++large_faces_ % kFarthestEvery == 0) farthest_ = farthest_depth();
  }

  // Leaves out of the rows from *first on, before *last, those where no centre between left and right can be inside of
  // the face; inverse is that of what an edge function changes by from one row to the next. A hundredth of a row covers
  // the rounding of a quotient.
  void narrow(const FaceLines<T>& lines, const T* inverse, T left, T right, int* first, int* last) const {
    constexpr T kMargin = T(0.01);
    const T middle = (left + right) / 2, half = (right - left) / 2;
    T from = T(-1), to = T(kTile);
    for (int k = 0; k < 3; ++k) {
      const T value = lines.c[k] + lines.a[k] * middle + absolute(lines.a[k]) * half + lines.b[k] * py_[0];
      keep_not_negative(value, inverse[k], &from, &to);
    }
    *first = std::max(*first, kTile - int(T(kTile) - minimum(maximum(from - kMargin, T(0)), T(kTile))));
    *last = std::min(*last, int(minimum(maximum(to + kMargin, T(-1)), T(kTile)) + T(1)));
  }

  enum class Thinness { kNone, kAcross, kDown };

  // Which way a face is at most kThin pixels wide everywhere. From the vertex opposite of edge k to that edge it is as
  // wide as the sum of the edge functions over how fast that of edge k changes.
  Thinness thinness_of(const FaceLines<T>& lines) const {
    constexpr T kThin = T(2);
    T sum = T(0), across = T(0), down = T(0);
    const T px = px_[kTile / 2], py = py_[kTile / 2];
    for (int k = 0; k < 3; ++k) {
      sum += lines.c[k] + lines.a[k] * px + lines.b[k] * py;
      across = maximum(across, absolute(lines.a[k]) * pitch_x_);
      down = maximum(down, absolute(lines.b[k]) * pitch_y_);
    }
    if (sum > kThin * maximum(across, down)) return Thinness::kNone;
    return across > down ? Thinness::kAcross : Thinness::kDown;
  }

  // A face that is thin across, or down: with a row, or a column, to each lane, and in it those few pixels that the
  // face can cover.
  template <bool kAcross>
  void draw_thin(const RasterRules& rules, const Face& f, const FaceLines<T>& lines, int x0, int x1, int y0, int y1) {
    // The least fraction of a pixel beyond what the lines allow that still counts: it covers the rounding of a
    // quotient.
    constexpr T kMargin = T(0.02), kNearest = T(0.5) - kMargin;
    const int begin = kAcross ? y0 : x0, end = kAcross ? y1 : x1;
    const T least = T(kAcross ? x0 : y0), greatest = T((kAcross ? x1 : y1) - 1);
    const T start = kAcross ? px_[0] : py_[0], pitch = kAcross ? pitch_x_ : -pitch_y_;
    const T *slopes = kAcross ? lines.a : lines.b, *along = kAcross ? lines.b : lines.a;
    T value[3], inverse[3];
    for (int k = 0; k < 3; ++k) {
      value[k] = lines.c[k] + slopes[k] * start;
      inverse[k] = T(-1) / (slopes[k] * pitch);
    }
    for (int i = begin; i < end; i += Lanes::kLanes) {
      const Lanes place = Lanes::count_from(T(i)), p = Lanes::load((kAcross ? py_ : px_) + i);
      Lanes low = least, high = greatest;
      for (int k = 0; k < 3; ++k) {
        keep_not_negative(Lanes(value[k]) + Lanes(along[k]) * p, inverse[k], &low, &high);
      }
      low = nearest(low + Lanes(kNearest));
      high = nearest(high - Lanes(kNearest));
      Mask<T> open = (low <= high) & (place < Lanes(T(end)));
      for (; open.any(); low += Lanes(T(1)), open = open & (low <= high)) {
        const Lanes other = select(open, low, Lanes(least));
        draw_scattered(rules, f, kAcross ? other : place, kAcross ? place : other, open);
      }
    }
  }

  static Lanes nearest(Lanes a) {
    const Lanes shift = T(sizeof(T) == 4 ? 0x1.8p23 : 0x1.8p52);  // leaves no place for a fraction
    return (a + shift) - shift;
  }

  // One pixel in each open lane, by its column and row in the tile.
  void draw_scattered(const RasterRules& rules, const Face& f, Lanes x, Lanes y, Mask<T> open) {
    const Lanes px = (x + x + Lanes(T(2 * area_.x0 + 1 - width_))) / Lanes(T(width_));
    const Lanes py = (Lanes(T(height_ - 2 * area_.y0 - 1)) - (y + y)) / Lanes(T(height_));
    Lanes column[3], row[3];
    for (int k = 0; k < 3; ++k) {
      column[k] = f.triangle.x[k] - px * f.triangle.w[k];
      row[k] = Lanes(f.sign) * (f.triangle.y[k] - py * f.triangle.w[k]);
    }
    const Edges<Lanes> edges = edge_functions<Lanes>(column[0], column[1], column[2], row[0], row[1], row[2]);
    const Mask<T> inside = open & (edges.e[0] >= T(0)) & (edges.e[1] >= T(0)) & (edges.e[2] >= T(0));
    if (!inside.any()) return;
    const Pack<Integer> i = integers(select(inside, y * Lanes(T(kTile)) + x, Lanes(T(0))));
    const Lanes sum_w = weighted_sum(edges, f.triangle.w);
    const Lanes z = f.plane.base + weighted_sum(edges, f.plane.slope) / sum_w;
    const Lanes lowest = rules.depth_clip ? T(-1) : -Limits<T>::max_depth;
    const Lanes highest = rules.depth_clip ? T(1) : Limits<T>::max_depth;
    const Mask<T> visible = inside & (sum_w > T(0)) & (z >= lowest) & (z <= highest) & (z < gathered(depth_, i));
    if (!visible.any()) return;
    T numbers[4][Lanes::kLanes];
    Integer places[Lanes::kLanes];
    z.store(numbers[3]);
    for (int k = 0; k < 3; ++k) {
      (rules.perspective_correct ? edges.e[k] : edges.e[k] * f.triangle.w[k]).store(numbers[k]);
    }
    i.store(places);
    for (uint32_t bits = visible.lanes(); bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits), place = int(places[lane]);
      depth_[place] = numbers[3][lane];
      face_[place] = f.face;
      for (int k = 0; k < 3; ++k) weight_[k][place] = numbers[k][lane];
    }
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

  // Of the columns from x on, as many as there are lanes, those from `begin` to `end`.
  static Mask<T> columns_of(int x, int begin, int end) {
    const Lanes column = Lanes::count_from(T(x));
    return (column >= Lanes(T(begin))) & (column < Lanes(T(end)));
  }

  // Rows y0 to y1 of those columns, from x on, that are in the face's box. Multiplying y' by the face's sign makes all
  // three edge functions positive inside, front or back; the weights are ratios, so it cancels there. A later face wins
  // only when it is strictly nearer: on equal depth the lowest index stays.
  // No branch looks whether any lane is inside or visible: at a face's outline it is as good as chance, and guessed
  // wrong it costs more than a row.
  void draw_columns(const RasterRules& rules, const Face& f, int x, Mask<T> in_box, int y0, int y1) {
    const Lanes lowest = rules.depth_clip ? T(-1) : -Limits<T>::max_depth;
    const Lanes highest = rules.depth_clip ? T(1) : Limits<T>::max_depth;
    const bool perspective_correct = rules.perspective_correct;  // what is not local the loop's stores might change
    const Lanes px = Lanes::load(px_ + x);
    Lanes column[3];
    for (int k = 0; k < 3; ++k) column[k] = f.triangle.x[k] - px * f.triangle.w[k];
    for (int y = y0; y < y1; ++y) {
      const Edges<Lanes> edges =
          edge_functions<Lanes>(column[0], column[1], column[2], vertex_y_[0][y], vertex_y_[1][y], vertex_y_[2][y]);
      const Mask<T> inside = in_box & (edges.e[0] >= T(0)) & (edges.e[1] >= T(0)) & (edges.e[2] >= T(0));
      const Lanes sum_w = weighted_sum(edges, f.triangle.w);
      const Lanes z = f.plane.base + weighted_sum(edges, f.plane.slope) / sum_w;
      const int i = y * kTile + x;
      const Lanes depth = Lanes::load(depth_ + i);
      const Mask<T> visible = inside & (sum_w > T(0)) & (z >= lowest) & (z <= highest) & (z < depth);
      select(visible, z, depth).store(depth_ + i);
      select(visible.template of<Integer>(), Pack<Integer>(f.face), Pack<Integer>::load(face_ + i)).store(face_ + i);
      for (int k = 0; k < 3; ++k) {
        const Lanes weight = perspective_correct ? edges.e[k] : edges.e[k] * f.triangle.w[k];
        select(visible, weight, Lanes::load(weight_[k] + i)).store(weight_[k] + i);
      }
    }
  }

  // What lies beyond the last pixel lets every load be a whole Pack. Rows begin where a vector in memory does, and so
  // does a face that fits: one that lies across two lines takes twice the time, and one that overlaps what another face
  // has just stored, instead of lying where it does, has to wait.
  TileArea area_ = {};
  int large_faces_ = 0;
  T farthest_ = 0;  // no pixel shows anything beyond
  int64_t width_ = 0, height_ = 0;
  T pitch_x_ = 0, pitch_y_ = 0;  // from one pixel to the next, in NDC
  alignas(kVectorBytes) T px_[kRow] = {}, py_[kRow] = {};
  alignas(kVectorBytes) T vertex_y_[3][kRow] = {};  // times the face's sign, at each row
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
    return bins_.build([this](int64_t image) { return faces_of(scene_, image); },
                       [this](int64_t image, int64_t face, int count, FaceBox* out) {
                         return boxes(screen_.of_image(image), image, face, count, out);
                       },
                       [this](int64_t image, int64_t face) { return band(image, face); });
  }

  int64_t tiles() const { return bins_.tiles(); }  // of one image
  TileArea area(int64_t tile) const { return bins_.area(tile); }

  // The phase that calls body(image, tile) for every tile.
  template <class Body>
  auto for_each_tile(const Body& body) const {
    return Phase{scene_.batch * tiles(), [tiles = tiles(), body](int64_t i) { body(i / tiles, i % tiles); }};
  }

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
      const int sign = signs.front >> i & 1 ? 1 : -1;
      drawn |= unsigned(box_around(screen[v[0]], screen[v[1]], screen[v[2]], sign, &out[i])) << i;
    }
    for (unsigned bits = ~(signs.front | signs.back) & valid; bits != 0; bits &= bits - 1) {
      const int i = __builtin_ctz(bits);
      out[i] = exact_box(image, face + i);
      drawn |= unsigned(!is_empty(out[i])) << i;
    }
    return drawn;
  }
  // What narrows the columns of a band of rows, as Bins takes it.
  auto band(int64_t image, int64_t face) const {
    const FaceLines<double> lines = face_lines<double>(scene_.triangle(image, face), bins_.box(image, face).sign);
    const double width = double(scene_.width), height = double(scene_.height);
    double inverse[3];
    for (int k = 0; k < 3; ++k) inverse[k] = -1.0 / lines.a[k];
    return [=](int y0, int y1, int* x0, int* x1) {
      const double middle = (height - y0 - y1 - 1) / height, half = (y1 - y0) / height;
      double from = -2.0, to = 2.0;
      for (int k = 0; k < 3; ++k) {
        const double value = lines.c[k] + lines.b[k] * middle + absolute(lines.b[k]) * half;
        keep_not_negative(value, inverse[k], &from, &to);
      }
      *x0 = int(minimum(maximum(first_pixel(column_of(from, width)), double(*x0)), width));
      *x1 = int(maximum(minimum(last_pixel(column_of(to, width)), double(*x1)), -1.0));
    };
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
