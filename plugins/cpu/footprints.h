// Samples of a texture, a short row of them at once: the same bits as core/texture.h and core/mipmap.h give for each.
// What the rows of Texture and of Render have in common.
#pragma once

#include <algorithm>

#include "core/mipmap.h"
#include "core/texture.h"
#include "cpu/channels.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// A plane of texels for each channel.
template <class S>
struct Planes {
  const S* first;
  int64_t size;

  DIBR_HD const S* operator[](int64_t channel) const { return first + channel * size; }
};

// One texture, [C, Ht, Wt] of S, and how it is sampled: nearest or bilinear.
template <class S>
struct SampledTexture {
  static constexpr bool kHasLevels = false;
  Planes<S> texels;
  int64_t channels;
  int32_t height, width;
  dibr_filter filter;
  dibr_wrap wrap;
};

// For eight samples of which some, those with a bit in is_reduced, lie on the levels below the texture.
template <class S, class T>
struct EitherPlane {
  const S* texels;
  const T* reduced;
  uint32_t is_reduced;
};
template <class S, class T>
struct EitherPlanes {
  Planes<S> texels;
  Planes<T> reduced;
  uint32_t is_reduced;

  DIBR_HD EitherPlane<S, T> operator[](int64_t channel) const {
    return {texels[channel], reduced[channel], is_reduced};
  }
};

// The sizes of the levels of a mip chain, and where each begins in a plane: of the texture itself, or of those below.
struct Levels {
  int last;
  int32_t height[kMaxMipLevels], width[kMaxMipLevels], begin[kMaxMipLevels];

  explicit Levels(const MipChain& chain) : last(chain.levels - 1) {
    for (int level = 0; level <= last; ++level) {
      height[level] = int32_t(chain.height_at(level));
      width[level] = int32_t(chain.width_at(level));
      begin[level] = int32_t(level == 0 ? 0 : chain.offset[level] - chain.offset[1]);
    }
  }
};

// One that is sampled trilinear. A plane of `reduced` has the levels below the texture, one after another.
template <class S>
struct MippedTexture : SampledTexture<S> {
  static constexpr bool kHasLevels = true;
  using T = typename ComputeOf<S>::Type;
  const Levels* levels;
  Planes<T> reduced;

  DIBR_HD EitherPlanes<S, T> either(uint32_t is_reduced) const { return {this->texels, reduced, is_reduced}; }
};

// The texels and fractions of up to kMostPixels samples, an array for each of their numbers. A trilinear sample blends
// two bilinear ones, its parts, each of a level; every other sample is one part.
template <class T>
class Footprints {
 public:
  static constexpr int kAtOnce = kEight;
  // Samples come in as many as this, or a multiple: whole registers, of their offsets too.
  static constexpr int kWhole = std::max(kAtOnce, Pack<int32_t>::kLanes);

  // `at`, u and v, is changed: a sample where they are not finite is one of uv 0, and beyond the samples comes the
  // first one again.
  template <class S>
  void find(const SampledTexture<S>& texture, int count, Channels<T>& at, bool /*slopes*/ = false) {
    prepare<2>(count, at);
    parts_ = 1;
    nearest_ = texture.filter == DIBR_FILTER_NEAREST;
    const OneLevel level = {texture.height, texture.width, 0};
    if (nearest_) {
      find<DIBR_FILTER_NEAREST>(texture.wrap, level, at, part_[0]);
    } else {
      find<DIBR_FILTER_BILINEAR>(texture.wrap, level, at, part_[0]);
    }
  }
  // `at` has the mip level too. Without a sample that blends two levels there is one part, unless `slopes` asks for
  // both levels of samples between which the value changes.
  template <class S>
  void find(const MippedTexture<S>& texture, int count, Channels<T>& at, bool slopes = false) {
    const int last = texture.levels->last;
    for (int i = 0; i < count; ++i) at[2][i] = clamped_level(at[2][i], T(last));
    prepare<3>(count, at);
    nearest_ = false;
    const int whole = places();
    int blended = 0, sloped = 0;
    for (int i = 0; i < whole; ++i) {
      const T cell = rounded_down(at[2][i]);
      const int32_t level = int32_t(cell);
      part_[0].level[i] = level;
      part_[1].level[i] = minimum(level + 1, last);
      blend_[i] = at[2][i] - cell;
      blended |= blend_[i] > T(0);
      sloped |= level < last;
    }
    parts_ = blended != 0 || (slopes && sloped != 0) ? 2 : 1;
    for (int part = 0; part < parts_; ++part) find_on_levels(texture, at, part_[part]);
  }

  bool are_finite() const { return finite_; }
  bool is_finite(int i) const { return finite_ || is_finite_[i]; }
  int samples() const { return samples_; }
  // How many differ: 1 where all are the same, as they are on background, else all.
  int distinct() const { return same_ ? 1 : samples_; }

  // How many parts there are at most, how many sample i has, and what each of these counts.
  int parts() const { return parts_; }
  int parts(int i) const { return parts_ == 2 && blend_[place(i)] > T(0) ? 2 : 1; }
  T part_weight(int part, int i) const { return part == 0 ? T(1) - blend_[place(i)] : blend_[place(i)]; }
  DIBR_HD Eight<T> part_weights(int part, int i) const {
    const Eight<T> blend = Eight<T>::load(blend_ + place(i));
    return part == 0 ? Eight<T>(T(1)) - blend : blend;
  }
  // Of samples i to i + kAtOnce whose parts have these values: what the samples have.
  DIBR_HD Eight<T> blended(int i, Eight<T> first, Eight<T> second) const {
    const Eight<T> blend = Eight<T>::load(blend_ + place(i));
    return select(Eight<T>(T(0)) < blend, (Eight<T>(T(1)) - blend) * first + blend * second, first);
  }

  // Where texel k of a part of sample i lies in its plane.
  int32_t offset(int part, int k, int i) const { return part_[part].offset[k][place(i)]; }
  // The level, of a texture that has them, and its size.
  int32_t level(int part, int i) const { return part_[part].level[place(i)]; }
  int32_t height(int part, int i) const { return part_[part].levels.height[place(i)]; }
  int32_t width(int part, int i) const { return part_[part].levels.width[place(i)]; }

  // Eight samples' numbers for each of the four texels: what they count, or their values.
  struct Four {
    Eight<T> of[4];
  };
  // Of a part of samples i to i + kAtOnce.
  DIBR_HD Four weights(int part, int i) const {
    const Eight<T> x = fraction(part, 0, i), y = fraction(part, 1, i), one = T(1);
    return {{(one - y) * (one - x), (one - y) * x, y * (one - x), y * x}};
  }
  // Calls body(texels) for them: texels(channel) are the values there.
  template <class Texture, class Body>
  DIBR_HD void with_texels(const Texture& texture, int part, int i, const Body& body) const {
    const Part& p = part_[part];
    const auto use = [&](auto layout, const auto& planes) DIBR_INLINE_LAMBDA {
      body([&](int64_t channel) DIBR_INLINE_LAMBDA { return texels<layout>(planes[channel], p, place(i)); });
    };
    constexpr uint32_t kAll = (1u << kAtOnce) - 1;
    const bool pairs = (bits_from(p.neighbours, place(i)) & kAll) == kAll;
    if constexpr (Texture::kHasLevels) {
      const uint32_t is_reduced = bits_from(p.is_reduced, place(i)) & kAll;
      if (is_reduced == kAll) return pairs ? use(kPairs, texture.reduced) : use(kFour, texture.reduced);
      if (is_reduced != 0) return use(kFour, texture.either(is_reduced));
    } else if (nearest_) {
      return use(kOne, texture.texels);
    }
    pairs ? use(kPairs, texture.texels) : use(kFour, texture.texels);
  }
  // The mean of four texels, and how it changes with the texel coordinates.
  DIBR_HD static Eight<T> mean(const Four& weights, const Four& t) {
    return weights.of[0] * t.of[0] + weights.of[1] * t.of[1] + weights.of[2] * t.of[2] + weights.of[3] * t.of[3];
  }
  DIBR_HD Eight<T> x_slope(int part, int i, const Four& t) const {
    const Eight<T> y = fraction(part, 1, i);
    return (Eight<T>(T(1)) - y) * (t.of[1] - t.of[0]) + y * (t.of[3] - t.of[2]);
  }
  DIBR_HD Eight<T> y_slope(int part, int i, const Four& t) const {
    const Eight<T> x = fraction(part, 0, i);
    return (Eight<T>(T(1)) - x) * (t.of[2] - t.of[0]) + x * (t.of[3] - t.of[1]);
  }

 private:
  // How the four texels of a sample lie: all in one place, two neighbours in a row and two in another, or anyhow.
  enum class Layout { kOne, kPairs, kFour };
  static constexpr std::integral_constant<Layout, Layout::kOne> kOne = {};
  static constexpr std::integral_constant<Layout, Layout::kPairs> kPairs = {};
  static constexpr std::integral_constant<Layout, Layout::kFour> kFour = {};

  // The size of a level and where it begins in a plane: one for all samples, or one for each.
  struct OneLevel {
    int32_t height, width, begin;
    DIBR_HD OneLevel of(int) const { return *this; }
  };
  struct LevelOfEach {
    int32_t height[kMostPixels], width[kMostPixels], begin[kMostPixels];
    DIBR_HD OneLevel of(int i) const { return {height[i], width[i], begin[i]}; }
  };

  static constexpr int kWord = 32, kWords = kMostPixels / kWord;
  // A Pack's bits, or those of eight samples, are in one word.
  static DIBR_HD uint32_t bits_from(const uint32_t* words, int i) { return words[i / kWord] >> (i % kWord); }

  struct alignas(kVectorBytes) Part {
    int32_t offset[4][kMostPixels];
    T fraction[2][kMostPixels];
    int32_t level[kMostPixels];  // this and what follows, of a texture with levels
    LevelOfEach levels;
    uint32_t neighbours[kWords];  // a bit for each sample: so are its texels in a row
    uint32_t is_reduced[kWords];  // it lies on a level below the texture
  };

  template <int kCoordinates>
  void prepare(int count, Channels<T>& at) {
    using N = Pack<T>;
    samples_ = count;
    for (int i = count; i % kWhole != 0; i += N::kLanes - i % N::kLanes) {
      for (int k = 0; k < kCoordinates; ++k) N(at[k][0]).store(at[k] + i);
    }
    const auto is_finite = [&](int k, int i) { return N::load(at[k] + i) - N::load(at[k] + i) == N(T(0)); };
    finite_ = all<kCoordinates>(count, is_finite);
    if (!finite_) clear_what_is_not_finite<kCoordinates>(at);
    same_ = all<kCoordinates>(count, [&](int k, int i) { return N::load(at[k] + i) == N(at[k][0]); });
  }
  // Whether test(k, i) is true for every coordinate k and all lanes of each Pack of samples, the first of which is
  // sample i.
  template <int kCoordinates, class Test>
  static DIBR_HD bool all(int count, const Test& test) {
    constexpr uint32_t kAll = ~0u >> (32 - Pack<T>::kLanes);
    uint32_t lanes = kAll;
    for (int i = 0; i < count; i += Pack<T>::kLanes) {
      Mask<T> of_all = test(0, i);
      for (int k = 1; k < kCoordinates; ++k) of_all = of_all & test(k, i);
      lanes &= of_all.lanes();
    }
    return lanes == kAll;
  }
  template <int kCoordinates>
  void clear_what_is_not_finite(Channels<T>& at) {
    for (int i = 0; i < (samples_ + kWhole - 1) / kWhole * kWhole; ++i) {
      is_finite_[i] = true;
      for (int k = 0; k < kCoordinates; ++k) is_finite_[i] &= at[k][i] - at[k][i] == T(0);
      for (int k = 0; !is_finite_[i] && k < kCoordinates; ++k) at[k][i] = T(0);
    }
  }

  // Where the samples' levels have their texels.
  template <class S>
  void find_on_levels(const MippedTexture<S>& texture, const Channels<T>& at, Part& part) {
    const Levels& levels = *texture.levels;
    using N = Pack<int32_t>;
    const int count = places();
    const N first = part.level[0];
    bool one = true;
    std::fill_n(part.is_reduced, kWords, 0u);
    for (int i = 0; i < count; i += N::kLanes) {
      const N level = N::load(part.level + i);
      one &= !((level < first) | (level > first)).any();
      part.is_reduced[i / kWord] |= (level > N(0)).lanes() << (i % kWord);
    }
    if (one) {
      const int32_t level = part.level[0];
      std::fill_n(part.levels.height, count, levels.height[level]);
      std::fill_n(part.levels.width, count, levels.width[level]);
      const OneLevel size = {levels.height[level], levels.width[level], levels.begin[level]};
      find<DIBR_FILTER_BILINEAR>(texture.wrap, size, at, part);
    } else {
      for (int i = 0; i < count; ++i) {
        part.levels.height[i] = levels.height[part.level[i]];
        part.levels.width[i] = levels.width[part.level[i]];
        part.levels.begin[i] = levels.begin[part.level[i]];
      }
      find<DIBR_FILTER_BILINEAR>(texture.wrap, part.levels, at, part);
    }
  }
  template <dibr_filter kFilter, class Sizes>
  void find(dibr_wrap wrap, const Sizes& sizes, const Channels<T>& at, Part& part) {
    if (wrap == DIBR_WRAP_CLAMP) return find<kFilter, DIBR_WRAP_CLAMP>(sizes, at[0], at[1], part);
    if (wrap == DIBR_WRAP_REPEAT) return find<kFilter, DIBR_WRAP_REPEAT>(sizes, at[0], at[1], part);
    find<kFilter, DIBR_WRAP_MIRROR>(sizes, at[0], at[1], part);
  }
  template <dibr_filter kFilter, dibr_wrap kWrap, class Sizes>
  void find(const Sizes& sizes, const T* __restrict u, const T* __restrict v, Part& __restrict part) {
    const int count = places();
    for (int i = 0; i < count; ++i) {
      const OneLevel level = sizes.of(i);
      const Footprint<T, int32_t> f = texture_footprint(u[i], v[i], level.height, level.width, kFilter, kWrap);
      for (int k = 0; k < 4; ++k) part.offset[k][i] = f.offset[k] + level.begin;
      part.fraction[0][i] = f.x.fraction;
      part.fraction[1][i] = f.y.fraction;
    }
    if (kFilter == DIBR_FILTER_NEAREST) return;
    using N = Pack<int32_t>;
    std::fill_n(part.neighbours, kWords, 0u);
    for (int i = 0; i < count; i += N::kLanes) {
      const Mask<int32_t> are = N::load(part.offset[1] + i) - N::load(part.offset[0] + i) == N(1);
      part.neighbours[i / kWord] |= are.lanes() << (i % kWord);
    }
  }

  // How many there are of those that differ, filled up to whole registers, and where sample i stands among them.
  int places() const { return (distinct() + kWhole - 1) / kWhole * kWhole; }
  DIBR_HD int place(int i) const { return same_ ? 0 : i; }
  DIBR_HD Eight<T> fraction(int part, int axis, int i) const {
    return Eight<T>::load(part_[part].fraction[axis] + place(i));
  }

  // The four texels of the samples at places i to i + kAtOnce.
  template <Layout kLayout, class Plane>
  static DIBR_HD Four texels(const Plane& plane, const Part& part, int i) {
    Four t;
    if constexpr (kLayout == Layout::kOne) {
      t.of[0] = t.of[1] = t.of[2] = t.of[3] = each(plane, part.offset[0] + i);
    } else if constexpr (kLayout == Layout::kPairs) {
      pairs(plane, part.offset[0] + i, &t.of[0], &t.of[1]);
      pairs(plane, part.offset[2] + i, &t.of[2], &t.of[3]);
    } else {
      for (int k = 0; k < 4; ++k) t.of[k] = each(plane, part.offset[k] + i);
    }
    return t;
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
  template <class S>
  static DIBR_HD Eight<T> each(const EitherPlane<S, T>& plane, const int32_t* offset) {
    T lanes[kEight];
    if constexpr (std::is_same_v<S, T>) {
      const T* planes[2] = {plane.texels, plane.reduced};  // no branches: which it is changes from sample to sample
      for (int i = 0; i < kEight; ++i) lanes[i] = planes[plane.is_reduced >> i & 1][offset[i]];
    } else {
      for (int i = 0; i < kEight; ++i) {
        lanes[i] = plane.is_reduced >> i & 1 ? plane.reduced[offset[i]] : load(plane.texels[offset[i]]);
      }
    }
    return Eight<T>::load(lanes);
  }

  int samples_, parts_;
  bool finite_, same_;
  bool nearest_;
  bool is_finite_[kMostPixels];  // where not all are
  T blend_[kMostPixels];         // how far from the first part to the second, of a texture with levels
  Part part_[2];
};

// Where all samples are the same: the first one's numbers to all.
template <class T>
void spread(const Footprints<T>& footprints, int count, Channels<T>& channels) {
  if (footprints.distinct() != 1) return;
  for (int c = 0; c < count; ++c) std::fill_n(channels[c], footprints.samples(), T(channels[c][0]));
}

// Samples kCount channels from `channel` on into arrays.
template <int kCount, class T, class Texture>
void sample_few(const Footprints<T>& footprints, const Texture& texture, int64_t channel, Channels<T>& out) {
  for (int part = 0; part < (Texture::kHasLevels ? footprints.parts() : 1); ++part) {
    for (int i = 0; i < footprints.distinct(); i += Footprints<T>::kAtOnce) {
      footprints.with_texels(texture, part, i, [&](const auto& texels) DIBR_INLINE_LAMBDA {
        const auto weights = footprints.weights(part, i);
        for (int c = 0; c < kCount; ++c) {
          Eight<T> value = footprints.mean(weights, texels(channel + c));
          if (part == 1) value = footprints.blended(i, Eight<T>::load(out[c] + i), value);
          value.store(out[c] + i);
        }
      });
    }
  }
  spread(footprints, kCount, out);
}

// Pixels that follow each other in an image, of those that are sampled together.
struct SampledRun {
  int first, count;
  int64_t pixel;  // in the image, of the first one
};

// Samples all channels of the pixels of some runs, one after another, up to kMostPixels; 0 where they are not finite.
// `at` as for Footprints::find; `out` points to the image.
template <class T, class Texture, class S>
void sample_runs(const Texture& texture, const SampledRun* runs, int count, Channels<T>& at, S* out) {
  const int64_t all = texture.channels;
  Footprints<T> footprints;
  footprints.find(texture, runs[count - 1].first + runs[count - 1].count, at);
  for (int64_t c = 0; c < all; c += kFewChannels) {
    Channels<T> channels;
    with_few(all - c, [&](auto few) {
      sample_few<few>(footprints, texture, c, channels);
      for (int i = 0; i < count; ++i) {
        store_few<few>(channels, runs[i].first, runs[i].count, all, out + runs[i].pixel * all + c);
      }
    });
  }
  for (int i = 0; !footprints.are_finite() && i < count; ++i) {
    for (int x = 0; x < runs[i].count; ++x) {
      if (!footprints.is_finite(runs[i].first + x)) std::fill_n(out + (runs[i].pixel + x) * all, all, S{});
    }
  }
}
// Of a single run, whose first pixel `out` points to.
template <class T, class Texture, class S>
void sample_row(const Texture& texture, int columns, Channels<T>& at, S* out) {
  const SampledRun run = {0, columns, 0};
  sample_runs(texture, &run, 1, at, out);
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
