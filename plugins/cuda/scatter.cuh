// Scatter-add on the device. Atomic: float atomics, rounding depends on the order in which they are served.
// Deterministic: integers, whose sums do not. A first pass finds the largest magnitude that will be added, a second
// adds every value as a multiple of a power of two chosen so that the sum of all of them still fits; the same bits come
// out whatever the order, for twice the work and 8 bytes (float64: 16) an element.
#pragma once

#include "abi/arena.h"
#include "cuda/launch.h"

namespace dibr::cuda {

template <class T>
struct AtomicSink {
  T* out;
  __device__ void add(int64_t i, T value) const { atomicAdd(out + i, value); }
};

__device__ inline bool is_finite_value(double v) { return v - v == 0.0; }

// Bits of a non-negative double order like the double itself.
__device__ inline unsigned long long bits_of(double v) { return (unsigned long long)__double_as_longlong(v); }
__device__ inline double double_of(unsigned long long bits) { return __longlong_as_double((long long)bits); }

template <class T>
struct LargestSink {
  unsigned long long* largest;
  __device__ void add(int64_t, T value) const {
    const double magnitude = value < T(0) ? -double(value) : double(value);
    if (magnitude > 0.0 && is_finite_value(magnitude)) atomicMax(largest, bits_of(magnitude));
  }
};

// 2^exponent is the unit in which values are counted: `largest`, added `additions` times, stays below 2^62 units.
__device__ inline int unit_exponent(double largest, int log2_additions) {
  int exponent = 0;
  frexp(largest, &exponent);
  return exponent + log2_additions - 62;
}

template <class T>
struct FixedSink {
  static constexpr int kWords = sizeof(T) == 8 ? 2 : 1;

  T* out;                     // takes what is not finite: it stays so, in any order
  unsigned long long* words;  // [elements, kWords], two's complement
  const unsigned long long* largest;
  int log2_additions;

  // Bits by which the second word continues the first.
  __device__ int continuation() const { return 62 - log2_additions; }

  __device__ void add(int64_t i, T value) const {
    if (!is_finite_value(double(value))) {
      atomicAdd(out + i, value);
      return;
    }
    const int unit = unit_exponent(double_of(*largest), log2_additions);
    const double scaled = ldexp(double(value), -unit);
    const double whole = rint(scaled);
    atomicAdd(words + i * kWords, (unsigned long long)(long long)whole);
    if (kWords == 2) {
      const double rest = rint(ldexp(scaled - whole, continuation()));
      atomicAdd(words + i * kWords + 1, (unsigned long long)(long long)rest);
    }
  }
};

template <class T>
__global__ void finish_fixed_kernel(FixedSink<T> sink, int64_t elements) {
  for (int64_t i = thread_index(); i < elements; i += thread_stride()) {
    const int unit = unit_exponent(double_of(*sink.largest), sink.log2_additions);
    double sum = double((long long)sink.words[i * FixedSink<T>::kWords]);
    if (FixedSink<T>::kWords == 2) {
      const double rest = double((long long)sink.words[i * FixedSink<T>::kWords + 1]);
      sum += ldexp(rest, -sink.continuation());
    }
    sink.out[i] += T(ldexp(sum, unit));
  }
}

template <class T>
struct ScatterSpace {
  int64_t elements;
  int log2_additions = 0;
  unsigned long long* largest = nullptr;
  unsigned long long* words = nullptr;

  // At most `additions` values are added to one element.
  ScatterSpace(int64_t n, int64_t additions, bool deterministic, Arena& arena) : elements(n) {
    while (log2_additions < 62 && (int64_t(1) << log2_additions) < additions) ++log2_additions;
    if (!deterministic) return;
    largest = arena.take<unsigned long long>(1);
    words = arena.take<unsigned long long>(n * FixedSink<T>::kWords);
  }
};

// Overwrites out with the sums. scatter(sink) launches the kernel that adds through a sink.
template <class T, class ScatterWith>
void scatter_add(const ScatterSpace<T>& space, T* out, bool deterministic, cudaStream_t stream,
                 const ScatterWith& scatter) {
  fill(out, T(0), space.elements, stream);
  if (!deterministic) {
    scatter(AtomicSink<T>{out});
    return;
  }
  fill(space.largest, 0ull, 1, stream);
  fill(space.words, 0ull, space.elements * FixedSink<T>::kWords, stream);
  scatter(LargestSink<T>{space.largest});
  const FixedSink<T> sink{out, space.words, space.largest, space.log2_additions};
  scatter(sink);
  if (space.elements > 0) {
    DIBR_LAUNCH((finish_fixed_kernel<T>), grid_for(space.elements), kBlock, 0, stream, sink, space.elements);
  }
}

}  // namespace dibr::cuda
