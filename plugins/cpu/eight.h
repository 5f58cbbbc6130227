// Eight<T>: eight numbers, with the operators of one number, on every instruction set.
//
// A Pack is as wide as the machine's registers, so sums over its lanes would depend on them. Whatever adds up lanes
// works on eight instead, in one register or several: its results are the same bits everywhere. Eight floats are also
// what suits pixels along an outline, of which a register of sixteen would hold many that a face has nothing to do
// with.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/platform.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

constexpr int kEight = 8;

#if defined(__AVX2__)
#define DIBR_EIGHT_BYTES 32
#else
#define DIBR_EIGHT_BYTES 16  // SSE2, NEON
#endif

// One register of T, and the masks and bits that belong to it.
template <class T>
struct PartOf;
template <>
struct PartOf<float> {
  typedef float Vector __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  typedef int32_t Flags __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  typedef uint32_t Bits __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  static constexpr int kMantissa = 23;
};
template <>
struct PartOf<double> {
  typedef double Vector __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  typedef int64_t Flags __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  typedef uint64_t Bits __attribute__((vector_size(DIBR_EIGHT_BYTES)));
  static constexpr int kMantissa = 52;
};
template <>
struct PartOf<uint32_t> {
  typedef uint32_t Vector __attribute__((vector_size(DIBR_EIGHT_BYTES)));
};

template <class T>
constexpr int kParts = kEight * int(sizeof(T)) / DIBR_EIGHT_BYTES;

// One truth value for each of eight T: all bits of a lane, or none.
template <class T>
struct EightFlags {
  using Part = typename PartOf<T>::Flags;
  Part v[kParts<T>];

  friend DIBR_HD EightFlags operator&(EightFlags a, EightFlags b) {
    for (int i = 0; i < kParts<T>; ++i) a.v[i] &= b.v[i];
    return a;
  }

  // Bit i is that of lane i.
  DIBR_HD unsigned bits() const {
    unsigned out = 0;
    for (int i = 0; i < kParts<T>; ++i) out |= bits_of(v[i]) << (i * (kEight / kParts<T>));
    return out;
  }
  DIBR_HD bool any() const { return bits() != 0; }

 private:
  static DIBR_HD unsigned bits_of(Part part) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return unsigned(_mm256_movemask_ps(__m256(part)));
    if constexpr (sizeof(T) == 8) return unsigned(_mm256_movemask_pd(__m256d(part)));
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) return unsigned(_mm_movemask_ps(__m128(part)));
    if constexpr (sizeof(T) == 8) return unsigned(_mm_movemask_pd(__m128d(part)));
#else
    unsigned out = 0;
    for (int i = 0; i < kEight / kParts<T>; ++i) out |= unsigned(part[i] & 1) << i;
    return out;
#endif
  }
};

template <class T>
struct Eight {
  using Part = typename PartOf<T>::Vector;
  using Flags = EightFlags<T>;
  Part v[kParts<T>];

  Eight() = default;
  DIBR_HD Eight(T x) {
    for (Part& part : v) part = x - Part{};
  }

  // Memory need not be aligned.
  static DIBR_HD Eight load(const T* p) {
    Eight out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  DIBR_HD void store(T* p) const { std::memcpy(p, v, sizeof v); }

  friend DIBR_HD Eight operator+(Eight a, Eight b) {
    for (int i = 0; i < kParts<T>; ++i) a.v[i] += b.v[i];
    return a;
  }
  friend DIBR_HD Eight operator-(Eight a, Eight b) {
    for (int i = 0; i < kParts<T>; ++i) a.v[i] -= b.v[i];
    return a;
  }
  friend DIBR_HD Eight operator*(Eight a, Eight b) {
    for (int i = 0; i < kParts<T>; ++i) a.v[i] *= b.v[i];
    return a;
  }
  friend DIBR_HD Eight operator/(Eight a, Eight b) {
    for (int i = 0; i < kParts<T>; ++i) a.v[i] /= b.v[i];
    return a;
  }
  DIBR_HD Eight operator-() const {
    Eight out;
    for (int i = 0; i < kParts<T>; ++i) out.v[i] = -v[i];
    return out;
  }
  friend DIBR_HD Flags operator<(Eight a, Eight b) {
    Flags out;
    for (int i = 0; i < kParts<T>; ++i) out.v[i] = less(a.v[i], b.v[i]);
    return out;
  }
  friend DIBR_HD Flags operator<=(Eight a, Eight b) {
    Flags out;
    for (int i = 0; i < kParts<T>; ++i) out.v[i] = less_equal(a.v[i], b.v[i]);
    return out;
  }

 private:
  // Not as vectors compare in GNU C: with AVX-512 that goes through mask registers, and back.
  static DIBR_HD typename Flags::Part less(Part a, Part b) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return typename Flags::Part(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
    if constexpr (sizeof(T) == 8) return typename Flags::Part(_mm256_cmp_pd(a, b, _CMP_LT_OQ));
#else
    return a < b;
#endif
  }
  static DIBR_HD typename Flags::Part less_equal(Part a, Part b) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return typename Flags::Part(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
    if constexpr (sizeof(T) == 8) return typename Flags::Part(_mm256_cmp_pd(a, b, _CMP_LE_OQ));
#else
    return a <= b;
#endif
  }
};

// a where the flag is set, else b: what dibr::select is for one number.
template <class T>
DIBR_HD Eight<T> select(EightFlags<T> flags, Eight<T> a, Eight<T> b) {
  for (int i = 0; i < kParts<T>; ++i) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) b.v[i] = _mm256_blendv_ps(b.v[i], a.v[i], __m256(flags.v[i]));
    if constexpr (sizeof(T) == 8) b.v[i] = _mm256_blendv_pd(b.v[i], a.v[i], __m256d(flags.v[i]));
#else
    b.v[i] = flags.v[i] ? a.v[i] : b.v[i];
#endif
  }
  return b;
}

// a where the flag is set, else 0.
template <class T>
DIBR_HD Eight<T> keep(EightFlags<T> flags, Eight<T> a) {
  using Part = typename Eight<T>::Part;
  for (int i = 0; i < kParts<T>; ++i) a.v[i] = Part(typename EightFlags<T>::Part(a.v[i]) & flags.v[i]);
  return a;
}

// As dibr::minimum and dibr::maximum are, for NaN and signed zeros too.
template <class T>
DIBR_HD Eight<T> minimum(Eight<T> a, Eight<T> b) {
  for (int i = 0; i < kParts<T>; ++i) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) a.v[i] = _mm256_min_ps(b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8) a.v[i] = _mm256_min_pd(b.v[i], a.v[i]);
#else
    a.v[i] = b.v[i] < a.v[i] ? b.v[i] : a.v[i];
#endif
  }
  return a;
}
template <class T>
DIBR_HD Eight<T> maximum(Eight<T> a, Eight<T> b) {
  for (int i = 0; i < kParts<T>; ++i) {
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) a.v[i] = _mm256_max_ps(b.v[i], a.v[i]);
    if constexpr (sizeof(T) == 8) a.v[i] = _mm256_max_pd(b.v[i], a.v[i]);
#else
    a.v[i] = b.v[i] > a.v[i] ? b.v[i] : a.v[i];
#endif
  }
  return a;
}
template <class T>
DIBR_HD Eight<T> absolute(Eight<T> a) {
  using Bits = typename PartOf<T>::Bits;
  for (int i = 0; i < kParts<T>; ++i) a.v[i] = typename Eight<T>::Part(Bits(a.v[i]) << 1 >> 1);
  return a;
}

template <class T>
DIBR_HD Eight<T> exponent_from_low_bits(Eight<T> a) {
  using Bits = typename PartOf<T>::Bits;
  for (int i = 0; i < kParts<T>; ++i) {
    a.v[i] = typename Eight<T>::Part(Bits(a.v[i]) << PartOf<T>::kMantissa);
  }
  return a;
}

// The sums of eight numbers each: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)), always in this order.
template <class T>
DIBR_HD void four_sums(const T* a, const T* b, const T* c, const T* d, T* out) {
  const T* in[4] = {a, b, c, d};
  T halves[4][4];
  for (int k = 0; k < 4; ++k) {
    for (int i = 0; i < 4; ++i) halves[k][i] = in[k][i] + in[k][i + 4];
  }
  for (int k = 0; k < 4; ++k) out[k] = (halves[k][0] + halves[k][2]) + (halves[k][1] + halves[k][3]);
}
#if defined(__SSE2__)
DIBR_HD void four_sums(const float* a, const float* b, const float* c, const float* d, float* out) {
  const auto halves = [](const float* p) { return _mm_add_ps(_mm_loadu_ps(p), _mm_loadu_ps(p + 4)); };
  const __m128 ha = halves(a), hb = halves(b), hc = halves(c), hd = halves(d);
  const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(ha, hb), _mm_unpackhi_ps(ha, hb));
  const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(hc, hd), _mm_unpackhi_ps(hc, hd));
  _mm_storeu_ps(out, _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)));
}
#endif

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
