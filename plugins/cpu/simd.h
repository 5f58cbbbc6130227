// Pack: as many numbers as one vector register holds, with the operators of one number, so that the mathematics in
// core/ can be called for all of them at once.
//
// The sources of this folder are compiled once for every instruction set (plugins/CMakeLists.txt), each time with
// another DIBR_CPU_LEVEL as their namespace; levels.cpp picks one at run time. Levels differ in the number of lanes
// alone, and in that the baseline rounds twice in `fused` (core/platform.h): every operation rounds as it does for one
// number, and no result depends on kLanes. Sums over pixels therefore have an order of their own, never that of the
// lanes.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/platform.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE2, NEON
#endif

// The integer with as many bits.
template <class T>
using IntegerLike = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<int32_t> {
  typedef int32_t Type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<int64_t> {
  typedef int64_t Type __attribute__((vector_size(kVectorBytes)));
};

// Puts those lanes of a vector, or of two that follow one another, into it that `places` names. GCC has one operation
// for it. By reference: a vector larger than the registers has no settled way to be passed.
template <class Vector, class Places>
DIBR_HD void permute(Vector& v, const Places& places) {
#if defined(__clang__)
  const Vector old = v;
  for (size_t i = 0; i < sizeof v / sizeof v[0]; ++i) v[i] = old[places[i]];
#else
  v = __builtin_shuffle(v, places);
#endif
}
template <class Vector, class Places>
DIBR_HD void permute(Vector& a, const Vector& b, const Places& places) {
#if defined(__clang__)
  constexpr int64_t kLanes = sizeof a / sizeof a[0];
  const Vector old = a;
  for (int64_t i = 0; i < kLanes; ++i) a[i] = places[i] < kLanes ? old[places[i]] : b[places[i] - kLanes];
#else
  a = __builtin_shuffle(a, b, places);
#endif
}

template <class T>
struct Mask;

template <class T>
struct Pack {
  static constexpr int kLanes = kVectorBytes / int(sizeof(T));
  using Vector = typename VectorOf<T>::Type;
  Vector v;

  Pack() = default;
  DIBR_HD Pack(T x) : v(x - Vector{}) {}
  DIBR_HD explicit Pack(Vector vector) : v(vector) {}

  // Memory need not be aligned.
  static DIBR_HD Pack load(const T* p) {
    Pack out;
    std::memcpy(&out.v, p, sizeof out.v);
    return out;
  }
  DIBR_HD void store(T* p) const { std::memcpy(p, &v, sizeof v); }
  // Past the caches, where p is aligned to kVectorBytes; publish_streams must follow.
  DIBR_HD void stream(T* p) const {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), __m512i(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), __m256i(v));
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), __m128i(v));
#else
    store(p);
#endif
  }

  // first, first + 1, first + 2, ...
  static DIBR_HD Pack count_from(T first) {
    T lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = T(i);
    return load(lanes) + Pack(first);
  }

  DIBR_HD Pack operator-() const { return Pack(-v); }
  DIBR_HD Pack& operator+=(Pack b) { return *this = *this + b; }
  DIBR_HD Pack& operator-=(Pack b) { return *this = *this - b; }
  DIBR_HD Pack& operator*=(Pack b) { return *this = *this * b; }
  friend DIBR_HD Pack operator+(Pack a, Pack b) { return Pack(a.v + b.v); }
  friend DIBR_HD Pack operator-(Pack a, Pack b) { return Pack(a.v - b.v); }
  friend DIBR_HD Pack operator*(Pack a, Pack b) { return Pack(a.v * b.v); }
  friend DIBR_HD Pack operator/(Pack a, Pack b) { return Pack(a.v / b.v); }
  friend DIBR_HD Mask<T> operator==(Pack a, Pack b) { return Mask<T>::equal(a, b); }
  friend DIBR_HD Mask<T> operator<(Pack a, Pack b) { return Mask<T>::less(a, b); }
  friend DIBR_HD Mask<T> operator>(Pack a, Pack b) { return Mask<T>::less(b, a); }
  friend DIBR_HD Mask<T> operator<=(Pack a, Pack b) { return Mask<T>::less_equal(a, b); }
  friend DIBR_HD Mask<T> operator>=(Pack a, Pack b) { return Mask<T>::less_equal(b, a); }
};

// One truth value per lane; lanes() has bit i set where lane i holds. of<U>() is the same for another type of as many
// bits.
template <class T>
struct Mask {
#if defined(__AVX512F__)
  using Bits = std::conditional_t<sizeof(T) == 8, __mmask8, __mmask16>;
  Bits bits;

  static DIBR_HD Mask equal(Pack<T> a, Pack<T> b) { return compare<_CMP_EQ_OQ, _MM_CMPINT_EQ>(a, b); }
  static DIBR_HD Mask less(Pack<T> a, Pack<T> b) { return compare<_CMP_LT_OQ, _MM_CMPINT_LT>(a, b); }
  static DIBR_HD Mask less_equal(Pack<T> a, Pack<T> b) { return compare<_CMP_LE_OQ, _MM_CMPINT_LE>(a, b); }
  friend DIBR_HD Mask operator&(Mask a, Mask b) { return {Bits(a.bits & b.bits)}; }
  friend DIBR_HD Mask operator|(Mask a, Mask b) { return {Bits(a.bits | b.bits)}; }
  template <class U>
  DIBR_HD Mask<U> of() const {
    return {bits};
  }
  DIBR_HD bool any() const { return bits != 0; }
  DIBR_HD uint32_t lanes() const { return bits; }
  DIBR_HD Pack<T> select(Pack<T> a, Pack<T> b) const {
    using Vector = typename Pack<T>::Vector;
    if constexpr (sizeof(T) == 8) return Pack<T>(Vector(_mm512_mask_blend_pd(bits, __m512d(b.v), __m512d(a.v))));
    if constexpr (sizeof(T) == 4) return Pack<T>(Vector(_mm512_mask_blend_ps(bits, __m512(b.v), __m512(a.v))));
  }

 private:
  template <int kFloat, int kInteger>
  static DIBR_HD Mask compare(Pack<T> a, Pack<T> b) {
    if constexpr (std::is_same_v<T, float>) return {_mm512_cmp_ps_mask(__m512(a.v), __m512(b.v), kFloat)};
    if constexpr (std::is_same_v<T, double>) return {_mm512_cmp_pd_mask(__m512d(a.v), __m512d(b.v), kFloat)};
    if constexpr (std::is_same_v<T, int32_t>) return {_mm512_cmp_epi32_mask(__m512i(a.v), __m512i(b.v), kInteger)};
    if constexpr (std::is_same_v<T, int64_t>) return {_mm512_cmp_epi64_mask(__m512i(a.v), __m512i(b.v), kInteger)};
  }
#else
  using Vector = typename VectorOf<IntegerLike<T>>::Type;
  Vector v;  // all bits of a lane, or none

  static DIBR_HD Mask equal(Pack<T> a, Pack<T> b) { return {a.v == b.v}; }
  static DIBR_HD Mask less(Pack<T> a, Pack<T> b) { return {a.v < b.v}; }
  static DIBR_HD Mask less_equal(Pack<T> a, Pack<T> b) { return {a.v <= b.v}; }
  friend DIBR_HD Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
  friend DIBR_HD Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }
  template <class U>
  DIBR_HD Mask<U> of() const {
    return {v};
  }
  DIBR_HD bool any() const {
#if defined(__AVX2__)
    return _mm256_movemask_epi8(__m256i(v)) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_epi8(__m128i(v)) != 0;
#else
    uint64_t halves[2];
    std::memcpy(halves, &v, sizeof halves);
    return (halves[0] | halves[1]) != 0;
#endif
  }
  DIBR_HD uint32_t lanes() const {
#if defined(__AVX2__)
    return uint32_t(sizeof(T) == 8 ? _mm256_movemask_pd(__m256d(v)) : _mm256_movemask_ps(__m256(v)));
#elif defined(__SSE2__)
    return uint32_t(sizeof(T) == 8 ? _mm_movemask_pd(__m128d(v)) : _mm_movemask_ps(__m128(v)));
#else
    uint32_t bits = 0;
    for (int i = 0; i < Pack<T>::kLanes; ++i) bits |= v[i] != 0 ? 1u << i : 0u;
    return bits;
#endif
  }
  DIBR_HD Pack<T> select(Pack<T> a, Pack<T> b) const { return Pack<T>(v ? a.v : b.v); }
#endif
};

// a where the mask holds, else b: what dibr::select is for one number.
template <class T>
DIBR_HD Pack<T> select(Mask<T> mask, Pack<T> a, Pack<T> b) {
  return mask.select(a, b);
}

// Rounded towards 0.
template <class T>
DIBR_HD Pack<IntegerLike<T>> integers(Pack<T> a) {
  using Integers = Pack<IntegerLike<T>>;
  return Integers(__builtin_convertvector(a.v, typename Integers::Vector));
}
// p[i] for each i.
DIBR_HD Pack<float> gathered(const float* p, Pack<int32_t> i) {
#if defined(__AVX512F__)
  return Pack<float>(Pack<float>::Vector(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, __m512i(i.v), p, 4)));
#elif defined(__AVX2__)
  return Pack<float>(Pack<float>::Vector(_mm256_i32gather_ps(p, __m256i(i.v), 4)));
#else
  Pack<float> out;
  for (int lane = 0; lane < Pack<float>::kLanes; ++lane) out.v[lane] = p[i.v[lane]];
  return out;
#endif
}
DIBR_HD Pack<double> gathered(const double* p, Pack<int64_t> i) {
  Pack<double> out;
  for (int lane = 0; lane < Pack<double>::kLanes; ++lane) out.v[lane] = p[i.v[lane]];
  return out;
}

// Lets other threads see what this one has streamed.
inline void publish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Where the numbers of three Packs stand when one of each follow one another: in output i, those of the first two come
// by first[i] and those of the third, on top of that, by second[i].
template <class T>
struct InterleavedPlaces {
  static constexpr int kLanes = Pack<T>::kLanes;
  IntegerLike<T> first[3][kLanes] = {}, second[3][kLanes] = {};
  constexpr InterleavedPlaces() {
    for (int i = 0; i < 3 * kLanes; ++i) {
      const int source = i % 3, index = i / 3, lane = i % kLanes;
      first[i / kLanes][lane] = source == 1 ? kLanes + index : index;
      second[i / kLanes][lane] = source == 2 ? kLanes + index : lane;
    }
  }
};
template <class T>
constexpr InterleavedPlaces<T> kInterleavedPlaces = {};

// Output i of a_0, b_0, c_0, a_1, ...
template <int i, class T>
DIBR_HD Pack<T> interleaved(Pack<T> a, Pack<T> b, Pack<T> c) {
  using Places = Pack<IntegerLike<T>>;
  const auto first = Places::load(kInterleavedPlaces<T>.first[i]).v;
  const auto second = Places::load(kInterleavedPlaces<T>.second[i]).v;
  permute(a.v, b.v, first);
  permute(a.v, c.v, second);
  return a;
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
