// SoftMask on the GPU: one block per tile, one thread per pixel, faces staged in shared memory in index order.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cuda/reduce.cuh"
#include "cuda/scatter.cuh"
#include "cuda/soft_mask_tile.cuh"

namespace dibr::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kTilePixels) soft_mask_kernel(Bins bins, dibr_soft_mask_params p) {
  __shared__ StagedMaskFace<T> staged[kStagedMaskFaces];
  for (int64_t index = blockIdx.x; index < bins.batch * bins.tiles(); index += gridDim.x) {
    const Tile tile = tile_at(bins, p, index);
    const TilePixel<T> at(bins, tile);
    const bool open = at.inside && p.face_index[at.index] < 0;
    const T mask = tile_mask(p, bins, tile, at, open, staged);
    if (at.inside) static_cast<T*>(p.mask)[at.index] = mask;
  }
}

// prod_{j != k} (1 - p_j) from one pass over all factors: those that are exactly 0 are counted apart, so that leaving
// one out never divides by 0 and p_k = 1 is safe.
template <class T>
struct ProductWithout {
  T of_nonzero = T(1);
  int zeros = 0;

  __device__ void include(T factor) {
    if (factor == T(0)) {
      ++zeros;
    } else {
      of_nonzero *= factor;
    }
  }
  __device__ T operator()(T factor) const {
    if (factor == T(0)) return zeros == 1 ? of_nonzero : T(0);
    return zeros == 0 ? of_nonzero / factor : T(0);
  }
};

template <class T, class Sink>
__global__ void __launch_bounds__(kTilePixels)
    soft_mask_backward_kernel(Bins bins, dibr_soft_mask_backward_params p, Sink sink) {
  __shared__ StagedMaskFace<T> staged[kStagedMaskFaces];
  const SoftMaskRules<T> rules(p.sigmainv, p.boxlen, p.knum);
  for (int64_t index = blockIdx.x; index < bins.batch * bins.tiles(); index += gridDim.x) {
    const Tile tile = tile_at(bins, p, index);
    const TilePixel<T> at(bins, tile);
    const T grad_mask = at.inside ? static_cast<const T*>(p.grad_mask)[at.index] : T(0);
    const bool open = at.inside && p.face_index[at.index] < 0 && grad_mask != T(0);
    ProductWithout<T> product;
    for_each_staged(p, bins, tile, at, open, staged, [&](const StagedMaskFace<T>& s, bool takes) {
      if (!takes) return;
      const T distance2 = nearest_edge(s.face, at.px, at.py).distance2;
      product.include(T(1) - mask_probability(rules, distance2));
    });
    for_each_staged(p, bins, tile, at, open, staged, [&](const StagedMaskFace<T>& s, bool takes) {
      if (__ballot_sync(kFullWarp, takes) == 0) return;
      T gradient[3][4] = {};
      if (takes) {
        const BoundaryPoint<T> point(s.face, nearest_edge(s.face, at.px, at.py).is, at.px, at.py);
        const T probability = mask_probability(rules, point.distance2);
        const T pull = T(2) * rules.sigmainv * probability * product(T(1) - probability) * grad_mask;
        T shares[3];
        point.shares(shares);
        for (int k = 0; k < 3; ++k) {
          mask_vertex_gradient(pull * point.dx * shares[k], pull * point.dy * shares[k], s.face.x[k], s.face.y[k],
                               s.w[k], gradient[k]);
        }
      }
      for (int k = 0; k < 3; ++k) {
        for (const int c : {0, 1, 3}) {
          const T sum = warp_sum(gradient[k][c]);
          const int64_t vertex = tile.image * p.vertices + s.vertices[k];
          if (lane_index() == 0 && sum != T(0)) sink.add(4 * vertex + c, sum);
        }
      }
    });
  }
}

template <class T>
dibr_status forward(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Bins bins(p.batch, p.faces, p.height, p.width, arena);
  if (p.batch == 0) return DIBR_OK;
  build_bins(bins, p, MaskBoxOf<T, dibr_soft_mask_params>{}, stream_of(launch));
  DIBR_LAUNCH((soft_mask_kernel<T>), grid_for(p.batch * bins.tiles(), 1), kTilePixels, 0, stream_of(launch), bins, p);
  return launched("soft_mask");
}

template <class T>
ScatterSpace<T> position_space(const dibr_soft_mask_backward_params& p, Arena& arena) {
  const int64_t per_pixel = 3 * (p.knum < p.faces ? p.knum : p.faces);
  return ScatterSpace<T>(p.batch * p.vertices * 4, p.height * p.width * per_pixel, p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Bins bins(p.batch, p.faces, p.height, p.width, arena);
  const ScatterSpace<T> space = position_space<T>(p, arena);
  if (p.batch > 0) build_bins(bins, p, MaskBoxOf<T, dibr_soft_mask_backward_params>{}, stream_of(launch));
  scatter_add(space, static_cast<T*>(p.grad_positions), p.deterministic != 0, stream_of(launch), [&](auto sink) {
    const unsigned grid = grid_for(p.batch * bins.tiles(), 1);
    if (grid == 0) return;
    DIBR_LAUNCH((soft_mask_backward_kernel<T, decltype(sink)>), grid, kTilePixels, 0, stream_of(launch), bins, p, sink);
  });
  return launched("soft_mask_backward");
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
  Bins(p.batch, p.faces, p.height, p.width, arena);
  dispatch(p.dtype, [&](auto t) { position_space<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status soft_mask_backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
