// Lanes<T, n>: n numbers, with the operators of one number, on every instruction set.
//
// A Pack is as wide as the machine's registers, so sums and products over its lanes would depend on them. Whatever
// works across lanes takes a number of them that is always the same instead, in one register or several: its results
// are the same bits everywhere, where nothing is fused (core/platform.h).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/platform.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Those of one number beside those of Lanes, which would hide them.
using dibr::absolute;
using dibr::maximum;
using dibr::minimum;

#define DIBR_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

// As many truth values as a register holds numbers: all bits of a lane, or none; with AVX-512, a mask register.
template <class T, int bytes>
struct RegisterFlags {
  typedef IntegerLike<T> Type __attribute__((vector_size(bytes)));
};
template <class T>
struct RegisterFlags<T, 64> {
  using Type = uint16_t;
};

// One register's part of n numbers, and what belongs to it.
template <class T, int n>
struct PartOf {
  static constexpr int kBytes = n * int(sizeof(T)) < kVectorBytes ? n * int(sizeof(T)) : kVectorBytes;
  static constexpr int kLanes = kBytes / int(sizeof(T)), kCount = n / kLanes;
  static constexpr bool kMasks = kBytes == 64;

  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef IntegerLike<T> Wide __attribute__((vector_size(kBytes)));
  typedef BitsOf<T> Bits __attribute__((vector_size(kBytes)));
  using Flags = typename RegisterFlags<T, kBytes>::Type;
};

// One truth value for each of n numbers T.
template <class T, int n>
struct LaneFlags {
  using P = PartOf<T, n>;
  typename P::Flags v[P::kCount];

  // Lane i is that of bit i.
  static DIBR_HD LaneFlags of(unsigned bits) {
    LaneFlags out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = part_of_bits(bits >> (i * P::kLanes));
    return out;
  }

  friend DIBR_HD LaneFlags operator&(LaneFlags a, LaneFlags b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] &= b.v[i];
    return a;
  }

  friend DIBR_HD LaneFlags operator|(LaneFlags a, LaneFlags b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] |= b.v[i];
    return a;
  }

  // Bit i is that of lane i.
  DIBR_HD unsigned bits() const {
    unsigned out = 0;
    for (int i = 0; i < P::kCount; ++i) out |= bits_of(v[i]) << (i * P::kLanes);
    return out;
  }

 private:
  static DIBR_HD typename P::Flags part_of_bits(unsigned bits) {
    if constexpr (P::kMasks) {
      return uint16_t(bits & ((1u << P::kLanes) - 1));
    } else {
      typename P::Wide lane_bits;
      for (int lane = 0; lane < P::kLanes; ++lane) lane_bits[lane] = IntegerLike<T>(1) << lane;
      const typename P::Wide all = IntegerLike<T>(bits) - typename P::Wide{};
      return equal(all & lane_bits, lane_bits);
    }
  }
  // Not as vectors compare in GNU C: with AVX-512 that goes through mask registers, and back.
  template <class Wide>
  static DIBR_HD Wide equal(Wide a, Wide b) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && sizeof(Wide) == 32) return Wide(_mm256_cmpeq_epi32(__m256i(a), __m256i(b)));
    if constexpr (sizeof(T) == 8 && sizeof(Wide) == 32) return Wide(_mm256_cmpeq_epi64(__m256i(a), __m256i(b)));
#endif
    return a == b;
  }
  template <class Flags>
  static DIBR_HD unsigned bits_of(Flags part) {
    if constexpr (P::kMasks) {
      return part;
    } else {
#if defined(__AVX2__)
      if constexpr (sizeof(T) == 4 && P::kBytes == 32) return unsigned(_mm256_movemask_ps(__m256(part)));
      if constexpr (sizeof(T) == 8 && P::kBytes == 32) return unsigned(_mm256_movemask_pd(__m256d(part)));
#endif
#if defined(__SSE2__)
      if constexpr (sizeof(T) == 4 && P::kBytes == 16) return unsigned(_mm_movemask_ps(__m128(part)));
      if constexpr (sizeof(T) == 8 && P::kBytes == 16) return unsigned(_mm_movemask_pd(__m128d(part)));
#endif
      unsigned out = 0;
      for (int i = 0; i < P::kLanes; ++i) out |= unsigned(part[i] < 0) << i;
      return out;
    }
  }
};

template <class T, int n>
struct Lanes {
  using P = PartOf<T, n>;
  using Part = typename P::Vector;
  using Flags = LaneFlags<T, n>;
  Part v[P::kCount];

  Lanes() = default;
  DIBR_HD Lanes(T x) {
    for (Part& part : v) part = x - Part{};
  }

  // Memory need not be aligned.
  static DIBR_HD Lanes load(const T* p) {
    Lanes out;
    for (int i = 0; i < P::kCount; ++i) std::memcpy(&out.v[i], p + i * P::kLanes, sizeof(Part));
    return out;
  }
  // Four numbers, again and again.
  static DIBR_HD Lanes repeat(const T* p) {
    Lanes out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = repeated(p + (P::kLanes < 4 ? i * P::kLanes % 4 : 0));
    return out;
  }
  // n / 4 numbers, each four times.
  static DIBR_HD Lanes each(const T* p) {
    Lanes out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = each_of(p + i * P::kLanes / 4);
    return out;
  }
  DIBR_HD void store(T* p) const {
    for (int i = 0; i < P::kCount; ++i) std::memcpy(p + i * P::kLanes, &v[i], sizeof(Part));
  }

  friend DIBR_HD Lanes operator+(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] += b.v[i];
    return a;
  }
  friend DIBR_HD Lanes operator-(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] -= b.v[i];
    return a;
  }
  friend DIBR_HD Lanes operator*(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] *= b.v[i];
    return a;
  }
  friend DIBR_HD Lanes operator/(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] /= b.v[i];
    return a;
  }
  DIBR_HD Lanes operator-() const {
    Lanes out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = -v[i];
    return out;
  }
  // Of integers.
  friend DIBR_HD Lanes operator&(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] &= b.v[i];
    return a;
  }
  friend DIBR_HD Lanes operator|(Lanes a, Lanes b) {
    for (int i = 0; i < P::kCount; ++i) a.v[i] |= b.v[i];
    return a;
  }
  friend DIBR_HD Lanes operator<<(Lanes a, int count) {
    for (Part& part : a.v) part <<= count;
    return a;
  }
  friend DIBR_HD Lanes operator>>(Lanes a, int count) {
    for (Part& part : a.v) part >>= count;
    return a;
  }
  friend DIBR_HD Flags operator<(Lanes a, Lanes b) {
    Flags out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = less<false>(a.v[i], b.v[i]);
    return out;
  }
  friend DIBR_HD Flags operator<=(Lanes a, Lanes b) {
    Flags out;
    for (int i = 0; i < P::kCount; ++i) out.v[i] = less<true>(a.v[i], b.v[i]);
    return out;
  }

 private:
  static DIBR_HD Part repeated(const T* p) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p));
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) return _mm512_maskz_broadcast_f64x4(0xff, _mm256_loadu_pd(p));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) {
      return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
    }
#endif
    Part out = {};
    std::memcpy(&out, p, sizeof(T) * (P::kLanes < 4 ? P::kLanes : 4));
    return out;
  }
  static DIBR_HD Part each_of(const T* p) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) {
      const __m256 low = _mm256_set_m128(_mm_set1_ps(p[1]), _mm_set1_ps(p[0]));
      const __m256 high = _mm256_set_m128(_mm_set1_ps(p[3]), _mm_set1_ps(p[2]));
      return _mm512_maskz_insertf32x8(0xffff, _mm512_castps256_ps512(low), high, 1);
    }
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) {
      return _mm512_maskz_insertf64x4(0xff, _mm512_set1_pd(p[0]), _mm256_set1_pd(p[1]), 1);
    }
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) return _mm256_set_m128(_mm_set1_ps(p[1]), _mm_set1_ps(p[0]));
#endif
    return *p - Part{};
  }
  // a < b, or a <= b.
  template <bool kOrEqual>
  static DIBR_HD typename P::Flags less(Part a, Part b) {
#if defined(__AVX2__)
    constexpr int kRelation = kOrEqual ? _CMP_LE_OQ : _CMP_LT_OQ;
    (void)kRelation;
#endif
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) return _mm512_cmp_ps_mask(a, b, kRelation);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) return _mm512_cmp_pd_mask(a, b, kRelation);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) return typename P::Flags(_mm256_cmp_ps(a, b, kRelation));
    if constexpr (sizeof(T) == 8 && P::kBytes == 32) return typename P::Flags(_mm256_cmp_pd(a, b, kRelation));
#endif
    if constexpr (!P::kMasks && kOrEqual) return a <= b;
    if constexpr (!P::kMasks && !kOrEqual) return a < b;
  }
};

constexpr int kEight = 8;
template <class T>
using Eight = Lanes<T, 8>;
template <class T>
using Sixteen = Lanes<T, 16>;

// c + a * b, or c - a * b, as dibr::fused and dibr::less_product are. Negating a first would be three instructions of
// the soft mask's fifty for a face and sixteen pixels.
template <bool kMinus, class T, int n>
DIBR_HD Lanes<T, n> product_onto(Lanes<T, n> c, Lanes<T, n> a, Lanes<T, n> b) {
  using P = PartOf<T, n>;
  for (int i = 0; i < P::kCount; ++i) {
    const auto x = a.v[i], y = b.v[i];
    auto& z = c.v[i];
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) z = kMinus ? _mm512_fnmadd_ps(x, y, z) : _mm512_fmadd_ps(x, y, z);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) z = kMinus ? _mm512_fnmadd_pd(x, y, z) : _mm512_fmadd_pd(x, y, z);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) z = kMinus ? _mm256_fnmadd_ps(x, y, z) : _mm256_fmadd_ps(x, y, z);
    if constexpr (sizeof(T) == 8 && P::kBytes == 32) z = kMinus ? _mm256_fnmadd_pd(x, y, z) : _mm256_fmadd_pd(x, y, z);
#endif
    if constexpr (P::kBytes == 16) {
      for (int k = 0; k < P::kLanes; ++k) {
        z[k] = kMinus ? dibr::less_product(z[k], x[k], y[k]) : dibr::fused(x[k], y[k], z[k]);
      }
    }
  }
  return c;
}
template <class T, int n>
DIBR_HD Lanes<T, n> fused(Lanes<T, n> a, Lanes<T, n> b, Lanes<T, n> c) {
  return product_onto<false>(c, a, b);
}
template <class T, int n>
DIBR_HD Lanes<T, n> less_product(Lanes<T, n> c, Lanes<T, n> a, Lanes<T, n> b) {
  return product_onto<true>(c, a, b);
}

// a where the flag is set, else b: what dibr::select is for one number.
template <class T, int n>
DIBR_HD Lanes<T, n> select(LaneFlags<T, n> flags, Lanes<T, n> a, Lanes<T, n> b) {
  using P = PartOf<T, n>;
  for (int i = 0; i < P::kCount; ++i) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) b.v[i] = _mm512_mask_blend_ps(flags.v[i], b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) b.v[i] = _mm512_mask_blend_pd(flags.v[i], b.v[i], a.v[i]);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) b.v[i] = _mm256_blendv_ps(b.v[i], a.v[i], __m256(flags.v[i]));
    if constexpr (sizeof(T) == 8 && P::kBytes == 32) b.v[i] = _mm256_blendv_pd(b.v[i], a.v[i], __m256d(flags.v[i]));
#endif
    if constexpr (P::kBytes == 16) b.v[i] = flags.v[i] ? a.v[i] : b.v[i];
  }
  return b;
}

// a where the flag is set, else 0.
template <class T, int n>
DIBR_HD Lanes<T, n> keep(LaneFlags<T, n> flags, Lanes<T, n> a) {
  using P = PartOf<T, n>;
  for (int i = 0; i < P::kCount; ++i) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) a.v[i] = _mm512_maskz_mov_ps(flags.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) a.v[i] = _mm512_maskz_mov_pd(flags.v[i], a.v[i]);
#endif
    if constexpr (!P::kMasks) a.v[i] = typename P::Vector(typename P::Wide(a.v[i]) & flags.v[i]);
  }
  return a;
}

// As dibr::minimum and dibr::maximum are, for NaN and signed zeros too. (GCC 12 warns of its own intrinsics without a
// mask.)
template <class T, int n>
DIBR_HD Lanes<T, n> minimum(Lanes<T, n> a, Lanes<T, n> b) {
  using P = PartOf<T, n>;
  for (int i = 0; i < P::kCount; ++i) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) a.v[i] = _mm512_maskz_min_ps(0xffff, b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) a.v[i] = _mm512_maskz_min_pd(0xff, b.v[i], a.v[i]);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) a.v[i] = _mm256_min_ps(b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 32) a.v[i] = _mm256_min_pd(b.v[i], a.v[i]);
#endif
    if constexpr (P::kBytes == 16) a.v[i] = b.v[i] < a.v[i] ? b.v[i] : a.v[i];
  }
  return a;
}
template <class T, int n>
DIBR_HD Lanes<T, n> maximum(Lanes<T, n> a, Lanes<T, n> b) {
  using P = PartOf<T, n>;
  for (int i = 0; i < P::kCount; ++i) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 64) a.v[i] = _mm512_maskz_max_ps(0xffff, b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 64) a.v[i] = _mm512_maskz_max_pd(0xff, b.v[i], a.v[i]);
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && P::kBytes == 32) a.v[i] = _mm256_max_ps(b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8 && P::kBytes == 32) a.v[i] = _mm256_max_pd(b.v[i], a.v[i]);
#endif
    if constexpr (P::kBytes == 16) a.v[i] = b.v[i] > a.v[i] ? b.v[i] : a.v[i];
  }
  return a;
}
template <class T, int n>
DIBR_HD Lanes<T, n> absolute(Lanes<T, n> a) {
  using P = PartOf<T, n>;
  for (auto& part : a.v) part = typename P::Vector(typename P::Bits(part) << 1 >> 1);
  return a;
}

// The largest integer below each number, which lies within 2^50 of 0, in the low bits of what is returned: as many as
// an integer has.
template <int n>
DIBR_HD Lanes<double, n> floor_in_low_bits(Lanes<double, n> a) {
  using L = Lanes<double, n>;
  const L shift = 0x1.8p52;  // leaves no place for a fraction, and room for negative numbers
  const L nearest = a + shift;
  return nearest - keep(a < nearest - shift, L(1.0));
}
// The low 16 bits of four numbers each, those of a lowest, as the bits of one.
template <int n>
DIBR_HD Lanes<double, n> low_shorts(Lanes<double, n> a, Lanes<double, n> b, Lanes<double, n> c, Lanes<double, n> d) {
  using P = PartOf<double, n>;
  using Bits = typename P::Bits;
  for (int i = 0; i < P::kCount; ++i) {
    a.v[i] = typename P::Vector((Bits(a.v[i]) & 0xffff) | (Bits(b.v[i]) & 0xffff) << 16 |
                                (Bits(c.v[i]) & 0xffff) << 32 | Bits(d.v[i]) << 48);
  }
  return a;
}

template <class T, int n>
DIBR_HD Lanes<T, n> exponent_from_low_bits(Lanes<T, n> a) {
  using P = PartOf<T, n>;
  for (auto& part : a.v) part = typename P::Vector(typename P::Bits(part) << (sizeof(T) == 8 ? 52 : 23));
  return a;
}

// Sixteen integers: all bits of number i, or none, as bit i is set.
DIBR_HD Sixteen<uint32_t> spread_bits(unsigned bits) {
  Sixteen<uint32_t> out;
#if defined(__AVX512F__)
  out.v[0] = decltype(out)::Part(_mm512_movm_epi32(__mmask16(bits)));
#else
  const auto flags = decltype(out)::Flags::of(bits);
  for (int i = 0; i < decltype(out)::P::kCount; ++i) out.v[i] = decltype(out)::Part(flags.v[i]);
#endif
  return out;
}
// Bit i is the highest one of number i.
DIBR_HD unsigned highest_bits(Sixteen<uint32_t> a) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(__m512i(a.v[0]));
#else
  decltype(a)::Flags flags;
  for (int i = 0; i < decltype(a)::P::kCount; ++i) flags.v[i] = decltype(a)::P::Flags(a.v[i]);
  return flags.bits();
#endif
}
// All bits of a number that is above 0 as a signed one, else none.
DIBR_HD Sixteen<uint32_t> positive(Sixteen<uint32_t> a) {
  for (auto& part : a.v) part = decltype(a)::Part(decltype(a)::P::Wide(-part) >> 31);
  return a;
}

// How many bits are set of eight.
struct BitCounts {
  uint8_t of[256] = {};
  constexpr BitCounts() {
    for (int bits = 1; bits < 256; ++bits) of[bits] = uint8_t(of[bits / 2] + bits % 2);
  }
};
constexpr BitCounts kBitCounts;

// Of sixteen.
DIBR_HD int count_bits(unsigned bits) {
#if defined(__POPCNT__)
  return __builtin_popcount(bits);
#else
  return kBitCounts.of[bits & 255] + kBitCounts.of[bits >> 8];
#endif
}

// Of eight bits, the places of those that are set: a byte each, the first one lowest.
struct SetPlaces {
  uint64_t of[256] = {};
  constexpr SetPlaces() {
    for (int bits = 0; bits < 256; ++bits) {
      for (int place = 0, count = 0; place < 8; ++place) {
        if ((bits >> place & 1) != 0) of[bits] |= uint64_t(place) << (8 * count++);
      }
    }
  }
};
constexpr SetPlaces kSetPlaces;
#if defined(__AVX2__)
DIBR_HD __m256i set_places(unsigned bits) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kSetPlaces.of[bits])));
}
#endif

// Writes those of sixteen numbers whose bits are set to out, which has room for sixteen.
DIBR_HD void append_set(const uint32_t* numbers, unsigned bits, uint32_t* out) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(__mmask16(bits), _mm512_loadu_si512(numbers)));
#elif defined(__AVX2__)
  const auto append_eight = [](const uint32_t* eight, unsigned set, uint32_t* to) DIBR_INLINE_LAMBDA {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(eight));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(all, set_places(set)));
  };
  append_eight(numbers, bits & 255, out);
  append_eight(numbers + 8, bits >> 8, out + __builtin_popcount(bits & 255));
#else
  int count = 0;
  for (int i = 0; i < 16; ++i) {
    out[count] = numbers[i];
    count += bits >> i & 1;
  }
#endif
}

// The same of the numbers first, first + 1, ...
DIBR_HD void append_places(int32_t first, unsigned bits, int32_t* out) {
#if defined(__AVX512F__)
  const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(first), places);
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(__mmask16(bits), all));
#elif defined(__AVX2__)
  const auto append_eight = [](int32_t from, unsigned set, int32_t* to) DIBR_INLINE_LAMBDA {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_add_epi32(_mm256_set1_epi32(from), set_places(set)));
  };
  append_eight(first, bits & 255, out);
  append_eight(first + 8, bits >> 8, out + __builtin_popcount(bits & 255));
#else
  int count = 0;
  for (int i = 0; i < 16; ++i) {
    out[count] = first + i;
    count += bits >> i & 1;
  }
#endif
}

// As other numbers.
template <class U, class T, int n>
DIBR_HD Lanes<U, n> converted(Lanes<T, n> a) {
  if constexpr (std::is_same_v<U, T>) {
    return a;
  } else {
    constexpr int kLanes = PartOf<U, n>::kLanes < PartOf<T, n>::kLanes ? PartOf<U, n>::kLanes : PartOf<T, n>::kLanes;
    typedef T From __attribute__((vector_size(kLanes * sizeof(T))));
    typedef U To __attribute__((vector_size(kLanes * sizeof(U))));
    Lanes<U, n> out;
    for (int i = 0; i < n / kLanes; ++i) {
      From from;
      std::memcpy(&from, reinterpret_cast<const char*>(a.v) + i * sizeof from, sizeof from);
      const To to = __builtin_convertvector(from, To);
      std::memcpy(reinterpret_cast<char*>(out.v) + i * sizeof to, &to, sizeof to);
    }
    return out;
  }
}

// The pairs (x, y) at the eight pointers at(0) to at(7).
template <class T, class At>
DIBR_HD void load_pairs(const At& at, Eight<T>* x, Eight<T>* y) {
  T lanes[2][kEight];
  for (int i = 0; i < kEight; ++i) {
    lanes[0][i] = at(i)[0];
    lanes[1][i] = at(i)[1];
  }
  *x = Eight<T>::load(lanes[0]);
  *y = Eight<T>::load(lanes[1]);
}
#if defined(__SSE2__)
// Without a detour through memory, where what is stored in small pieces and loaded as a whole has to wait.
template <class At>
DIBR_HD void load_pairs(const At& at, Eight<float>* x, Eight<float>* y) {
  const auto two = [&](int i) DIBR_INLINE_LAMBDA {
    double pairs[2];  // pairs of texels lie at any float
    std::memcpy(&pairs[0], at(i), sizeof pairs[0]);
    std::memcpy(&pairs[1], at(i + 1), sizeof pairs[1]);
    return _mm_castpd_ps(_mm_set_pd(pairs[1], pairs[0]));
  };
  __m128 columns[2], rows[2];
  for (int half = 0; half < 2; ++half) {
    const __m128 a = two(4 * half), b = two(4 * half + 2);
    columns[half] = _mm_shuffle_ps(a, b, 0x88);
    rows[half] = _mm_shuffle_ps(a, b, 0xdd);
  }
#if defined(__AVX2__)
  x->v[0] = _mm256_set_m128(columns[1], columns[0]);
  y->v[0] = _mm256_set_m128(rows[1], rows[0]);
#else
  for (int half = 0; half < 2; ++half) {
    x->v[half] = columns[half];
    y->v[half] = rows[half];
  }
#endif
}
template <class At>
DIBR_HD void load_pairs(const At& at, Eight<double>* x, Eight<double>* y) {
  __m128d columns[4], rows[4];
  for (int two = 0; two < 4; ++two) {
    const __m128d a = _mm_loadu_pd(at(2 * two)), b = _mm_loadu_pd(at(2 * two + 1));
    columns[two] = _mm_unpacklo_pd(a, b);
    rows[two] = _mm_unpackhi_pd(a, b);
  }
  const auto set = [](const __m128d* parts, Eight<double>* out) DIBR_INLINE_LAMBDA {
#if defined(__AVX2__)
    const __m256d low = _mm256_set_m128d(parts[1], parts[0]), high = _mm256_set_m128d(parts[3], parts[2]);
#if defined(__AVX512F__)
    out->v[0] = _mm512_maskz_insertf64x4(0xff, _mm512_castpd256_pd512(low), high, 1);
#else
    out->v[0] = low;
    out->v[1] = high;
#endif
#else
    for (int two = 0; two < 4; ++two) out->v[two] = parts[two];
#endif
  };
  set(columns, x);
  set(rows, y);
}
#endif

// Eight times four numbers, number i of each to out i.
template <class T>
DIBR_HD void load_fours(const T* p, Eight<T>* a, Eight<T>* b, Eight<T>* c, Eight<T>* d) {
  T lanes[4][kEight];
  for (int i = 0; i < 4 * kEight; ++i) lanes[i % 4][i / 4] = p[i];
  *a = Eight<T>::load(lanes[0]);
  *b = Eight<T>::load(lanes[1]);
  *c = Eight<T>::load(lanes[2]);
  *d = Eight<T>::load(lanes[3]);
}
// The other way round: number i of each to p + stride * i.
template <class T>
DIBR_HD void store_fours(Eight<T> a, Eight<T> b, Eight<T> c, Eight<T> d, T* p, int stride) {
  T lanes[4][kEight];
  a.store(lanes[0]);
  b.store(lanes[1]);
  c.store(lanes[2]);
  d.store(lanes[3]);
  for (int i = 0; i < 4 * kEight; ++i) p[i / 4 * stride + i % 4] = lanes[i % 4][i / 4];
}
// Adds the sum of the sixteen lanes of each of six to p[0], p[1], ...; p has room for eight.
template <class T>
DIBR_HD void add_totals(const Sixteen<T> (&all)[6], T* p) {
  for (int k = 0; k < 6; ++k) {
    T lanes[16], sums[4];
    all[k].store(lanes);
    for (int i = 0; i < 4; ++i) sums[i] = (lanes[i] + lanes[i + 8]) + (lanes[i + 4] + lanes[i + 12]);
    p[k] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
}
// a[0], b[0], a[1], b[1], ...
template <class T>
DIBR_HD void store_pairs(Eight<T> a, Eight<T> b, T* out) {
  T lanes[2][kEight];
  a.store(lanes[0]);
  b.store(lanes[1]);
  for (int i = 0; i < 2 * kEight; ++i) out[i] = lanes[i % 2][i / 2];
}
// Two pairs of numbers, each twice.
template <class T>
DIBR_HD Eight<T> load_pairs_twice(const T* p) {
  const T lanes[kEight] = {p[0], p[1], p[0], p[1], p[2], p[3], p[2], p[3]};
  return Eight<T>::load(lanes);
}
// a[i], not negative, rounded to an integer below, less less[i].
template <class T>
DIBR_HD void store_rounded_down(Eight<T> a, const int32_t* less, int16_t* out) {
  T lanes[kEight];
  a.store(lanes);
  for (int i = 0; i < kEight; ++i) out[i] = int16_t(int32_t(lanes[i]) - less[i]);
}
#if defined(__SSE2__)
DIBR_HD void load_fours(const float* p, Eight<float>* a, Eight<float>* b, Eight<float>* c, Eight<float>* d) {
  __m128 h[2][4];
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i) h[half][i] = _mm_loadu_ps(p + 16 * half + 4 * i);
    _MM_TRANSPOSE4_PS(h[half][0], h[half][1], h[half][2], h[half][3]);
  }
#if defined(__AVX2__)
  a->v[0] = _mm256_set_m128(h[1][0], h[0][0]);
  b->v[0] = _mm256_set_m128(h[1][1], h[0][1]);
  c->v[0] = _mm256_set_m128(h[1][2], h[0][2]);
  d->v[0] = _mm256_set_m128(h[1][3], h[0][3]);
#else
  for (int half = 0; half < 2; ++half) {
    a->v[half] = h[half][0];
    b->v[half] = h[half][1];
    c->v[half] = h[half][2];
    d->v[half] = h[half][3];
  }
#endif
}
DIBR_HD void store_fours(Eight<float> a, Eight<float> b, Eight<float> c, Eight<float> d, float* p, int stride) {
  for (int half = 0; half < 2; ++half) {
#if defined(__AVX2__)
    const auto part = [&](Eight<float> v) DIBR_INLINE_LAMBDA {
      return half == 0 ? _mm256_castps256_ps128(v.v[0]) : _mm256_extractf128_ps(v.v[0], 1);
    };
#else
    const auto part = [&](Eight<float> v) DIBR_INLINE_LAMBDA { return v.v[half]; };
#endif
    __m128 r[4] = {part(a), part(b), part(c), part(d)};
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + stride * (4 * half + i), r[i]);
  }
}
#if defined(__AVX512F__)
DIBR_HD void add_totals(const Sixteen<float> (&all)[6], float* p) {
  // Halves of two, then quarters of four, then of all six the even and the odd lanes.
  const auto halves = [&](int i) DIBR_INLINE_LAMBDA {
    const __m512 a = all[i].v[0], b = all[i + 1].v[0];
    return _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x44) + _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xee);
  };
  const auto quarters = [](__m512 a, __m512 b) DIBR_INLINE_LAMBDA {
    return _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x88) + _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xdd);
  };
  const __m512 last = halves(4), four = quarters(halves(0), halves(2)), two = quarters(last, last);
  const __m512 pairs =
      _mm512_maskz_shuffle_ps(0xffff, four, two, 0x88) + _mm512_maskz_shuffle_ps(0xffff, four, two, 0xdd);
  const __m512 sums = pairs + _mm512_maskz_permute_ps(0xffff, pairs, 0xb1);
  const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512 six = _mm512_maskz_permutexvar_ps(0x3f, places, sums);
  _mm256_storeu_ps(p, _mm256_add_ps(_mm256_loadu_ps(p), _mm512_maskz_extractf32x8_ps(0xff, six, 0)));
}
#else
DIBR_HD void add_totals(const Sixteen<float> (&all)[6], float* p) {
  const auto fours = [&](int i) DIBR_INLINE_LAMBDA {
    const Sixteen<float>& a = all[i];
#if defined(__AVX2__)
    const __m256 eight = _mm256_add_ps(a.v[0], a.v[1]);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#else
    return _mm_add_ps(_mm_add_ps(a.v[0], a.v[2]), _mm_add_ps(a.v[1], a.v[3]));
#endif
  };
  const auto add = [](__m128 a, __m128 b, __m128 c, __m128 d, float* out) DIBR_INLINE_LAMBDA {
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), _mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d))));
  };
  add(fours(0), fours(1), fours(2), fours(3), p);
  add(fours(4), fours(5), _mm_setzero_ps(), _mm_setzero_ps(), p + 4);
}
#endif
DIBR_HD void store_pairs(Eight<float> a, Eight<float> b, float* out) {
#if defined(__AVX2__)
  const __m256 low = _mm256_unpacklo_ps(a.v[0], b.v[0]), high = _mm256_unpackhi_ps(a.v[0], b.v[0]);
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
#else
  for (int half = 0; half < 2; ++half) {
    _mm_storeu_ps(out + 8 * half, _mm_unpacklo_ps(a.v[half], b.v[half]));
    _mm_storeu_ps(out + 8 * half + 4, _mm_unpackhi_ps(a.v[half], b.v[half]));
  }
#endif
}
DIBR_HD Eight<float> load_pairs_twice(const float* p) {
  Eight<float> out;
#if defined(__AVX2__)
  const __m256d pairs = _mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
  out.v[0] = _mm256_castpd_ps(_mm256_permute_pd(pairs, 0xc));
#else
  for (int i = 0; i < 2; ++i) out.v[i] = _mm_castpd_ps(_mm_load1_pd(reinterpret_cast<const double*>(p + 2 * i)));
#endif
  return out;
}
DIBR_HD void store_rounded_down(Eight<float> a, const int32_t* less, int16_t* out) {
  __m128i parts[2];
#if defined(__AVX2__)
  const __m256i all = _mm256_cvttps_epi32(a.v[0]);
  parts[0] = _mm256_castsi256_si128(all);
  parts[1] = _mm256_extracti128_si256(all, 1);
#else
  for (int i = 0; i < 2; ++i) parts[i] = _mm_cvttps_epi32(a.v[i]);
#endif
  for (int i = 0; i < 2; ++i) {
    parts[i] = _mm_sub_epi32(parts[i], _mm_loadu_si128(reinterpret_cast<const __m128i*>(less + 4 * i)));
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packs_epi32(parts[0], parts[1]));
}
#endif

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
