// Texture on the CPU: one pass over the rows; the backward scatters to texels through private arrays. Trilinear builds
// the mip chain first, and its backward gathers the gradients of the levels down to the texture.
#include "core/texture.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/mipmap.h"
#include "cpu/footprints.h"
#include "cpu/scatter.h"
#include "cpu/sparse_scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class T, class P>
const T* texture_of(const P& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  return static_cast<const T*>(p.texture) + source * p.channels * p.texture_height * p.texture_width;
}

template <class S, class P>
SampledTexture<S> sampled_texture(const P& p, int64_t image) {
  return {texture_of<S>(p, image), p.channels, int32_t(p.texture_height), int32_t(p.texture_width), p.filter, p.wrap};
}

// Calls body(first pixel, columns, u, v) for the short rows that a row consists of.
template <class T, class P, class Body>
void for_each_short_row(const P& p, int64_t row, const Body& body) {
  for (int64_t x = 0; x < p.width; x += kRowPixels) {
    const int64_t pixel = row * p.width + x;
    const int columns = int(std::min<int64_t>(p.width - x, kRowPixels));
    Channels<T> uv;
    load_few<2>(static_cast<const T*>(p.uv) + 2 * pixel, columns, 2, uv);
    body(pixel, columns, uv[0], uv[1]);
  }
}

template <class S>
dibr_status forward(const dibr_texture_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const SampledTexture<S> texture = sampled_texture<S>(p, row / p.height);
    for_each_short_row<T>(p, row, [&](int64_t pixel, int columns, T* u, T* v) {
      sample_row(texture, columns, u, v, static_cast<S*>(p.output) + pixel * p.channels);
    });
  });
  return DIBR_OK;
}

// The texels' gradients while they are summed: vectors of kWidth channels, so that a texel is one of them, those of the
// first kWidth channels of all texels first.
template <class T, int kWidth>
class TexelSums {
 public:
  explicit TexelSums(const dibr_texture_backward_params& p) : p_(p) {}

  SparseScatter<T, kWidth> scatter(Arena& arena) const {
    // A shared texture collects from the rows of every image, a batched one from those of its own.
    const int64_t rows = p_.texture_batch == p_.batch ? p_.height : p_.batch * p_.height;
    const int64_t runs = Scatter<T>::runs_within(p_.texture_batch, p_.channels * texels(), rows,
                                                 p_.batch * p_.height * p_.width * p_.channels);
    return {p_.texture_batch, (p_.channels + kWidth - 1) / kWidth * stride(), rows, runs, arena};
  }

  // Adds the share of a short row of pixels.
  void add(const Footprints<T>& footprints, const T* grad, const TouchedVectors<T, kWidth>& sums) const {
    using Vector = Lanes<T, kWidth>;
    T weights[4][kRowPixels];
    for (int i = 0; i < footprints.samples(); i += Footprints<T>::kAtOnce) {
      const auto w = footprints.weights(i);
      for (int k = 0; k < 4; ++k) w.of[k].store(weights[k] + i);
    }
    for (int64_t c = 0; c < p_.channels; c += kWidth, grad += kWidth) {
      const int64_t first = c / kWidth * stride();
      const int count = int(std::min<int64_t>(p_.channels - c, kWidth));
      for (int i = 0; i < footprints.samples(); ++i) {
        if (!footprints.is_finite(i)) continue;
        T numbers[kWidth] = {};
        for (int j = 0; j < count; ++j) numbers[j] = grad[i * p_.channels + j];
        const Vector of_pixel = Vector::load(numbers);
        if (p_.filter == DIBR_FILTER_NEAREST) {  // the same texel four times, with weights 1, 0, 0 and 0
          T* sum = sums[first + footprints.offset(0, i)];
          (Vector::load(sum) + of_pixel + Vector(T(0)) * of_pixel).store(sum);
          continue;
        }
        for (int k = 0; k < 4; ++k) {
          T* sum = sums[first + footprints.offset(k, i)];
          (Vector::load(sum) + Vector(weights[k][i]) * of_pixel).store(sum);
        }
      }
    }
  }

  // Writes the vectors from begin to end of a texture's sums; NULL where all are 0.
  void write(int64_t image, int64_t begin, int64_t end, const T* sums) const {
    const int64_t c = begin / stride() * kWidth, first = begin % stride();
    const int64_t count = std::min(texels() - first, end - begin);
    T* out = static_cast<T*>(p_.grad_texture) + (image * p_.channels + c) * texels() + first;
    for (int64_t j = 0; j < std::min<int64_t>(p_.channels - c, kWidth); ++j, out += texels()) {
      for (int64_t i = 0; i < count; ++i) out[i] = sums != nullptr ? sums[kWidth * i + j] : T(0);
    }
  }

 private:
  int64_t texels() const { return p_.texture_height * p_.texture_width; }
  // From the first channels of a texel to the next ones: whole blocks.
  int64_t stride() const {
    constexpr int64_t kBlock = TouchedVectors<T, kWidth>::kBlock;
    return (texels() + kBlock - 1) / kBlock * kBlock;
  }

  const dibr_texture_backward_params& p_;
};

// Writes the gradient with respect to uv of a short row.
template <class T>
void uv_gradient(const SampledTexture<T>& texture, const Footprints<T>& footprints, const T* grad, T* out) {
  const int columns = footprints.samples();
  T u[kRow<T>] = {}, v[kRow<T>] = {};
  for (int64_t c = 0; c < texture.channels; c += kFewChannels) {
    Channels<T> channels;
    with_few(texture.channels - c, [&](auto count) {
      load_few<count>(grad + c, columns, texture.channels, channels);
      for (int i = 0; i < columns; i += kEight) {
        footprints.with_layout(i, [&](auto layout) DIBR_INLINE_LAMBDA {
          Eight<T> grad_u = Eight<T>::load(u + i), grad_v = Eight<T>::load(v + i);
          for (int j = 0; j < count; ++j) {
            Eight<T> x_slope, y_slope;
            footprints.template slopes<layout>(texture.plane(c + j), i, &x_slope, &y_slope);
            const Eight<T> g = Eight<T>::load(channels[j] + i);
            grad_u = grad_u + g * x_slope * Eight<T>(T(texture.width));
            grad_v = grad_v + g * y_slope * Eight<T>(T(texture.height));
          }
          grad_u.store(u + i);
          grad_v.store(v + i);
        });
      }
    });
  }
  for (int i = 0; i < columns; ++i) {
    out[2 * i] = footprints.is_finite(i) ? u[i] : T(0);
    out[2 * i + 1] = footprints.is_finite(i) ? v[i] : T(0);
  }
}

// Both gradients of a row; add(footprints, grad) has its share of that of the texture.
template <class T, class Add>
void row_gradient(const dibr_texture_backward_params& p, int64_t row, const Add& add) {
  const SampledTexture<T> texture = sampled_texture<T>(p, row / p.height);
  for_each_short_row<T>(p, row, [&](int64_t pixel, int columns, T* u, T* v) {
    const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
    Footprints<T> footprints;
    footprints.find(texture, columns, u, v);
    add(footprints, grad);
    if (p.grad_uv == nullptr) return;
    T* out = static_cast<T*>(p.grad_uv) + 2 * pixel;
    if (p.filter == DIBR_FILTER_NEAREST) {
      std::fill_n(out, 2 * columns, T(0));
    } else {
      uv_gradient(texture, footprints, grad, out);
    }
  });
}

// Calls body with the width of the vectors that a texel's gradient is summed in.
template <class Body>
void with_texel_width(int64_t channels, const Body& body) {
  if (channels == 1) return body(std::integral_constant<int, 1>{});
  if (channels == 2) return body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 4>{});
}

template <class T>
dibr_status backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  if (p.grad_texture != nullptr) {
    with_texel_width(p.channels, [&](auto width) {
      Arena arena(launch.workspace);
      const TexelSums<T, width> texels(p);
      const auto scatter = texels.scatter(arena);
      run_phases(
          launch, [] { return true; },
          scatter.phases(
              [&](int64_t group, int64_t unit, const TouchedVectors<T, width>& sums) {
                row_gradient<T>(p, group * p.height + unit, [&](const Footprints<T>& footprints, const T* grad) {
                  texels.add(footprints, grad, sums);
                });
              },
              [&](int64_t image, int64_t begin, int64_t end, const T* sums) {
                texels.write(image, begin, end, sums);
              }));
    });
  } else if (p.grad_uv != nullptr) {
    parallel_for(launch, p.batch * p.height,
                 [&](int64_t row) { row_gradient<T>(p, row, [](const Footprints<T>&, const T*) {}); });
  }
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
      with_texel_width(p.channels, [&](auto width) { TexelSums<T, width>(p).scatter(arena); });
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
