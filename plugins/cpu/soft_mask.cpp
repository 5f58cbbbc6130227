// SoftMask on the CPU: faces are binned to tiles by their enlarged boxes; a pixel looks at the faces of its tile's row
// in index order until it has knum of them. The backward finds them again instead of storing them.
#include "core/soft_mask.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/scatter.h"
#include "cpu/soft_mask_tile.h"

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
  MaskImage<T> image(int64_t i) const {
    return {static_cast<const T*>(p.positions) + i * p.vertices * 4, p.face_indices, p.height, p.width, rules};
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

// Indices of the faces near a tile, ascending. The vector is the thread's own.
template <class T, class P>
const std::vector<int32_t>& faces_near(const Scene<T, P>& scene, const Bins& bins, int64_t image, int64_t tile) {
  static thread_local std::vector<int32_t> faces;
  faces.clear();
  bins.for_each_face(image, tile, faces_of(scene.p, image), [&](int32_t face) {
    faces.push_back(face);
    return true;
  });
  return faces;
}

template <class T>
void mask_tile_of(const Scene<T, dibr_soft_mask_params>& scene, const Bins& bins, int64_t image, int64_t tile) {
  const dibr_soft_mask_params& p = scene.p;
  const TileArea area = bins.area(tile);
  const int64_t first = (image * p.height + area.y0) * p.width + area.x0;
  const std::vector<int32_t>& faces = faces_near(scene, bins, image, tile);
  const MaskPixels<T, int32_t> pixels = {area, p.face_index + first, p.width, static_cast<T*>(p.mask) + first, p.width};
  mask_tile(scene.image(image), pixels, faces.data(), int64_t(faces.size()));
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
               [&](int64_t i) { mask_tile_of<T>(scene, bins, i / bins.tiles(), i % bins.tiles()); });
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
      if (!loaded) {
        const std::vector<int32_t>& near = faces_near(scene, bins, image, tile);
        faces.load(scene.image(image), near.data(), int64_t(near.size()));
      }
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
