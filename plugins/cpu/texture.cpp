// Texture on the CPU: one pass over the rows; the backward scatters to texels through private arrays.
#include "core/texture.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class T, class P>
const T* texture_of(const P& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  return static_cast<const T*>(p.texture) + source * p.channels * p.texture_height * p.texture_width;
}

// Calls sample(pixel, footprint) for each pixel of a row with a finite uv and miss(pixel) for the others.
template <class T, class P, class Sample, class Miss>
void for_each_sample(const P& p, int64_t row, const Sample& sample, const Miss& miss) {
  for (int64_t pixel = row * p.width; pixel < (row + 1) * p.width; ++pixel) {
    const T* uv = static_cast<const T*>(p.uv) + 2 * pixel;
    if (!is_finite_uv(uv[0], uv[1])) {
      miss(pixel);
      continue;
    }
    sample(pixel, texture_footprint(uv[0], uv[1], p.texture_height, p.texture_width, p.filter, p.wrap));
  }
}

template <class S>
dibr_status forward(const dibr_texture_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  const int64_t plane = p.texture_height * p.texture_width;
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const S* texture = texture_of<S>(p, row / p.height);
    for_each_sample<T>(
        p, row,
        [&](int64_t pixel, const Footprint<T>& footprint) {
          S* out = static_cast<S*>(p.output) + pixel * p.channels;
          for (int64_t c = 0; c < p.channels; ++c) store(sample_plane(footprint, texture + c * plane), out + c);
        },
        [&](int64_t pixel) { std::fill_n(static_cast<S*>(p.output) + pixel * p.channels, p.channels, S{}); });
  });
  return DIBR_OK;
}

template <class T>
void uv_gradient(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const int64_t plane = p.texture_height * p.texture_width;
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const T* texture = texture_of<T>(p, row / p.height);
    T* out = static_cast<T*>(p.grad_uv);
    std::fill_n(out + 2 * row * p.width, 2 * p.width, T(0));
    if (p.filter == DIBR_FILTER_NEAREST) return;
    for_each_sample<T>(
        p, row,
        [&](int64_t pixel, const Footprint<T>& footprint) {
          const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
          for (int64_t c = 0; c < p.channels; ++c) {
            T slope_x, slope_y;
            plane_gradient(footprint, texture + c * plane, &slope_x, &slope_y);
            out[2 * pixel] += grad[c] * slope_x * T(p.texture_width);
            out[2 * pixel + 1] += grad[c] * slope_y * T(p.texture_height);
          }
        },
        [](int64_t) {});
  });
}

// A shared texture collects from the rows of every image, a batched one from those of its own.
template <class T>
Scatter<T> texel_scatter(const dibr_texture_backward_params& p, Arena& arena) {
  const int64_t rows = p.texture_batch == p.batch ? p.height : p.batch * p.height;
  const int64_t texels = p.channels * p.texture_height * p.texture_width;
  return Scatter<T>(p.texture_batch, texels, rows, p.batch * p.height * p.width * p.channels, arena);
}

template <class T>
void texel_gradient(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const int64_t plane = p.texture_height * p.texture_width;
  Arena arena(launch.workspace);
  texel_scatter<T>(p, arena).run(launch, static_cast<T*>(p.grad_texture), [&](int64_t group, int64_t unit, T* sum) {
    for_each_sample<T>(
        p, group * p.height + unit,
        [&](int64_t pixel, const Footprint<T>& footprint) {
          const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
          for (int64_t c = 0; c < p.channels; ++c) {
            for (int k = 0; k < 4; ++k) sum[c * plane + footprint.offset[k]] += footprint.weight[k] * grad[c];
          }
        },
        [](int64_t) {});
  });
}

template <class T>
dibr_status backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  if (p.grad_uv != nullptr) uv_gradient<T>(p, launch);
  if (p.grad_texture != nullptr) texel_gradient<T>(p, launch);
  return DIBR_OK;
}

}  // namespace

dibr_status texture_workspace(const dibr_texture_params&, Arena&) { return DIBR_OK; }
dibr_status texture(const dibr_texture_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status texture_backward_workspace(const dibr_texture_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { texel_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status texture_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
