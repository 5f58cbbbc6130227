// Interpolate on the GPU: one thread per output element; the backward sums runs of pixels that show the same face.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/interpolate.h"
#include "cuda/mesh.cuh"
#include "cuda/reduce.cuh"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

// Element (vertex k of the face, channel 0) of the attributes that a pixel's image uses.
template <class P>
__device__ int64_t attribute_row(const P& p, int64_t image, int64_t face, int k) {
  const int64_t source = p.attribute_batch == 1 ? 0 : image;
  return (source * p.vertices + p.face_indices[3 * face + k]) * p.channels;
}

template <class S>
__global__ void __launch_bounds__(kBlock) interpolate_kernel(dibr_interpolate_params p) {
  using T = typename ComputeOf<S>::Type;
  const S* attributes = static_cast<const S*>(p.attributes);
  const int64_t elements = p.batch * p.height * p.width * p.channels;
  for (int64_t i = thread_index(); i < elements; i += thread_stride()) {
    const int64_t pixel = i / p.channels, channel = i % p.channels, image = pixel / (p.height * p.width);
    const int32_t face = face_at(p, pixel);
    T value = T(0);
    if (face >= 0) {
      value = interpolated(static_cast<const T*>(p.barycentrics) + 3 * pixel,
                           attributes[attribute_row(p, image, face, 0) + channel],
                           attributes[attribute_row(p, image, face, 1) + channel],
                           attributes[attribute_row(p, image, face, 2) + channel]);
    }
    store(value, static_cast<S*>(p.output) + i);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock) barycentric_gradient_kernel(dibr_interpolate_backward_params p) {
  const T* attributes = static_cast<const T*>(p.attributes);
  const T* grad_output = static_cast<const T*>(p.grad_output);
  const int64_t elements = p.batch * p.height * p.width * 3;
  for (int64_t i = thread_index(); i < elements; i += thread_stride()) {
    const int64_t pixel = i / 3, image = pixel / (p.height * p.width);
    const int32_t face = face_at(p, pixel);
    T sum = T(0);
    if (face >= 0) {
      const T* row = attributes + attribute_row(p, image, face, int(i % 3));
      for (int64_t c = 0; c < p.channels; ++c) sum += grad_output[pixel * p.channels + c] * row[c];
    }
    static_cast<T*>(p.grad_barycentrics)[i] = sum;
  }
}

template <class T, class Sink>
__global__ void __launch_bounds__(kBlock) attribute_gradient_kernel(dibr_interpolate_backward_params p, Sink sink) {
  const int64_t pixels = p.batch * p.height * p.width;
  for (int64_t base = int64_t(blockIdx.x) * kBlock; base < pixels; base += thread_stride()) {
    const int64_t pixel = base + threadIdx.x, image = pixel / (p.height * p.width);
    const int32_t face = pixel < pixels ? face_at(p, pixel) : -1;
    const WarpRuns runs(face < 0 ? -1 : image * p.faces + face);
    const bool adds = face >= 0 && runs.is_head();
    for (int k = 0; k < 3; ++k) {
      const T weight = face < 0 ? T(0) : static_cast<const T*>(p.barycentrics)[3 * pixel + k];
      const int64_t row = face < 0 ? 0 : attribute_row(p, image, face, k);
      for (int64_t c = 0; c < p.channels; ++c) {
        const T grad = face < 0 ? T(0) : static_cast<const T*>(p.grad_output)[pixel * p.channels + c];
        const T sum = runs.sum(weight * grad);
        if (adds) sink.add(row + c, sum);
      }
    }
  }
}

template <class S>
dibr_status forward(const dibr_interpolate_params& p, const dibr_launch& launch) {
  const unsigned grid = grid_for(p.batch * p.height * p.width * p.channels);
  if (grid > 0) DIBR_LAUNCH((interpolate_kernel<S>), grid, kBlock, 0, stream_of(launch), p);
  return launched("interpolate");
}

template <class T>
ScatterSpace<T> attribute_space(const dibr_interpolate_backward_params& p, Arena& arena) {
  return ScatterSpace<T>(p.attribute_batch * p.vertices * p.channels, p.batch * p.height * p.width * 3,
                         p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  const int64_t pixels = p.batch * p.height * p.width;
  if (p.grad_barycentrics != nullptr && pixels > 0) {
    DIBR_LAUNCH((barycentric_gradient_kernel<T>), grid_for(pixels * 3), kBlock, 0, stream_of(launch), p);
  }
  if (p.grad_attributes != nullptr) {
    Arena arena(launch.workspace);
    scatter_add(attribute_space<T>(p, arena), static_cast<T*>(p.grad_attributes), p.deterministic != 0,
                stream_of(launch), [&](auto sink) {
                  if (pixels == 0) return;
                  DIBR_LAUNCH((attribute_gradient_kernel<T, decltype(sink)>), grid_for(pixels), kBlock, 0,
                              stream_of(launch), p, sink);
                });
  }
  return launched("interpolate_backward");
}

}  // namespace

dibr_status interpolate_workspace(const dibr_interpolate_params&, Arena&) { return DIBR_OK; }
dibr_status interpolate(const dibr_interpolate_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) { return forward<decltype(s)>(p, launch); });
}

dibr_status interpolate_backward_workspace(const dibr_interpolate_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { attribute_space<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status interpolate_backward(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
