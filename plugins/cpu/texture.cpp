// Texture on the CPU: one pass over the rows; the backward scatters to texels through private arrays. Trilinear builds
// the mip chain first, and its backward gathers the gradients of the levels down to the texture.
#include "core/texture.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/mipmap.h"
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
  if (p.grad_mip_level != nullptr) {
    std::fill_n(static_cast<T*>(p.grad_mip_level), p.batch * p.height * p.width, T(0));
  }
  return DIBR_OK;
}

// --- Trilinear. A row of a level is a unit of work.

template <class P>
MipChain chain_of(const P& p) {
  return make_mip_chain(p.texture_height, p.texture_width);
}

// Calls row(image and channel, row of `level`) for all of them.
template <class P, class Row>
void for_each_texel_row(const P& p, const MipChain& chain, int level, const dibr_launch& launch, const Row& row) {
  const int64_t rows = chain.height_at(level);
  parallel_for(launch, p.texture_batch * p.channels * rows, [&](int64_t i) { row(i / rows, i % rows); });
}

template <class T, class P>
T* take_reduced(const P& p, const MipChain& chain, Arena& arena) {
  return arena.take<T>(p.texture_batch * p.channels * chain.reduced_texels());
}

// Fills the levels below the textures, [A, levels, C, h, w].
template <class T, class S, class P>
void reduce_textures(const P& p, const MipChain& chain, const dibr_launch& launch, T* reduced) {
  const auto plane_of = [&](int level, int64_t plane) {
    const int64_t image = plane / p.channels, channel = plane % p.channels;
    return reduced + p.channels * (image * chain.reduced_texels() + chain.offset[level] - chain.offset[1]) +
           channel * chain.texels_at(level);
  };
  for (int level = 0; level + 1 < chain.levels; ++level) {
    const int64_t width = chain.width_at(level + 1);
    for_each_texel_row(p, chain, level + 1, launch, [&](int64_t plane, int64_t row) {
      T* out = plane_of(level + 1, plane);
      const S* texture = static_cast<const S*>(p.texture) + plane * chain.texels_at(0);
      for (int64_t texel = row * width; texel < (row + 1) * width; ++texel) {
        out[texel] = level == 0 ? reduced_texel<T>(chain, level, texture, texel)
                                : reduced_texel<T>(chain, level, plane_of(level, plane), texel);
      }
    });
  }
}

template <class T, class S, class P>
MipTexture<T, S> mip_texture(const P& p, const MipChain& chain, const T* reduced, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  return {texture_of<S>(p, image), reduced + source * p.channels * chain.reduced_texels(), p.channels};
}

// Calls sample(pixel, mip sample) for each pixel of a row whose uv is finite and whose level is a number, else miss.
template <class T, class P, class Sample, class Miss>
void for_each_mip_sample(const P& p, const MipChain& chain, int64_t row, const Sample& sample, const Miss& miss) {
  for (int64_t pixel = row * p.width; pixel < (row + 1) * p.width; ++pixel) {
    const T* uv = static_cast<const T*>(p.uv) + 2 * pixel;
    const T mip_level = static_cast<const T*>(p.mip_level)[pixel];
    if (is_finite_sample(uv[0], uv[1], mip_level)) {
      sample(pixel, mip_sample(chain, uv[0], uv[1], mip_level, p.wrap));
    } else {
      miss(pixel);
    }
  }
}

template <class S>
dibr_status trilinear_forward(const dibr_texture_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  const MipChain chain = chain_of(p);
  Arena arena(launch.workspace);
  T* reduced = take_reduced<T>(p, chain, arena);
  reduce_textures<T, S>(p, chain, launch, reduced);
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const auto texture = mip_texture<T, S>(p, chain, reduced, row / p.height);
    S* out = static_cast<S*>(p.output);
    for_each_mip_sample<T>(
        p, chain, row,
        [&](int64_t pixel, const MipSample<T>& sample) {
          for (int64_t c = 0; c < p.channels; ++c) {
            store(texture.value(chain, sample, c), out + pixel * p.channels + c);
          }
        },
        [&](int64_t pixel) { std::fill_n(out + pixel * p.channels, p.channels, S{}); });
  });
  return DIBR_OK;
}

// Gradients of uv and mip level.
template <class T>
void lookup_gradient(const dibr_texture_backward_params& p, const MipChain& chain, const T* reduced,
                     const dibr_launch& launch) {
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const auto texture = mip_texture<T, T>(p, chain, reduced, row / p.height);
    const auto write = [&](int64_t pixel, T grad_u, T grad_v, T grad_level) {
      T* grad_uv = static_cast<T*>(p.grad_uv);
      if (grad_uv != nullptr) grad_uv[2 * pixel] = grad_u, grad_uv[2 * pixel + 1] = grad_v;
      if (p.grad_mip_level != nullptr) static_cast<T*>(p.grad_mip_level)[pixel] = grad_level;
    };
    for_each_mip_sample<T>(
        p, chain, row,
        [&](int64_t pixel, const MipSample<T>& sample) {
          const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
          T grad_u = T(0), grad_v = T(0), grad_level = T(0);
          for (int64_t c = 0; c < p.channels; ++c) {
            for (int part = 0; part < sample.count(); ++part) {
              texture.add_gradient(chain, sample.first + part, sample.footprint[part], c, grad[c] * sample.weight(part),
                                   &grad_u, &grad_v);
            }
            if (sample.varies) grad_level += grad[c] * texture.slope(chain, sample, c);
          }
          write(pixel, grad_u, grad_v, grad_level);
        },
        [&](int64_t pixel) { write(pixel, T(0), T(0), T(0)); });
  });
}

// Gradients of the texels of every level, [A, levels, C, h, w].
template <class T>
Scatter<T> level_scatter(const dibr_texture_backward_params& p, const MipChain& chain, Arena& arena) {
  const int64_t rows = p.texture_batch == p.batch ? p.height : p.batch * p.height;
  return Scatter<T>(p.texture_batch, p.channels * chain.texels(), rows, p.batch * p.height * p.width * p.channels,
                    arena);
}

template <class T>
T* take_level_gradients(const dibr_texture_backward_params& p, const MipChain& chain, Arena& arena) {
  return arena.take<T>(p.texture_batch * p.channels * chain.texels());
}

// From the smallest level on: what a level's texels gathered is shared out to those of the level before.
template <class T>
void gather_levels(const dibr_texture_backward_params& p, const MipChain& chain, T* gradients,
                   const dibr_launch& launch) {
  const auto plane_of = [&](int level, int64_t plane) {
    const int64_t image = plane / p.channels, channel = plane % p.channels;
    return gradients + p.channels * (image * chain.texels() + chain.offset[level]) + channel * chain.texels_at(level);
  };
  for (int level = chain.levels - 1; level >= 0; --level) {
    const int64_t width = chain.width_at(level);
    for_each_texel_row(p, chain, level, launch, [&](int64_t plane, int64_t row) {
      T* own = plane_of(level, plane);
      T* out = level == 0 ? static_cast<T*>(p.grad_texture) + plane * chain.texels_at(0) : own;
      for (int64_t texel = row * width; texel < (row + 1) * width; ++texel) {
        const bool last = level + 1 == chain.levels;
        out[texel] = own[texel] + (last ? T(0) : reduced_gradient<T>(chain, level, plane_of(level + 1, plane), texel));
      }
    });
  }
}

template <class T>
dibr_status trilinear_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const MipChain chain = chain_of(p);
  Arena arena(launch.workspace);
  T* reduced = take_reduced<T>(p, chain, arena);
  T* gradients = take_level_gradients<T>(p, chain, arena);
  const Scatter<T> scatter = level_scatter<T>(p, chain, arena);
  if (p.grad_uv != nullptr || p.grad_mip_level != nullptr) {
    reduce_textures<T, T>(p, chain, launch, reduced);
    lookup_gradient<T>(p, chain, reduced, launch);
  }
  if (p.grad_texture == nullptr) return DIBR_OK;
  scatter.run(launch, gradients, [&](int64_t group, int64_t unit, T* sum) {
    for_each_mip_sample<T>(
        p, chain, group * p.height + unit,
        [&](int64_t pixel, const MipSample<T>& sample) {
          const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
          for (int part = 0; part < sample.count(); ++part) {
            const int level = sample.first + part;
            T* texels = sum + p.channels * chain.offset[level];
            for (int64_t c = 0; c < p.channels; ++c, texels += chain.texels_at(level)) {
              const Footprint<T>& footprint = sample.footprint[part];
              for (int k = 0; k < 4; ++k) {
                texels[footprint.offset[k]] += sample.weight(part) * footprint.weight[k] * grad[c];
              }
            }
          }
        },
        [](int64_t) {});
  });
  gather_levels<T>(p, chain, gradients, launch);
  return DIBR_OK;
}

}  // namespace

dibr_status texture_workspace(const dibr_texture_params& p, Arena& arena) {
  if (p.filter != DIBR_FILTER_TRILINEAR) return DIBR_OK;
  return dispatch_storage(p.dtype, [&](auto s) {
    take_reduced<typename ComputeOf<decltype(s)>::Type>(p, chain_of(p), arena);
    return DIBR_OK;
  });
}
dibr_status texture(const dibr_texture_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    return p.filter == DIBR_FILTER_TRILINEAR ? trilinear_forward<S>(p, launch) : forward<S>(p, launch);
  });
}

dibr_status texture_backward_workspace(const dibr_texture_backward_params& p, Arena& arena) {
  return dispatch(p.dtype, [&](auto t) {
    using T = decltype(t);
    if (p.filter == DIBR_FILTER_TRILINEAR) {
      const MipChain chain = chain_of(p);
      take_reduced<T>(p, chain, arena);
      take_level_gradients<T>(p, chain, arena);
      level_scatter<T>(p, chain, arena);
    } else {
      texel_scatter<T>(p, arena);
    }
    return DIBR_OK;
  });
}
dibr_status texture_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) {
    using T = decltype(t);
    return p.filter == DIBR_FILTER_TRILINEAR ? trilinear_backward<T>(p, launch) : backward<T>(p, launch);
  });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
