// Texture on the GPU: one thread per pixel, all channels; texel gradients are scattered.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/texture.h"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

template <class P>
__device__ int64_t texture_offset(const P& p, int64_t pixel) {
  const int64_t source = p.texture_batch == 1 ? 0 : pixel / (p.height * p.width);
  return source * p.channels * p.texture_height * p.texture_width;
}

template <class T, class P>
__device__ bool footprint_at(const P& p, int64_t pixel, Footprint<T>* out) {
  const T* uv = static_cast<const T*>(p.uv) + 2 * pixel;
  if (!is_finite_uv(uv[0], uv[1])) return false;
  *out = texture_footprint(uv[0], uv[1], p.texture_height, p.texture_width, p.filter, p.wrap);
  return true;
}

template <class S>
__global__ void __launch_bounds__(kBlock) texture_kernel(dibr_texture_params p) {
  using T = typename ComputeOf<S>::Type;
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint = {};
    const bool samples = footprint_at(p, pixel, &footprint);
    const S* texture = static_cast<const S*>(p.texture) + texture_offset(p, pixel);
    S* out = static_cast<S*>(p.output) + pixel * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) {
      store(samples ? sample_plane(footprint, texture + c * plane) : T(0), out + c);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock) uv_gradient_kernel(dibr_texture_backward_params p) {
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint;
    T grad_u = T(0), grad_v = T(0);
    if (p.filter == DIBR_FILTER_BILINEAR && footprint_at(p, pixel, &footprint)) {
      const T* texture = static_cast<const T*>(p.texture) + texture_offset(p, pixel);
      const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) {
        T slope_x, slope_y;
        plane_gradient(footprint, texture + c * plane, &slope_x, &slope_y);
        grad_u += grad[c] * slope_x * T(p.texture_width);
        grad_v += grad[c] * slope_y * T(p.texture_height);
      }
    }
    static_cast<T*>(p.grad_uv)[2 * pixel] = grad_u;
    static_cast<T*>(p.grad_uv)[2 * pixel + 1] = grad_v;
  }
}

template <class T, class Sink>
__global__ void __launch_bounds__(kBlock) texel_gradient_kernel(dibr_texture_backward_params p, Sink sink) {
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint;
    if (!footprint_at(p, pixel, &footprint)) continue;
    const int64_t offset = texture_offset(p, pixel);
    const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int k = 0; k < 4; ++k) {
        const T share = footprint.weight[k] * grad[c];
        if (share != T(0)) sink.add(offset + c * plane + footprint.offset[k], share);
      }
    }
  }
}

template <class S>
dibr_status forward(const dibr_texture_params& p, const dibr_launch& launch) {
  const unsigned grid = grid_for(p.batch * p.height * p.width);
  if (grid > 0) DIBR_LAUNCH((texture_kernel<S>), grid, kBlock, 0, stream_of(launch), p);
  return launched("texture");
}

template <class T>
ScatterSpace<T> texel_space(const dibr_texture_backward_params& p, Arena& arena) {
  return ScatterSpace<T>(p.texture_batch * p.channels * p.texture_height * p.texture_width,
                         p.batch * p.height * p.width * 4, p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const unsigned grid = grid_for(p.batch * p.height * p.width);
  if (p.grad_uv != nullptr && grid > 0) {
    DIBR_LAUNCH((uv_gradient_kernel<T>), grid, kBlock, 0, stream_of(launch), p);
  }
  if (p.grad_texture != nullptr) {
    Arena arena(launch.workspace);
    scatter_add(texel_space<T>(p, arena), static_cast<T*>(p.grad_texture), p.deterministic != 0, stream_of(launch),
                [&](auto sink) {
                  if (grid == 0) return;
                  DIBR_LAUNCH((texel_gradient_kernel<T, decltype(sink)>), grid, kBlock, 0, stream_of(launch), p, sink);
                });
  }
  return launched("texture_backward");
}

}  // namespace

dibr_status texture_workspace(const dibr_texture_params&, Arena&) { return DIBR_OK; }
dibr_status texture(const dibr_texture_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) { return forward<decltype(s)>(p, launch); });
}

dibr_status texture_backward_workspace(const dibr_texture_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { texel_space<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status texture_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
