// Rasterize on the CPU: faces are binned to tiles, each tile resolves its own small depth buffer, then writes its
// pixels.
#include "core/rasterize.h"

#include <limits>

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/bins.h"
#include "cpu/scatter.h"

namespace dibr::cpu {
namespace {

template <class T>
struct Scene {
  const dibr_rasterize_params& p;
  RasterRules rules;

  explicit Scene(const dibr_rasterize_params& params)
      : p(params), rules{params.perspective_correct != 0, params.cull == DIBR_CULL_BACK, params.depth_clip != 0} {}

  Triangle<T> triangle(int64_t image, int64_t face) const {
    return gather_triangle(static_cast<const T*>(p.positions) + image * p.vertices * 4, p.face_indices + 3 * face);
  }
  PixelBox box(int64_t image, int64_t face) const {
    if (p.face_valid != nullptr && p.face_valid[image * p.faces + face] == 0) return empty_box();
    return raster_box(triangle(image, face), rules, p.width, p.height);
  }
};

// The nearest depth and its face for each pixel of one tile.
template <class T>
class TileBuffer {
 public:
  TileBuffer(const Scene<T>& scene, const TileArea& area) : scene_(scene), area_(area) {
    std::fill_n(depth_, kTile * kTile, std::numeric_limits<T>::infinity());
    std::fill_n(face_, kTile * kTile, -1);
    for (int64_t x = area.x0; x < area.x1; ++x) px_[x - area.x0] = pixel_x<T>(x, scene.p.width);
  }

  void draw(int64_t image, int32_t face, const PixelBox& box) {
    const Triangle<T> t = scene_.triangle(image, face);
    const DepthPlane<T> plane = depth_plane(t);
    const T sign = T(face_sign(t, false));
    const int64_t x0 = std::max<int64_t>(box.x0, area_.x0), x1 = std::min<int64_t>(box.x1 + 1, area_.x1);
    const int64_t y0 = std::max<int64_t>(box.y0, area_.y0), y1 = std::min<int64_t>(box.y1 + 1, area_.y1);
    for (int64_t y = y0; y < y1; ++y) draw_row(t, plane, sign, face, y, int(x0 - area_.x0), int(x1 - area_.x0));
  }

  void write(int64_t image) const {
    const dibr_rasterize_params& p = scene_.p;
    for (int64_t y = area_.y0; y < area_.y1; ++y) {
      const T py = pixel_y<T>(y, p.height);
      for (int64_t x = area_.x0; x < area_.x1; ++x) {
        const int64_t pixel = (image * p.height + y) * p.width + x, i = (y - area_.y0) * kTile + x - area_.x0;
        T* b = static_cast<T*>(p.barycentrics) + 3 * pixel;
        p.face_index[pixel] = face_[i];
        if (p.depth != nullptr) static_cast<T*>(p.depth)[pixel] = face_[i] < 0 ? T(1) : depth_[i];
        if (face_[i] < 0) {
          b[0] = b[1] = b[2] = T(0);
          continue;
        }
        const Triangle<T> t = scene_.triangle(image, face_[i]);
        barycentrics(t, edges_at(t, px_[x - area_.x0], py), scene_.rules.perspective_correct, b);
      }
    }
  }

 private:
  // Multiplying y' by the face's sign makes all three edge functions positive inside, front or back. A later face wins
  // only when it is strictly nearer: on equal depth the lowest index stays.
  void draw_row(const Triangle<T>& t, const DepthPlane<T>& plane, T sign, int32_t face, int64_t y, int x0, int x1) {
    const T py = pixel_y<T>(y, scene_.p.height);
    const T y0 = sign * (t.y[0] - py * t.w[0]), y1 = sign * (t.y[1] - py * t.w[1]), y2 = sign * (t.y[2] - py * t.w[2]);
    const T lowest = scene_.rules.depth_clip ? T(-1) : -Limits<T>::max_depth;
    const T highest = scene_.rules.depth_clip ? T(1) : Limits<T>::max_depth;
    T* depth = depth_ + (y - area_.y0) * kTile;
    int32_t* nearest = face_ + (y - area_.y0) * kTile;
    for (int x = x0; x < x1; ++x) {
      const T px = px_[x];
      const Edges<T> edges =
          edge_functions(t.x[0] - px * t.w[0], t.x[1] - px * t.w[1], t.x[2] - px * t.w[2], y0, y1, y2);
      const T sum_w = weighted_sum(edges, t.w);
      const T z = plane.base + weighted_sum(edges, plane.slope) / sum_w;
      const bool visible = (edges.e[0] >= T(0)) & (edges.e[1] >= T(0)) & (edges.e[2] >= T(0)) & (sum_w > T(0)) &
                           (z >= lowest) & (z <= highest) & (z < depth[x]);
      depth[x] = visible ? z : depth[x];
      nearest[x] = visible ? face : nearest[x];
    }
  }

  const Scene<T>& scene_;
  TileArea area_;
  T px_[kTile];
  T depth_[kTile * kTile];
  int32_t face_[kTile * kTile];
};

template <class T>
dibr_status forward(const dibr_rasterize_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize", p, launch)) return status;
  if (const dibr_status status = check_face_ranges("rasterize", p)) return status;
  const Scene<T> scene(p);
  Arena arena(launch.workspace);
  Bins bins(p.batch, p.faces, p.height, p.width, arena);
  bins.build(
      launch, [&](int64_t image) { return faces_of(p, image); },
      [&](int64_t image, int64_t face) { return scene.box(image, face); });
  parallel_for(launch, p.batch * bins.tiles(), [&](int64_t i) {
    const int64_t image = i / bins.tiles(), tile = i % bins.tiles();
    TileBuffer<T> buffer(scene, bins.area(tile));
    bins.for_each_face(image, tile, faces_of(p, image), [&](int32_t face) {
      buffer.draw(image, face, bins.box(image, face));
      return true;
    });
    buffer.write(image);
  });
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

}  // namespace dibr::cpu
