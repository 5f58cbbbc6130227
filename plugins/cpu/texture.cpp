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

// The levels that samples are taken from.
template <class P>
MipChain chain_of(const P& p) {
  MipChain chain = make_mip_chain(p.texture_height, p.texture_width);
  if (p.filter != DIBR_FILTER_TRILINEAR) chain.levels = 1;
  return chain;
}

// The levels below the textures, one after another in a plane for each channel of each texture, [A, C].
template <class T>
struct LevelsBelow {
  MipChain chain;
  Levels levels;
  T* texels;

  template <class P>
  LevelsBelow(const P& p, Arena& arena)
      : chain(chain_of(p)),
        levels(chain),
        texels(arena.take<T>(p.texture_batch * p.channels * chain.reduced_texels())) {}

  T* plane(int64_t i) const { return texels + i * chain.reduced_texels(); }
  // A level, of 1 or more, in a plane.
  T* level(int64_t i, int level) const { return plane(i) + chain.offset[level] - chain.offset[1]; }
};

// Calls row(plane, row of `level`) for the rows of all planes.
template <class P, class Row>
void for_each_texel_row(const P& p, const MipChain& chain, int level, const dibr_launch& launch, const Row& row) {
  const int64_t rows = chain.height_at(level);
  parallel_for(launch, p.texture_batch * p.channels * rows, [&](int64_t i) { row(i / rows, i % rows); });
}

// Calls use(x, sum) for the columns of a row, each with the weighted sum of the texels of another plane, of `width`
// columns, that `rows` and columns(x) name: what core/mipmap.h has for one texel, a short row of them at a time.
template <class T, class S, class Columns, class Use>
void for_each_weighted_sum(int64_t count, const AxisWeights<T>& rows, const Columns& columns, const S* plane,
                           int64_t width, const Use& use) {
  for (int64_t first = 0; first < count; first += kRowPixels) {
    const int64_t end = std::min<int64_t>(first + kRowPixels, count);
    T sums[kRowPixels] = {};
    for (int y = 0; y < rows.count; ++y) {
      const S* row = plane + (rows.first + y) * width;
      for (int64_t x = first; x < end; ++x) {
        const AxisWeights<T> of = columns(x);
        T sum = T(0);
        for (int k = 0; k < 3; ++k) {
          if (k < of.count) sum += of.weight[k] * load(row[of.first + k]);
        }
        sums[x - first] += rows.weight[y] * sum;
      }
    }
    for (int64_t x = first; x < end; ++x) use(x, sums[x - first]);
  }
}

// A row of level + 1 from the plane of the level.
template <class T, class S>
void reduce_row(const MipChain& chain, int level, const S* plane, int64_t row, T* out) {
  const int64_t width = chain.width_at(level);
  for_each_weighted_sum(
      chain.width_at(level + 1), reduced_from<T>(row, chain.height_at(level)),
      [&](int64_t x) { return reduced_from<T>(x, width); }, plane, width, [&](int64_t x, T sum) { out[x] = sum; });
}

// Fills the levels.
template <class S, class T, class P>
void reduce_textures(const P& p, const LevelsBelow<T>& below, const dibr_launch& launch) {
  const MipChain& chain = below.chain;
  for (int level = 0; level + 1 < chain.levels; ++level) {
    for_each_texel_row(p, chain, level + 1, launch, [&](int64_t plane, int64_t row) {
      T* out = below.level(plane, level + 1) + row * chain.width_at(level + 1);
      if (level == 0) {
        reduce_row(chain, level, static_cast<const S*>(p.texture) + plane * chain.texels_at(0), row, out);
      } else {
        reduce_row(chain, level, below.level(plane, level), row, out);
      }
    });
  }
}

template <class S, class P>
SampledTexture<S> sampled_texture(const P& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image, plane = p.texture_height * p.texture_width;
  const S* texels = static_cast<const S*>(p.texture) + source * p.channels * plane;
  return {{texels, plane}, p.channels, int32_t(p.texture_height), int32_t(p.texture_width), p.filter, p.wrap};
}

// Calls body(texture of), which says what an image's rows sample.
template <class S, class T, class P, class Body>
void with_textures(const P& p, const LevelsBelow<T>& below, const Body& body) {
  if (p.filter != DIBR_FILTER_TRILINEAR) return body([&](int64_t image) { return sampled_texture<S>(p, image); });
  body([&](int64_t image) {
    const T* reduced = below.plane(p.texture_batch == 1 ? 0 : image * p.channels);
    return MippedTexture<S>{sampled_texture<S>(p, image), &below.levels, {reduced, below.chain.reduced_texels()}};
  });
}

// Calls body(first pixel, columns, at) for the short rows that a row consists of: u, v and the mip level of each pixel.
template <class T, class P, class Body>
void for_each_short_row(const P& p, int64_t row, const Body& body) {
  for (int64_t x = 0; x < p.width; x += kRowPixels) {
    const int64_t pixel = row * p.width + x;
    const int columns = int(std::min<int64_t>(p.width - x, kRowPixels));
    Channels<T> at;
    load_few<2>(static_cast<const T*>(p.uv) + 2 * pixel, columns, 2, at);
    if (p.filter == DIBR_FILTER_TRILINEAR) std::copy_n(static_cast<const T*>(p.mip_level) + pixel, columns, at[2]);
    body(pixel, columns, at);
  }
}

template <class S>
dibr_status forward(const dibr_texture_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  Arena arena(launch.workspace);
  const LevelsBelow<T> below(p, arena);
  reduce_textures<S>(p, below, launch);
  with_textures<S>(p, below, [&](const auto& texture_of) {
    parallel_for(launch, p.batch * p.height, [&](int64_t row) {
      const auto texture = texture_of(row / p.height);
      for_each_short_row<T>(p, row, [&](int64_t pixel, int columns, Channels<T>& at) {
        sample_row(texture, columns, at, static_cast<S*>(p.output) + pixel * p.channels);
      });
    });
  });
  return DIBR_OK;
}

// The gradients of the texels of all levels while they are summed: vectors of kWidth channels, so that a texel is one
// of them, those of the first kWidth channels of all texels first.
template <class T, int kWidth>
class TexelSums {
 public:
  // What the levels below the texture sum up goes to `below`.
  TexelSums(const dibr_texture_backward_params& p, const LevelsBelow<T>& below) : p_(p), below_(below) {}

  SparseScatter<T, kWidth> scatter(Arena& arena) const {
    // A shared texture collects from the rows of every image, a batched one from those of its own.
    const int64_t rows = p_.texture_batch == p_.batch ? p_.height : p_.batch * p_.height;
    // Private arrays are as many as for the texture alone: with the levels below it counted as well, a texture as large
    // as the image would be left with one, and one thread.
    const int64_t runs = Scatter<T>::runs_within(p_.texture_batch, p_.channels * below_.chain.texels_at(0), rows,
                                                 p_.batch * p_.height * p_.width * p_.channels);
    return {p_.texture_batch, (p_.channels + kWidth - 1) / kWidth * stride(), rows, runs, arena};
  }

  // Adds the share of a short row of pixels. `sums` is a copy, so that no store can change where they lie.
  template <class Texture>
  void add(const Texture& texture, const Footprints<T>& footprints, const T* grad,
           const TouchedVectors<T, kWidth> sums) const {
    using Vector = Lanes<T, kWidth>;
    Shares shares[2];
    for (int part = 0; part < footprints.parts(); ++part) shares[part].find(texture, footprints, part);
    for (int64_t c = 0; c < p_.channels; c += kWidth) {
      const int64_t first = c / kWidth * stride();
      for (int i = 0; i < footprints.samples(); ++i) {
        if (!footprints.is_finite(i)) continue;
        const Vector of_pixel = load(grad + i * p_.channels + c, (footprints.samples() - i) * p_.channels - c);
        if (texture.filter == DIBR_FILTER_NEAREST) {  // the same texel four times, with weights 1, 0, 0 and 0
          T* sum = sums[first + shares[0].texel[0][i]];
          (Vector::load(sum) + of_pixel + Vector(T(0)) * of_pixel).store(sum);
          continue;
        }
        const auto add_part = [&](const Shares& of) DIBR_INLINE_LAMBDA {
          for (int k = 0; k < 4; ++k) {
            T* sum = sums[first + of.texel[k][i]];
            (Vector::load(sum) + Vector(of.weight[k][i]) * of_pixel).store(sum);
          }
        };
        add_part(shares[0]);
        if (Texture::kHasLevels && footprints.parts(i) == 2) add_part(shares[1]);
      }
    }
  }

  // Writes the vectors from begin to end of a texture's sums; NULL where all are 0.
  void write(int64_t image, int64_t begin, int64_t end, const T* sums) const {
    const int64_t c = begin / stride() * kWidth, first = begin % stride(), own = below_.chain.texels_at(0);
    const int64_t last = std::min(texels(), first + end - begin);
    for (int64_t j = 0; j < std::min<int64_t>(p_.channels - c, kWidth); ++j) {
      const int64_t plane = image * p_.channels + c + j;
      const auto sum = [&](int64_t texel) { return sums != nullptr ? sums[kWidth * (texel - first) + j] : T(0); };
      T* out = static_cast<T*>(p_.grad_texture) + plane * own;
      for (int64_t i = first; i < std::min(last, own); ++i) out[i] = sum(i);
      for (int64_t i = std::max(first, own); i < last; ++i) below_.plane(plane)[i - own] = sum(i);
    }
  }

 private:
  // The texels of a part of each sample, counted through all levels, and what they count.
  struct Shares {
    int32_t texel[4][kRowPixels];
    T weight[4][kRowPixels];

    template <class Texture>
    void find(const Texture& texture, const Footprints<T>& footprints, int part) {
      for (int i = 0; i < footprints.samples(); i += Footprints<T>::kAtOnce) {
        auto weights = footprints.weights(part, i);
        for (int k = 0; k < 4; ++k) {
          if (Texture::kHasLevels) weights.of[k] = footprints.part_weights(part, i) * weights.of[k];
          weights.of[k].store(weight[k] + i);
        }
      }
      const int32_t own = int32_t(texture.texels.size);
      for (int k = 0; k < 4; ++k) {
        for (int i = 0; i < footprints.samples(); ++i) {
          const bool is_reduced = Texture::kHasLevels && footprints.level(part, i) > 0;
          texel[k][i] = footprints.offset(part, k, i) + (is_reduced ? own : 0);
        }
      }
    }
  };
  // kWidth numbers of a pixel, of which `left` may be read; what follows the pixel's own may be anything.
  static Lanes<T, kWidth> load(const T* grad, int64_t left) {
    if (left >= kWidth) return Lanes<T, kWidth>::load(grad);
    T numbers[kWidth] = {};
    for (int64_t j = 0; j < left; ++j) numbers[j] = grad[j];
    return Lanes<T, kWidth>::load(numbers);
  }

  int64_t texels() const { return below_.chain.texels(); }
  // From the first channels of a texel to the next ones: whole blocks.
  int64_t stride() const {
    constexpr int64_t kBlock = TouchedVectors<T, kWidth>::kBlock;
    return (texels() + kBlock - 1) / kBlock * kBlock;
  }

  const dibr_texture_backward_params& p_;
  const LevelsBelow<T>& below_;
};

// For a part of each sample of a short row and a few channels, their values and their gradients with respect to texel
// coordinates.
template <class T>
struct Surface {
  Channels<T> value, x_slope, y_slope;

  template <int kCount, class Texture>
  void find(const Texture& texture, const Footprints<T>& footprints, int part, int64_t channel) {
    for (int i = 0; i < footprints.distinct(); i += Footprints<T>::kAtOnce) {
      footprints.with_texels(texture, part, i, [&](const auto& texels) DIBR_INLINE_LAMBDA {
        const auto weights = footprints.weights(part, i);
        for (int c = 0; c < kCount; ++c) {
          const auto t = texels(channel + c);
          if (Texture::kHasLevels) footprints.mean(weights, t).store(value[c] + i);
          footprints.x_slope(part, i, t).store(x_slope[c] + i);
          footprints.y_slope(part, i, t).store(y_slope[c] + i);
        }
      });
    }
    if (Texture::kHasLevels) spread(footprints, kCount, value);
    spread(footprints, kCount, x_slope);
    spread(footprints, kCount, y_slope);
  }
};

// The gradients with respect to u, v and mip level of the samples of a short row.
template <class T, class Texture>
void lookup_gradient(const Texture& texture, const Footprints<T>& footprints, const T* grad, Channels<T>& out) {
  const int columns = footprints.samples(), parts = Texture::kHasLevels ? footprints.parts() : 1;
  for (int k = 0; k < 3; ++k) std::fill_n(out[k], columns, T(0));
  if (texture.filter == DIBR_FILTER_NEAREST) return;
  T weight[2][kRowPixels], height[2][kRowPixels], width[2][kRowPixels];
  for (int part = 0; part < parts; ++part) {
    for (int i = 0; i < columns; ++i) {
      weight[part][i] = Texture::kHasLevels ? footprints.part_weight(part, i) : T(1);
      height[part][i] = T(Texture::kHasLevels ? footprints.height(part, i) : texture.height);
      width[part][i] = T(Texture::kHasLevels ? footprints.width(part, i) : texture.width);
    }
  }
  for (int64_t first = 0; first < texture.channels; first += kFewChannels) {
    Channels<T> channels;
    Surface<T> surface[2];
    with_few(texture.channels - first, [&](auto count) {
      load_few<count>(grad + first, columns, texture.channels, channels);
      for (int part = 0; part < parts; ++part) surface[part].template find<count>(texture, footprints, part, first);
      for (int c = 0; c < count; ++c) {
        for (int part = 0; part < parts; ++part) {
          for (int i = 0; i < columns; ++i) {
            const bool counts = part == 0 || weight[part][i] > T(0);
            const T g = channels[c][i] * weight[part][i];
            out[0][i] += counts ? g * surface[part].x_slope[c][i] * width[part][i] : T(0);
            out[1][i] += counts ? g * surface[part].y_slope[c][i] * height[part][i] : T(0);
          }
        }
        for (int i = 0; parts == 2 && i < columns; ++i) {
          out[2][i] += channels[c][i] * (surface[1].value[c][i] - surface[0].value[c][i]);
        }
      }
    });
  }
}

// Writes them, 0 for a sample that is not finite, and for the level of one that does not vary with it.
template <class T, class Texture>
void write_lookup_gradient(const dibr_texture_backward_params& p, const Texture& texture,
                           const Footprints<T>& footprints, int64_t pixel, const Channels<T>& gradient) {
  const int columns = footprints.samples();
  if (p.grad_uv != nullptr) {
    T* out = static_cast<T*>(p.grad_uv) + 2 * pixel;
    for (int i = 0; i < columns; ++i) {
      out[2 * i] = footprints.is_finite(i) ? gradient[0][i] : T(0);
      out[2 * i + 1] = footprints.is_finite(i) ? gradient[1][i] : T(0);
    }
  }
  if (p.grad_mip_level == nullptr) return;
  T* out = static_cast<T*>(p.grad_mip_level) + pixel;
  std::fill_n(out, columns, T(0));
  if constexpr (Texture::kHasLevels) {
    const T* level = static_cast<const T*>(p.mip_level) + pixel;
    for (int i = 0; i < columns; ++i) {
      if (footprints.is_finite(i) && varies_with_level(level[i], T(texture.levels->last))) out[i] = gradient[2][i];
    }
  }
}

// All gradients of a row; add(footprints, grad) has its share of that of the texture.
template <class T, class Texture, class Add>
void row_gradient(const dibr_texture_backward_params& p, const Texture& texture, int64_t row, const Add& add) {
  for_each_short_row<T>(p, row, [&](int64_t pixel, int columns, Channels<T>& at) {
    const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
    Footprints<T> footprints;
    footprints.find(texture, columns, at, p.grad_mip_level != nullptr);
    add(footprints, grad);
    if (p.grad_uv == nullptr && p.grad_mip_level == nullptr) return;
    Channels<T> gradient;
    lookup_gradient(texture, footprints, grad, gradient);
    write_lookup_gradient(p, texture, footprints, pixel, gradient);
  });
}

// Calls body with the width of the vectors that a texel's gradient is summed in.
template <class Body>
void with_texel_width(int64_t channels, const Body& body) {
  if (channels == 1) return body(std::integral_constant<int, 1>{});
  if (channels == 2) return body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 4>{});
}

// A row of gradients, to which those that the plane of level + 1 has gathered are added.
template <class T>
void gather_row(const MipChain& chain, int level, const T* next, int64_t row, T* out) {
  const int64_t width = chain.width_at(level);
  for_each_weighted_sum(
      width, reduced_to<T>(row, chain.height_at(level)), [&](int64_t x) { return reduced_to<T>(x, width); }, next,
      chain.width_at(level + 1), [&](int64_t x, T sum) { out[x] += sum; });
}

// From the smallest level on: what a level's texels gathered is shared out to those of the level before.
template <class T>
void gather_levels(const dibr_texture_backward_params& p, const LevelsBelow<T>& below, const dibr_launch& launch) {
  const MipChain& chain = below.chain;
  for (int level = chain.levels - 2; level >= 0; --level) {
    for_each_texel_row(p, chain, level, launch, [&](int64_t plane, int64_t row) {
      T* out = level == 0 ? static_cast<T*>(p.grad_texture) + plane * chain.texels_at(0) : below.level(plane, level);
      gather_row(chain, level, below.level(plane, level + 1), row, out + row * chain.width_at(level));
    });
  }
}

template <class T>
dibr_status backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const LevelsBelow<T> below(p, arena), gradients(p, arena);
  const bool of_lookup = p.grad_uv != nullptr || p.grad_mip_level != nullptr;
  if (of_lookup) reduce_textures<T>(p, below, launch);
  with_textures<T>(p, below, [&](const auto& texture_of) {
    if (p.grad_texture == nullptr && of_lookup) {
      parallel_for(launch, p.batch * p.height, [&](int64_t row) {
        row_gradient<T>(p, texture_of(row / p.height), row, [](const Footprints<T>&, const T*) {});
      });
    }
    if (p.grad_texture == nullptr) return;
    with_texel_width(p.channels, [&](auto width) {
      const TexelSums<T, width> texels(p, gradients);
      const auto scatter = texels.scatter(arena);
      run_phases(
          launch, [] { return true; },
          scatter.phases(
              [&](int64_t group, int64_t unit, const TouchedVectors<T, width>& sums) {
                const int64_t row = group * p.height + unit;
                const auto texture = texture_of(row / p.height);
                row_gradient<T>(p, texture, row, [&](const Footprints<T>& footprints, const T* grad) {
                  texels.add(texture, footprints, grad, sums);
                });
              },
              [&](int64_t image, int64_t begin, int64_t end, const T* sums) {
                texels.write(image, begin, end, sums);
              }));
    });
    gather_levels<T>(p, gradients, launch);
  });
  return DIBR_OK;
}

}  // namespace

dibr_status texture_workspace(const dibr_texture_params& p, Arena& arena) {
  return dispatch_storage(p.dtype, [&](auto s) {
    LevelsBelow<typename ComputeOf<decltype(s)>::Type>(p, arena);
    return DIBR_OK;
  });
}
dibr_status texture(const dibr_texture_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) { return forward<decltype(s)>(p, launch); });
}

dibr_status texture_backward_workspace(const dibr_texture_backward_params& p, Arena& arena) {
  return dispatch(p.dtype, [&](auto t) {
    using T = decltype(t);
    const LevelsBelow<T> below(p, arena), gradients(p, arena);
    with_texel_width(p.channels, [&](auto width) { TexelSums<T, width>(p, gradients).scatter(arena); });
    return DIBR_OK;
  });
}
dibr_status texture_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
