// Mipmaps: a chain of textures, each half the size of the one before, and a sample between two of them. Level k of an
// axis of n texels has max(1, n >> k), down to one texel; each is the mean of the area it covers on the level before,
// for odd sizes too, so a texture's mean is the same on every level.
#pragma once

#include "core/texture.h"

namespace dibr {

constexpr int kMaxMipLevels = 16;  // sides are at most 2^15 texels

struct MipChain {
  int64_t height, width;  // of level 0
  int levels = 1;
  int64_t offset[kMaxMipLevels + 1];  // texels of a channel on the levels before

  DIBR_HD int64_t height_at(int level) const { return maximum(height >> level, int64_t(1)); }
  DIBR_HD int64_t width_at(int level) const { return maximum(width >> level, int64_t(1)); }
  DIBR_HD int64_t texels_at(int level) const { return height_at(level) * width_at(level); }
  // Of one channel: on all levels, and on those that are not the texture itself.
  DIBR_HD int64_t texels() const { return offset[levels]; }
  DIBR_HD int64_t reduced_texels() const { return offset[levels] - offset[1]; }
};

DIBR_HD MipChain make_mip_chain(int64_t height, int64_t width) {
  MipChain chain;
  chain.height = height;
  chain.width = width;
  for (int64_t side = maximum(height, width); side > 1 && chain.levels < kMaxMipLevels; side >>= 1) ++chain.levels;
  chain.offset[0] = 0;
  for (int level = 0; level < chain.levels; ++level) {
    chain.offset[level + 1] = chain.offset[level] + chain.texels_at(level);
  }
  return chain;
}

// Up to three neighbours along an axis, beginning with `first`.
template <class T>
struct AxisWeights {
  int64_t first;
  int count;
  T weight[3];
};

// The texels out of n that texel i of the next level is the mean of: it covers n / (n / 2) of them from i times that.
template <class T>
DIBR_HD AxisWeights<T> reduced_from(int64_t i, int64_t n) {
  if (n == 1) return {0, 1, {T(1)}};
  if (n % 2 == 0) return {2 * i, 2, {T(0.5), T(0.5)}};
  const int64_t half = n / 2;
  return {2 * i, 3, {T(half - i) / T(n), T(half) / T(n), T(i + 1) / T(n)}};
}

// The same weights seen from texel i out of n: the texels of the next level that it is part of.
template <class T>
DIBR_HD AxisWeights<T> reduced_to(int64_t i, int64_t n) {
  if (n == 1) return {0, 1, {T(1)}};
  const int64_t half = n / 2, j = i / 2;
  if (n % 2 == 0) return {j, 1, {T(0.5)}};
  if (i % 2 == 1) return {j, 1, {T(half) / T(n)}};
  if (j == 0) return {0, 1, {T(half) / T(n)}};
  if (j == half) return {j - 1, 1, {T(j) / T(n)}};
  return {j - 1, 2, {T(j) / T(n), T(half - j) / T(n)}};
}

// The weighted sum over a plane of `width` columns, rows x columns. Loops of a fixed length, unrolled, keep the weights
// in registers on a GPU.
template <class T, class S>
DIBR_HD T weighted_sum(const AxisWeights<T>& rows, const AxisWeights<T>& columns, const S* plane, int64_t width) {
  T sum = T(0);
  for (int y = 0; y < 3; ++y) {
    if (y >= rows.count) continue;
    T row = T(0);
    for (int x = 0; x < 3; ++x) {
      if (x >= columns.count) continue;
      row += columns.weight[x] * load(plane[(rows.first + y) * width + columns.first + x]);
    }
    sum += rows.weight[y] * row;
  }
  return sum;
}

// Texel `texel` of level + 1 from the plane of the level.
template <class T, class S>
DIBR_HD T reduced_texel(const MipChain& chain, int level, const S* plane, int64_t texel) {
  const int64_t width = chain.width_at(level + 1);
  return weighted_sum(reduced_from<T>(texel / width, chain.height_at(level)),
                      reduced_from<T>(texel % width, chain.width_at(level)), plane, chain.width_at(level));
}

// What gradients on the plane of level + 1 mean for texel `texel` of the level.
template <class T>
DIBR_HD T reduced_gradient(const MipChain& chain, int level, const T* grad_plane, int64_t texel) {
  const int64_t width = chain.width_at(level);
  return weighted_sum(reduced_to<T>(texel / width, chain.height_at(level)),
                      reduced_to<T>(texel % width, chain.width_at(level)), grad_plane, chain.width_at(level + 1));
}

// A sample between level `first` and the next: value = (1 - fraction) first + fraction next. Where the mip level is
// outside of the chain the sample is all of its first or last level and does not vary with the mip level.
template <class T>
struct MipSample {
  int first;
  T fraction;
  bool varies;
  Footprint<T> footprint[2];  // the second is set where the sample varies

  DIBR_HD int count() const { return fraction > T(0) ? 2 : 1; }
  DIBR_HD T weight(int part) const { return part == 0 ? T(1) - fraction : fraction; }
};

template <class T>
DIBR_HD bool is_finite_sample(T u, T v, T mip_level) {
  return is_finite_uv(u, v) && mip_level == mip_level;
}

// NaN stays what it is.
template <class T>
DIBR_HD T clamped_level(T mip_level, T last) {
  return minimum(maximum(mip_level, T(0)), last);
}
template <class T>
DIBR_HD bool varies_with_level(T mip_level, T last) {
  return mip_level >= T(0) && mip_level < last;
}

template <class T>
DIBR_HD MipSample<T> mip_sample(const MipChain& chain, T u, T v, T mip_level, dibr_wrap wrap) {
  MipSample<T> sample;
  const T last = T(chain.levels - 1), clamped = clamped_level(mip_level, last), cell = rounded_down(clamped);
  sample.first = int(cell);
  sample.fraction = clamped - cell;
  sample.varies = varies_with_level(mip_level, last);
  for (int part = 0; part < 2; ++part) {
    if (part == 1 && !sample.varies) continue;
    const int level = sample.first + part;
    sample.footprint[part] =
        texture_footprint(u, v, chain.height_at(level), chain.width_at(level), DIBR_FILTER_BILINEAR, wrap);
  }
  return sample;
}

// One texture [C, Ht, Wt] with the levels below it, [C, h, w] each, one after another.
template <class T, class S>
struct MipTexture {
  const S* texture;
  const T* reduced;
  int64_t channels;

  // Value of a channel at a level, and its gradient with respect to (u, v).
  DIBR_HD T value(const MipChain& chain, int level, const Footprint<T>& footprint, int64_t channel) const {
    if (level == 0) return sample_plane(footprint, texture + channel * chain.texels_at(0));
    return sample_plane(footprint, plane(chain, level, channel));
  }
  DIBR_HD void add_gradient(const MipChain& chain, int level, const Footprint<T>& footprint, int64_t channel, T factor,
                            T* grad_u, T* grad_v) const {
    const T* values = level == 0 ? texture + channel * chain.texels_at(0) : plane(chain, level, channel);
    T slope_x, slope_y;
    plane_gradient(footprint, values, &slope_x, &slope_y);
    *grad_u += factor * slope_x * T(chain.width_at(level));
    *grad_v += factor * slope_y * T(chain.height_at(level));
  }
  DIBR_HD T value(const MipChain& chain, const MipSample<T>& sample, int64_t channel) const {
    const T first = value(chain, sample.first, sample.footprint[0], channel);
    if (sample.count() == 1) return first;
    return sample.weight(0) * first + sample.weight(1) * value(chain, sample.first + 1, sample.footprint[1], channel);
  }
  DIBR_HD T slope(const MipChain& chain, const MipSample<T>& sample, int64_t channel) const {
    return value(chain, sample.first + 1, sample.footprint[1], channel) -
           value(chain, sample.first, sample.footprint[0], channel);
  }

 private:
  DIBR_HD const T* plane(const MipChain& chain, int level, int64_t channel) const {
    return reduced + channels * (chain.offset[level] - chain.offset[1]) + channel * chain.texels_at(level);
  }
};

}  // namespace dibr
