// Rasterize on the CPU: faces are binned to tiles, each tile resolves its own small depth buffer, then writes its
// pixels.
#include "core/rasterize.h"

#include <limits>

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/bins.h"
#include "cpu/scatter.h"
#include "cpu/screen.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class T>
struct Scene {
  const dibr_rasterize_params& p;
  RasterRules rules;

  explicit Scene(const dibr_rasterize_params& params)
      : p(params), rules{params.perspective_correct != 0, params.cull == DIBR_CULL_BACK, params.depth_clip != 0} {}

  const T* positions(int64_t image) const { return static_cast<const T*>(p.positions) + image * p.vertices * 4; }
  Triangle<T> triangle(int64_t image, int64_t face) const {
    return gather_triangle(positions(image), p.face_indices + 3 * face);
  }
  FaceBox box(const ScreenVertex* screen, int64_t image, int64_t face) const {
    if (p.face_valid != nullptr && p.face_valid[image * p.faces + face] == 0) return kEmptyBox;
    const int32_t* v = p.face_indices + 3 * face;
    const int sign = clear_sign(screen[v[0]], screen[v[1]], screen[v[2]]);
    if (sign == 0) return exact_box(image, face);
    if (sign < 0 && rules.cull_back) return kEmptyBox;
    return box_around(screen[v[0]], screen[v[1]], screen[v[2]], sign);
  }

 private:
  FaceBox exact_box(int64_t image, int64_t face) const {
    const Triangle<T> t = triangle(image, face);
    const PixelBox box = raster_box(t, rules, p.width, p.height);
    return is_empty(box) ? kEmptyBox : pack_box(box, face_sign(t, false));
  }
};

template <class T>
Triangle<Pack<T>> broadcast(const Triangle<T>& t) {
  Triangle<Pack<T>> out;
  for (int k = 0; k < 3; ++k) {
    out.x[k] = t.x[k];
    out.y[k] = t.y[k];
    out.z[k] = t.z[k];
    out.w[k] = t.w[k];
  }
  return out;
}

template <class T>
DepthPlane<Pack<T>> broadcast(const DepthPlane<T>& plane) {
  return {plane.base, {plane.slope[0], plane.slope[1], plane.slope[2]}};
}

// The nearest depth, its face and that face's weights, not yet divided by their sum, for each pixel of one tile. One
// per thread, reused from tile to tile. What lies beyond the last pixel lets every load be a whole Pack.
template <class T>
class TileBuffer {
 public:
  using Lanes = Pack<T>;
  using Integer = IntegerLike<T>;

  void start(const Scene<T>& scene, const TileArea& area) {
    area_ = area;
    std::fill_n(depth_, kPixels, std::numeric_limits<T>::infinity());
    std::fill_n(face_, kPixels, Integer(-1));
    for (int i = 0; i < kTile; ++i) {
      px_[i] = pixel_x<T>(area.x0 + i, scene.p.width);
      py_[i] = pixel_y<T>(area.y0 + i, scene.p.height);
    }
  }

  void draw(const Scene<T>& scene, int64_t image, int32_t face, const FaceBox& box) {
    const Triangle<T> t = scene.triangle(image, face);
    const Face f = {broadcast(t), broadcast(depth_plane(t)), T(box.sign), face};
    const int x0 = std::max<int>(box.x0 - int(area_.x0), 0), x1 = std::min<int>(box.x1 + 1 - int(area_.x0), kTile);
    const int y0 = std::max<int>(box.y0 - int(area_.y0), 0), y1 = std::min<int>(box.y1 + 1 - int(area_.y0), kTile);
    for (int x = x0; x < x1; x += Lanes::kLanes) draw_columns(scene.rules, t, f, x, x1, y0, y1);
  }

  void write(const dibr_rasterize_params& p, int64_t image) const {
    const int columns = int(area_.x1 - area_.x0);
    for (int64_t y = area_.y0; y < area_.y1; ++y) {
      const int row = int(y - area_.y0) * kTile;
      const int64_t pixel = (image * p.height + y) * p.width + area_.x0;
      T b[3][kTile + Lanes::kLanes], depth[kTile + Lanes::kLanes];
      for (int x = 0; x < columns; x += Lanes::kLanes) resolve(row + x, b[0] + x, b[1] + x, b[2] + x, depth + x);
      std::copy(face_ + row, face_ + row + columns, p.face_index + pixel);
      T* out = static_cast<T*>(p.barycentrics) + 3 * pixel;
      for (int x = 0; x < columns; ++x) {
        out[3 * x] = b[0][x];
        out[3 * x + 1] = b[1][x];
        out[3 * x + 2] = b[2][x];
      }
      if (p.depth != nullptr) std::copy(depth, depth + columns, static_cast<T*>(p.depth) + pixel);
    }
  }

 private:
  static constexpr int kPixels = kTile * kTile;

  struct Face {
    Triangle<Lanes> triangle;
    DepthPlane<Lanes> plane;
    T sign;
    int32_t face;
  };

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

  // Barycentrics and depth of the pixels from i on.
  void resolve(int i, T* b0, T* b1, T* b2, T* depth) const {
    const Mask<T> covered = (Pack<Integer>::load(face_ + i) >= Pack<Integer>(0)).template of<T>();
    const Lanes u0 = Lanes::load(weight_[0] + i), u1 = Lanes::load(weight_[1] + i), u2 = Lanes::load(weight_[2] + i);
    const Lanes total = u0 + u1 + u2;
    select(covered, u0 / total, Lanes(T(0))).store(b0);
    select(covered, u1 / total, Lanes(T(0))).store(b1);
    select(covered, u2 / total, Lanes(T(0))).store(b2);
    select(covered, Lanes::load(depth_ + i), Lanes(T(1))).store(depth);
  }

  TileArea area_ = {};
  T px_[kTile + Lanes::kLanes] = {}, py_[kTile] = {};
  T depth_[kPixels + Lanes::kLanes] = {}, weight_[3][kPixels + Lanes::kLanes] = {};
  Integer face_[kPixels + Lanes::kLanes] = {};
};

// What a tile that no face touches looks like.
template <class T>
void write_background(const dibr_rasterize_params& p, int64_t image, const TileArea& area) {
  const int64_t columns = area.x1 - area.x0;
  for (int64_t y = area.y0; y < area.y1; ++y) {
    const int64_t pixel = (image * p.height + y) * p.width + area.x0;
    std::fill_n(p.face_index + pixel, columns, -1);
    std::fill_n(static_cast<T*>(p.barycentrics) + 3 * pixel, 3 * columns, T(0));
    if (p.depth != nullptr) std::fill_n(static_cast<T*>(p.depth) + pixel, columns, T(1));
  }
}

template <class T>
void draw_tile(const Scene<T>& scene, const Bins& bins, int64_t image, int64_t tile) {
  static thread_local TileBuffer<T> buffer_of_thread;
  TileBuffer<T>& buffer = buffer_of_thread;
  bool started = false;
  bins.for_each_face(image, tile, faces_of(scene.p, image), [&](int32_t face) {
    if (!started) buffer.start(scene, bins.area(tile));
    started = true;
    buffer.draw(scene, image, face, bins.box(image, face));
    return true;
  });
  if (started) {
    buffer.write(scene.p, image);
  } else {
    write_background<T>(scene.p, image, bins.area(tile));
  }
}

template <class T>
dibr_status forward(const dibr_rasterize_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize", p, launch)) return status;
  if (const dibr_status status = check_face_ranges("rasterize", p)) return status;
  const Scene<T> scene(p);
  Arena arena(launch.workspace);
  Bins bins(p.batch, p.faces, p.height, p.width, arena);
  const Screen screen(p.batch, p.vertices, arena);
  screen.project(launch, static_cast<const T*>(p.positions), p.depth_clip != 0, p.height, p.width);
  bins.build(
      launch, [&](int64_t image) { return faces_of(p, image); },
      [&](int64_t image, int64_t face) { return scene.box(screen.of_image(image), image, face); });
  parallel_for(launch, p.batch * bins.tiles(),
               [&](int64_t i) { draw_tile<T>(scene, bins, i / bins.tiles(), i % bins.tiles()); });
  return DIBR_OK;
}

// Neighbouring pixels mostly show the same face: its gradient is summed before it is spread to the vertices.
template <class T>
class FaceAccumulator {
 public:
  FaceAccumulator(const dibr_rasterize_backward_params& p, T* sum) : p_(p), sum_(sum) {}
  ~FaceAccumulator() { flush(); }

  void add(const T* positions, int32_t face, T px, T py, const T* grad_b, T grad_depth) {
    if (face != face_) {
      flush();
      face_ = face;
      triangle_ = gather_triangle(positions, p_.face_indices + 3 * int64_t(face));
      gradient_ = {};
    }
    accumulate_raster_gradient(triangle_, px, py, p_.perspective_correct != 0, grad_b, grad_depth, &gradient_);
  }

 private:
  void flush() {
    if (face_ < 0) return;
    for (int k = 0; k < 3; ++k) {
      T* target = sum_ + 4 * int64_t(p_.face_indices[3 * int64_t(face_) + k]);
      for (int c = 0; c < 4; ++c) target[c] += gradient_.v[k][c];
    }
  }

  const dibr_rasterize_backward_params& p_;
  T* sum_;
  int32_t face_ = -1;
  Triangle<T> triangle_ = {};
  TriangleGradient<T> gradient_ = {};
};

template <class T>
Scatter<T> position_scatter(const dibr_rasterize_backward_params& p, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, p.height, p.batch * p.height * p.width * 4, arena);
}

template <class T>
dibr_status backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize_backward", p, launch)) return status;
  if (const dibr_status status = check_face_index("rasterize_backward", p, launch)) return status;
  const T* grad_barycentrics = static_cast<const T*>(p.grad_barycentrics);
  const T* grad_depth = static_cast<const T*>(p.grad_depth);
  const T none[3] = {};
  Arena arena(launch.workspace);
  position_scatter<T>(p, arena).run(launch, static_cast<T*>(p.grad_positions), [&](int64_t image, int64_t y, T* sum) {
    const T* positions = static_cast<const T*>(p.positions) + image * p.vertices * 4;
    FaceAccumulator<T> accumulator(p, sum);
    for (int64_t x = 0; x < p.width; ++x) {
      const int64_t pixel = (image * p.height + y) * p.width + x;
      if (p.face_index[pixel] < 0) continue;
      accumulator.add(positions, p.face_index[pixel], pixel_x<T>(x, p.width), pixel_y<T>(y, p.height),
                      grad_barycentrics != nullptr ? grad_barycentrics + 3 * pixel : none,
                      grad_depth != nullptr ? grad_depth[pixel] : T(0));
    }
  });
  return DIBR_OK;
}

}  // namespace

dibr_status rasterize_workspace(const dibr_rasterize_params& p, Arena& arena) {
  Bins(p.batch, p.faces, p.height, p.width, arena);
  Screen(p.batch, p.vertices, arena);
  return DIBR_OK;
}
dibr_status rasterize(const dibr_rasterize_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status rasterize_backward_workspace(const dibr_rasterize_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { position_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status rasterize_backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
