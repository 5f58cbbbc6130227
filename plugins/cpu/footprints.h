// Samples of a texture, a short row of them at once: the same bits as core/texture.h gives for each. What the rows of
// Texture and of Render have in common.
#pragma once

#include <algorithm>
#include <tuple>

#include "core/texture.h"
#include "cpu/channels.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One texture, [C, Ht, Wt] of S, and how it is sampled: nearest or bilinear.
template <class S>
struct SampledTexture {
  const S* texels;
  int64_t channels;
  int32_t height, width;
  dibr_filter filter;
  dibr_wrap wrap;

  const S* plane(int64_t channel) const { return texels + channel * height * width; }
};

// The texels and fractions of up to kRowPixels samples, an array for each of their numbers.
template <class T>
class Footprints {
 public:
  static constexpr int kAtOnce = kEight;

  // at(i) is the uv of sample i, as a pair. A sample whose uv is not finite is one of uv 0.
  template <class S, class At>
  void find(const SampledTexture<S>& texture, int count, const At& at) {
    read(count, at);
    if (texture.filter == DIBR_FILTER_NEAREST) {
      find<DIBR_FILTER_NEAREST>(texture.wrap, texture.height, texture.width);
    } else {
      find<DIBR_FILTER_BILINEAR>(texture.wrap, texture.height, texture.width);
    }
  }

  // How the four texels of every sample lie: all in one place, two neighbours in a row and two in another, or anyhow.
  enum class Layout { kOne, kPairs, kFour };
  // Calls body with it as a constant.
  template <class Body>
  void with_layout(const Body& body) const {
    if (layout_ == Layout::kOne) return body(std::integral_constant<Layout, Layout::kOne>{});
    if (layout_ == Layout::kPairs) return body(std::integral_constant<Layout, Layout::kPairs>{});
    body(std::integral_constant<Layout, Layout::kFour>{});
  }

  bool are_finite() const { return finite_; }
  bool is_finite(int i) const { return finite_ || is_finite_[i]; }
  int samples() const { return samples_; }
  // How many differ: 1 where all are the same, as they are on background, else all.
  int distinct() const { return same_ ? 1 : samples_; }

  // Of samples i to i + kAtOnce: the weights of their texels, which lie at offset(k, i) of a plane, their values in a
  // plane, and the gradients of these with respect to the texel coordinates.
  struct Weights {
    Eight<T> of[4];
  };
  DIBR_HD Weights weights(int i) const {
    const Eight<T> x = fraction(0, i), y = fraction(1, i), one = T(1);
    return {{(one - y) * (one - x), (one - y) * x, y * (one - x), y * x}};
  }
  template <Layout kLayout, class S>
  DIBR_HD Eight<T> sample(const S* plane, int i, const Weights& weights) const {
    Eight<T> t[4];
    texels<kLayout>(plane, i, t);
    return weights.of[0] * t[0] + weights.of[1] * t[1] + weights.of[2] * t[2] + weights.of[3] * t[3];
  }
  template <Layout kLayout>
  DIBR_HD void slopes(const T* plane, int i, Eight<T>* x_slope, Eight<T>* y_slope) const {
    Eight<T> t[4];
    texels<kLayout>(plane, i, t);
    const Eight<T> x = fraction(0, i), y = fraction(1, i), one = T(1);
    *x_slope = (one - y) * (t[1] - t[0]) + y * (t[3] - t[2]);
    *y_slope = (one - x) * (t[2] - t[0]) + x * (t[3] - t[1]);
  }
  int32_t offset(int k, int i) const { return offset_[k][place(i)]; }

 private:
  // Beyond the samples, up to a whole number of kAtOnce, the first one again.
  template <class At>
  void read(int count, const At& at) {
    samples_ = count;
    for (int i = 0; i < count; ++i) std::tie(uv_[0][i], uv_[1][i]) = at(i);
    unsigned finite = 1, same = 1;  // no ways out of the loops, so that the compiler makes vectors of them
    for (int i = 0; i < count; ++i) {
      finite &= unsigned(uv_[0][i] - uv_[0][i] == T(0)) & unsigned(uv_[1][i] - uv_[1][i] == T(0));
    }
    finite_ = finite != 0;
    for (int i = 0; !finite_ && i < count; ++i) {
      is_finite_[i] = is_finite_uv(uv_[0][i], uv_[1][i]);
      if (!is_finite_[i]) uv_[0][i] = uv_[1][i] = T(0);
    }
    for (int i = 1; i < count; ++i) same &= unsigned(uv_[0][i] == uv_[0][0]) & unsigned(uv_[1][i] == uv_[1][0]);
    same_ = same != 0;
    for (int i = count; i % kAtOnce != 0; ++i) {
      for (auto& numbers : uv_) numbers[i] = numbers[0];
    }
  }

  template <dibr_filter kFilter>
  void find(dibr_wrap wrap, int32_t height, int32_t width) {
    if (wrap == DIBR_WRAP_CLAMP) return find<kFilter, DIBR_WRAP_CLAMP>(height, width);
    if (wrap == DIBR_WRAP_REPEAT) return find<kFilter, DIBR_WRAP_REPEAT>(height, width);
    find<kFilter, DIBR_WRAP_MIRROR>(height, width);
  }
  template <dibr_filter kFilter, dibr_wrap kWrap>
  void find(int32_t height, int32_t width) {
    const int count = (distinct() + kAtOnce - 1) / kAtOnce * kAtOnce;
    for (int i = 0; i < count; ++i) {
      const Footprint<T, int32_t> f = texture_footprint(uv_[0][i], uv_[1][i], height, width, kFilter, kWrap);
      for (int k = 0; k < 4; ++k) offset_[k][i] = f.offset[k];
      fraction_[0][i] = f.x.fraction;
      fraction_[1][i] = f.y.fraction;
    }
    int32_t apart = 0;
    for (int i = 0; i < count; ++i) apart |= (offset_[1][i] - offset_[0][i]) ^ 1;
    layout_ = kFilter == DIBR_FILTER_NEAREST ? Layout::kOne : (apart == 0 ? Layout::kPairs : Layout::kFour);
  }

  // Where sample i stands.
  DIBR_HD int place(int i) const { return same_ ? 0 : i; }
  DIBR_HD Eight<T> fraction(int axis, int i) const { return Eight<T>::load(fraction_[axis] + place(i)); }

  // The four texels of samples i to i + kAtOnce.
  template <Layout kLayout, class S>
  DIBR_HD void texels(const S* plane, int sample, Eight<T>* t) const {
    const int i = place(sample);
    if constexpr (kLayout == Layout::kOne) {
      t[0] = t[1] = t[2] = t[3] = each(plane, offset_[0] + i);
    } else if constexpr (kLayout == Layout::kPairs) {
      pairs(plane, offset_[0] + i, &t[0], &t[1]);
      pairs(plane, offset_[2] + i, &t[2], &t[3]);
    } else {
      for (int k = 0; k < 4; ++k) t[k] = each(plane, offset_[k] + i);
    }
  }
  template <class S>
  static DIBR_HD void pairs(const S* plane, const int32_t* offset, Eight<T>* first, Eight<T>* second) {
    if constexpr (std::is_same_v<S, T>) {
      load_pairs([&](int i) DIBR_INLINE_LAMBDA { return plane + offset[i]; }, first, second);
    } else {
      uint32_t both[kEight];  // the first in the low half, on every machine that this is built for
      for (int i = 0; i < kEight; ++i) std::memcpy(&both[i], plane + offset[i], sizeof both[i]);
      T lanes[2][kEight];
      for (int i = 0; i < kEight; ++i) lanes[0][i] = load(S{uint16_t(both[i] & 0xffffu)});
      for (int i = 0; i < kEight; ++i) lanes[1][i] = load(S{uint16_t(both[i] >> 16)});
      *first = Eight<T>::load(lanes[0]);
      *second = Eight<T>::load(lanes[1]);
    }
  }
  template <class S>
  static DIBR_HD Eight<T> each(const S* plane, const int32_t* offset) {
    T lanes[kEight];
    if constexpr (std::is_same_v<S, T>) {
      for (int i = 0; i < kEight; ++i) lanes[i] = plane[offset[i]];
    } else {
      uint32_t bits[kEight];  // apart from the rest, so that the compiler makes vectors of that
      for (int i = 0; i < kEight; ++i) bits[i] = plane[offset[i]].bits;
      for (int i = 0; i < kEight; ++i) lanes[i] = load(S{uint16_t(bits[i])});
    }
    return Eight<T>::load(lanes);
  }

  int samples_;
  bool finite_, same_;
  Layout layout_;
  bool is_finite_[kRowPixels];  // where not all are
  T uv_[2][kRowPixels];
  int32_t offset_[4][kRowPixels];
  T fraction_[2][kRowPixels];
};

// Samples `count` channels from plane on into arrays.
template <int kCount, class T, class S>
void sample_few(const Footprints<T>& footprints, const S* plane, int64_t plane_size, Channels<T>& out) {
  footprints.with_layout([&](auto layout) {
    for (int i = 0; i < footprints.distinct(); i += Footprints<T>::kAtOnce) {
      const auto weights = footprints.weights(i);
      for (int c = 0; c < kCount; ++c) {
        footprints.template sample<layout>(plane + c * plane_size, i, weights).store(out[c] + i);
      }
    }
  });
  if (footprints.distinct() == 1) {
    for (int c = 0; c < kCount; ++c) std::fill_n(out[c], footprints.samples(), T(out[c][0]));
  }
}

// Samples all channels of up to kRowPixels pixels; at(i) is the uv of pixel i. 0 where it is not finite.
template <class T, class S, class At>
void sample_row(const SampledTexture<S>& texture, int columns, const At& at, S* out) {
  Footprints<T> footprints;
  footprints.find(texture, columns, at);
  const int64_t plane_size = int64_t(texture.height) * texture.width;
  for (int64_t c = 0; c < texture.channels; c += kFewChannels) {
    Channels<T> channels;
    with_few(texture.channels - c, [&](auto count) {
      sample_few<count>(footprints, texture.plane(c), plane_size, channels);
      store_few<count>(channels, columns, texture.channels, out + c);
    });
  }
  for (int x = 0; !footprints.are_finite() && x < columns; ++x) {
    if (!footprints.is_finite(x)) std::fill_n(out + x * texture.channels, texture.channels, S{});
  }
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
