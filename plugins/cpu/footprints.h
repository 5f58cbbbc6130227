// Samples of a texture, a short row of them at once: the same bits as core/texture.h gives for each. What the rows of
// Texture and of Render have in common.
#pragma once

#include <algorithm>

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
  // Samples come in as many as this, or a multiple: whole registers, of their offsets too.
  static constexpr int kWhole = std::max(kAtOnce, Pack<int32_t>::kLanes);

  // u and v, [kRow], are changed: a sample whose uv is not finite is one of uv 0, and beyond the samples comes the
  // first one again.
  template <class S>
  void find(const SampledTexture<S>& texture, int count, T* u, T* v) {
    prepare(count, u, v);
    if (texture.filter == DIBR_FILTER_NEAREST) {
      find<DIBR_FILTER_NEAREST>(texture.wrap, texture.height, texture.width, u, v);
    } else {
      find<DIBR_FILTER_BILINEAR>(texture.wrap, texture.height, texture.width, u, v);
    }
  }

  // How the four texels of a sample lie: all in one place, two neighbours in a row and two in another, or anyhow.
  enum class Layout { kOne, kPairs, kFour };
  // Calls body with that of samples i to i + kAtOnce as a constant.
  template <class Body>
  DIBR_HD void with_layout(int i, const Body& body) const {
    constexpr uint32_t kAll = (1u << kAtOnce) - 1;
    if (nearest_) return body(std::integral_constant<Layout, Layout::kOne>{});
    if ((neighbours_ >> place(i) & kAll) == kAll) return body(std::integral_constant<Layout, Layout::kPairs>{});
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
  void prepare(int count, T* u, T* v) {
    using N = Pack<T>;
    samples_ = count;
    for (int i = count; i % kWhole != 0; i += N::kLanes - i % N::kLanes) {
      N(u[0]).store(u + i);
      N(v[0]).store(v + i);
    }
    finite_ = all(count, [&](int i) {
      const N x = N::load(u + i), y = N::load(v + i);
      return (x - x == N(T(0))) & (y - y == N(T(0)));
    });
    if (!finite_) clear_what_is_not_finite(u, v);
    const N first_u = u[0], first_v = v[0];
    same_ = all(count, [&](int i) { return (N::load(u + i) == first_u) & (N::load(v + i) == first_v); });
  }
  // Whether test(i) is true for all lanes of each Pack of samples, the first of which is sample i.
  template <class Test>
  static DIBR_HD bool all(int count, const Test& test) {
    constexpr uint32_t kAll = ~0u >> (32 - Pack<T>::kLanes);
    uint32_t lanes = kAll;
    for (int i = 0; i < count; i += Pack<T>::kLanes) lanes &= test(i).lanes();
    return lanes == kAll;
  }
  void clear_what_is_not_finite(T* u, T* v) {
    for (int i = 0; i < (samples_ + kWhole - 1) / kWhole * kWhole; ++i) {
      is_finite_[i] = is_finite_uv(u[i], v[i]);
      if (!is_finite_[i]) u[i] = v[i] = T(0);
    }
  }

  template <dibr_filter kFilter>
  void find(dibr_wrap wrap, int32_t height, int32_t width, const T* u, const T* v) {
    if (wrap == DIBR_WRAP_CLAMP) return find<kFilter, DIBR_WRAP_CLAMP>(height, width, u, v);
    if (wrap == DIBR_WRAP_REPEAT) return find<kFilter, DIBR_WRAP_REPEAT>(height, width, u, v);
    find<kFilter, DIBR_WRAP_MIRROR>(height, width, u, v);
  }
  template <dibr_filter kFilter, dibr_wrap kWrap>
  void find(int32_t height, int32_t width, const T* __restrict u, const T* __restrict v) {
    const int count = (distinct() + kWhole - 1) / kWhole * kWhole;
    for (int i = 0; i < count; ++i) {
      const Footprint<T, int32_t> f = texture_footprint(u[i], v[i], height, width, kFilter, kWrap);
      for (int k = 0; k < 4; ++k) offset_[k][i] = f.offset[k];
      fraction_[0][i] = f.x.fraction;
      fraction_[1][i] = f.y.fraction;
    }
    nearest_ = kFilter == DIBR_FILTER_NEAREST;
    if (nearest_) return;
    using N = Pack<int32_t>;
    neighbours_ = 0;
    for (int i = 0; i < count; i += N::kLanes) {
      neighbours_ |= (N::load(offset_[1] + i) - N::load(offset_[0] + i) == N(1)).lanes() << i;
    }
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
  bool nearest_;
  uint32_t neighbours_;         // bit i: so are the texels of sample i in a row
  bool is_finite_[kRowPixels];  // where not all are
  int32_t offset_[4][kRowPixels];
  T fraction_[2][kRowPixels];
};

// Samples `count` channels from plane on into arrays.
template <int kCount, class T, class S>
void sample_few(const Footprints<T>& footprints, const S* plane, int64_t plane_size, Channels<T>& out) {
  for (int i = 0; i < footprints.distinct(); i += Footprints<T>::kAtOnce) {
    footprints.with_layout(i, [&](auto layout) DIBR_INLINE_LAMBDA {
      const auto weights = footprints.weights(i);
      for (int c = 0; c < kCount; ++c) {
        footprints.template sample<layout>(plane + c * plane_size, i, weights).store(out[c] + i);
      }
    });
  }
  if (footprints.distinct() == 1) {
    for (int c = 0; c < kCount; ++c) std::fill_n(out[c], footprints.samples(), T(out[c][0]));
  }
}

// Samples all channels of up to kRowPixels pixels, 0 where a uv is not finite. u and v as for Footprints::find.
template <class T, class S>
void sample_row(const SampledTexture<S>& texture, int columns, T* u, T* v, S* out) {
  Footprints<T> footprints;
  footprints.find(texture, columns, u, v);
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
