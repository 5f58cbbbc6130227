// What the mathematics needs from the compiler, and nothing else: it compiles as host C++ and as CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define DIBR_HD __host__ __device__ __forceinline__
#else
// Always inlined: the CPU backend compiles these functions once for every instruction set, and a copy out of line would
// be shared by all of them.
#define DIBR_HD inline __attribute__((always_inline))
#endif

namespace dibr {

// Magnitudes that keep every product below finite in T. A coordinate beyond max_coordinate counts as non-finite; a face
// whose clip-space determinant is at most min_determinant counts as having no area. The reciprocal of
// anything above min_length2 is finite.
template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float max_coordinate = 1e9f;
  static constexpr double min_determinant = 1e-27;
  static constexpr float max_depth = 1e18f;
  static constexpr float min_length2 = 1e-37f;
};
template <>
struct Limits<double> {
  static constexpr double max_coordinate = 1e50;
  static constexpr double min_determinant = 1e-240;
  static constexpr double max_depth = 1e100;
  static constexpr double min_length2 = 1e-300;
};

// T may also be a pack of numbers, which compare to a mask: what chooses between values goes through select.
template <class T>
DIBR_HD T select(bool condition, T a, T b) {
  return condition ? a : b;
}
template <class T>
DIBR_HD T minimum(T a, T b) {
  return select(b < a, b, a);
}
template <class T>
DIBR_HD T maximum(T a, T b) {
  return select(a < b, b, a);
}
template <class T>
DIBR_HD T absolute(T a) {
  return select(a < T(0), -a, a);
}

// a * b + c, rounded once where the code is compiled for processors that can: CUDA's, ARM's, x86-64's from AVX2 on. Not
// for what decides coverage, depth or selection, which has to be the same everywhere.
template <class T>
DIBR_HD T fused(T a, T b, T c) {
#if defined(__CUDACC__) || DIBR_CUDA_ON_HOST || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}
// c - a * b likewise.
template <class T>
DIBR_HD T less_product(T c, T a, T b) {
  return fused(-a, b, c);
}

// The largest integer that is not above a.
template <class T>
DIBR_HD T rounded_down(T a) {
#if defined(__SSE2__) && !defined(__SSE4_1__) && !defined(__CUDACC__)
  // Without an instruction for it, and without a branch, so that the compiler makes vectors of a loop: a sum with a
  // number that leaves no place for a fraction is rounded to the nearest integer.
  const T shift = T(1) / std::numeric_limits<T>::epsilon(), size = absolute(a), rounded = (size + shift) - shift;
  const T nearest = select(a < T(0), -rounded, rounded);
  return select(size < shift, nearest - select(nearest > a, T(1), T(0)), a);
#else
  return std::floor(a);
#endif
}

}  // namespace dibr
