// SoftMask on the CPU: faces are binned to tiles by their enlarged boxes; a pixel looks at the faces of its tile's row
// in index order until it has knum of them. The backward finds them again instead of storing them.
#include "core/soft_mask.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/bins.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class T, class P>
struct Scene {
  const P& p;
  SoftMaskRules<T> rules;

  explicit Scene(const P& params) : p(params), rules{T(params.sigmainv), T(params.boxlen), params.knum} {}

  Triangle<T> triangle(int64_t image, int64_t face) const {
    return gather_triangle(static_cast<const T*>(p.positions) + image * p.vertices * 4, p.face_indices + 3 * face);
  }
  void bin(Bins& bins, const dibr_launch& launch) const {
    bins.build(
        launch, [&](int64_t image) { return faces_of(p, image); },
        [&](int64_t image, int64_t face) {
          const PixelBox box = mask_box(triangle(image, face), rules.boxlen, p.width, p.height);
          return is_empty(box) ? kEmptyBox : pack_box(box, 1);
        });
  }
};

// One face's part in one pixel's mask.
template <class T>
struct Candidate {
  int32_t slot;  // into the tile's faces
  T probability;
  T product_before;  // of (1 - p) over the candidates before this one
  BoundaryPoint<T> point;
};

// The faces of one tile, and the search for those that take part in a pixel. One per thread, reused from tile to tile.
template <class T>
class TileFaces {
 public:
  template <class P>
  void load(const Scene<T, P>& scene, const Bins& bins, int64_t image, int64_t tile) {
    faces_.clear();
    indices_.clear();
    bins.for_each_face(image, tile, faces_of(scene.p, image), [&](int32_t face) {
      MaskFace<T> projected;
      if (project_mask_face(scene.triangle(image, face), scene.rules.boxlen, &projected)) {
        faces_.push_back(projected);
        indices_.push_back(face);
      }
      return true;
    });
  }

  bool empty() const { return faces_.empty(); }
  const MaskFace<T>& face(int32_t slot) const { return faces_[size_t(slot)]; }
  int32_t index(int32_t slot) const { return indices_[size_t(slot)]; }

  void select_row(T py) {
    row_.clear();
    for (size_t i = 0; i < faces_.size(); ++i) {
      if (faces_[i].y0 <= py && py < faces_[i].y1) row_.push_back({faces_[i].x0, faces_[i].x1, int32_t(i)});
    }
  }

  // Calls use(slot, probability, point) for the pixel's candidates in index order.
  template <class Use>
  void for_each_candidate(T px, T py, const SoftMaskRules<T>& rules, const Use& use) const {
    int64_t used = 0;
    for (const Span& span : row_) {
      if (!(span.x0 <= px && px < span.x1)) continue;
      const MaskFace<T>& f = faces_[size_t(span.slot)];
      const BoundaryPoint<T> point = nearest_boundary_point(f.x, f.y, px, py);
      use(span.slot, std::exp(-rules.sigmainv * point.distance2), point);
      if (++used == rules.knum) return;
    }
  }

 private:
  struct Span {
    T x0, x1;
    int32_t slot;
  };
  std::vector<MaskFace<T>> faces_;
  std::vector<int32_t> indices_;
  std::vector<Span> row_;  // the faces whose boxes reach the current row
};

template <class T>
void mask_tile(const Scene<T, dibr_soft_mask_params>& scene, const Bins& bins, int64_t image, int64_t tile) {
  static thread_local TileFaces<T> faces;
  const dibr_soft_mask_params& p = scene.p;
  const TileArea area = bins.area(tile);
  bool loaded = false;
  for (int64_t y = area.y0; y < area.y1; ++y) {
    bool selected = false;
    for (int64_t x = area.x0; x < area.x1; ++x) {
      const int64_t pixel = (image * p.height + y) * p.width + x;
      T& mask = static_cast<T*>(p.mask)[pixel];
      mask = T(1);
      if (p.face_index[pixel] >= 0) continue;
      if (!loaded) faces.load(scene, bins, image, tile);
      if (!selected) faces.select_row(pixel_y<T>(y, p.height));
      loaded = selected = true;
      T product = T(1);
      faces.for_each_candidate(pixel_x<T>(x, p.width), pixel_y<T>(y, p.height), scene.rules,
                               [&](int32_t, T probability, const BoundaryPoint<T>&) { product *= T(1) - probability; });
      mask = T(1) - product;
    }
  }
}

template <class T>
dibr_status forward(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("soft_mask", p, launch)) return status;
  if (const dibr_status status = check_face_ranges("soft_mask", p)) return status;
  if (const dibr_status status = check_face_index("soft_mask", p, launch)) return status;
  const Scene<T, dibr_soft_mask_params> scene(p);
  Arena arena(launch.workspace);
  Bins bins(p.batch, p.faces, p.height, p.width, arena);
  scene.bin(bins, launch);
  parallel_for(launch, p.batch * bins.tiles(),
               [&](int64_t i) { mask_tile<T>(scene, bins, i / bins.tiles(), i % bins.tiles()); });
  return DIBR_OK;
}

// Adds one pixel's gradient. With m = 1 - prod_j (1 - p_j):
//     dm / d(d_k^2) = -sigmainv * p_k * prod_{j != k} (1 - p_j)
// and the product without k is the one before it times the one after it: no division, so p_k = 1 is safe.
template <class T>
void add_pixel_gradient(const Scene<T, dibr_soft_mask_backward_params>& scene, const TileFaces<T>& faces, int64_t image,
                        T px, T py, T grad_mask, std::vector<Candidate<T>>& candidates, T* sum) {
  candidates.clear();
  T product = T(1);
  faces.for_each_candidate(px, py, scene.rules, [&](int32_t slot, T probability, const BoundaryPoint<T>& point) {
    candidates.push_back({slot, probability, product, point});
    product *= T(1) - probability;
  });
  const T* positions = static_cast<const T*>(scene.p.positions) + image * scene.p.vertices * 4;
  T product_after = T(1);
  for (auto c = candidates.rbegin(); c != candidates.rend(); ++c) {
    const T grad_distance2 = -scene.rules.sigmainv * c->probability * (c->product_before * product_after) * grad_mask;
    product_after *= T(1) - c->probability;
    for (const int k : {c->point.a, c->point.b}) {
      const int64_t vertex = scene.p.face_indices[3 * int64_t(faces.index(c->slot)) + k];
      mask_vertex_gradient(faces.face(c->slot), c->point, k, positions[4 * vertex + 3], grad_distance2,
                           sum + 4 * vertex);
    }
  }
}

template <class T>
void tile_gradient(const Scene<T, dibr_soft_mask_backward_params>& scene, const Bins& bins, int64_t image, int64_t tile,
                   T* sum) {
  static thread_local TileFaces<T> faces;
  static thread_local std::vector<Candidate<T>> candidates;
  const dibr_soft_mask_backward_params& p = scene.p;
  const TileArea area = bins.area(tile);
  bool loaded = false;
  for (int64_t y = area.y0; y < area.y1; ++y) {
    bool selected = false;
    for (int64_t x = area.x0; x < area.x1; ++x) {
      const int64_t pixel = (image * p.height + y) * p.width + x;
      const T grad = static_cast<const T*>(p.grad_mask)[pixel];
      if (p.face_index[pixel] >= 0 || grad == T(0)) continue;
      if (!loaded) faces.load(scene, bins, image, tile);
      if (faces.empty()) return;
      if (!selected) faces.select_row(pixel_y<T>(y, p.height));
      loaded = selected = true;
      add_pixel_gradient(scene, faces, image, pixel_x<T>(x, p.width), pixel_y<T>(y, p.height), grad, candidates, sum);
    }
  }
}

template <class T>
Scatter<T> position_scatter(const dibr_soft_mask_backward_params& p, const Bins& bins, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, bins.tiles(), p.batch * p.height * p.width * 4, arena);
}

template <class T>
dibr_status backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("soft_mask_backward", p, launch)) return status;
  if (const dibr_status status = check_face_ranges("soft_mask_backward", p)) return status;
  if (const dibr_status status = check_face_index("soft_mask_backward", p, launch)) return status;
  const Scene<T, dibr_soft_mask_backward_params> scene(p);
  Arena arena(launch.workspace);
  Bins bins(p.batch, p.faces, p.height, p.width, arena);
  const Scatter<T> scatter = position_scatter<T>(p, bins, arena);
  scene.bin(bins, launch);
  scatter.run(launch, static_cast<T*>(p.grad_positions),
              [&](int64_t image, int64_t tile, T* sum) { tile_gradient<T>(scene, bins, image, tile, sum); });
  return DIBR_OK;
}

}  // namespace

dibr_status soft_mask_workspace(const dibr_soft_mask_params& p, Arena& arena) {
  Bins(p.batch, p.faces, p.height, p.width, arena);
  return DIBR_OK;
}
dibr_status soft_mask(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status soft_mask_backward_workspace(const dibr_soft_mask_backward_params& p, Arena& arena) {
  const Bins bins(p.batch, p.faces, p.height, p.width, arena);
  dispatch(p.dtype, [&](auto t) { position_scatter<decltype(t)>(p, bins, arena); });
  return DIBR_OK;
}
dibr_status soft_mask_backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
