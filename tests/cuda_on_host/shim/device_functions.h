// What device code calls: barriers, warp operations, atomics, bit and conversion intrinsics. Overloads are those of
// CUDA and no more, so that a call which nvcc would refuse does not compile here either.
#pragma once

#include <math.h>

#include <cstdint>
#include <type_traits>

#include "half.h"
#include "vector_types.h"
#include "worker.h"

// The caller's place in the source, for reports.
#define CUDA_ON_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- Barriers of a block ----

inline void __syncthreads(CUDA_ON_HOST_SITE) { cuda_on_host::current_worker->barrier(false, {file, line}); }
inline int __syncthreads_count(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::current_worker->barrier(predicate != 0, {file, line});
}
inline int __syncthreads_or(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::current_worker->barrier(predicate != 0, {file, line}) != 0;
}
inline int __syncthreads_and(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::current_worker->barrier(predicate == 0, {file, line}) == 0;
}

// ---- Warp operations ----

namespace cuda_on_host {

template <class T, class... Allowed>
constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

template <class T>
uint64_t to_bits(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint64_t ballot(unsigned mask, bool predicate, CallSite site) {
  return current_worker->warp_operation({WarpOperation::kBallot, mask, predicate, 0, warpSize, nullptr}, site);
}

template <class T>
T shuffle(WarpOperation operation, unsigned mask, T value, int argument, int width, CallSite site) {
  static_assert(is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double, __half,
                          __nv_bfloat16>,
                "CUDA has no shuffle of this type");
  return from_bits<T>(
      current_worker->warp_operation({operation, mask, to_bits(value), argument, width, nullptr}, site));
}

template <class T, T (*combine)(T, T)>
T reduce(unsigned mask, T value, CallSite site) {
  const Combine on_bits = [](uint64_t a, uint64_t b) { return to_bits(combine(from_bits<T>(a), from_bits<T>(b))); };
  return from_bits<T>(
      current_worker->warp_operation({WarpOperation::kReduce, mask, to_bits(value), 0, warpSize, on_bits}, site));
}

template <class T>
T wrapping_sum(T a, T b) {
  return T(unsigned(a) + unsigned(b));
}
template <class T>
T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T larger(T a, T b) {
  return a < b ? b : a;
}
inline unsigned bit_and(unsigned a, unsigned b) { return a & b; }
inline unsigned bit_or(unsigned a, unsigned b) { return a | b; }
inline unsigned bit_xor(unsigned a, unsigned b) { return a ^ b; }

}  // namespace cuda_on_host

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CUDA_ON_HOST_SITE) {
  cuda_on_host::current_worker->warp_operation({cuda_on_host::WarpOperation::kSync, mask, 0, 0, warpSize, nullptr},
                                               {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return unsigned(cuda_on_host::ballot(mask, predicate != 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::ballot(mask, predicate != 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::ballot(mask, predicate == 0, {file, line}) == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source_lane, int width = warpSize, CUDA_ON_HOST_SITE) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOperation::kShuffle, mask, value, source_lane, width, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDA_ON_HOST_SITE) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOperation::kShuffleUp, mask, value, int(delta & 31), width,
                               {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDA_ON_HOST_SITE) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOperation::kShuffleDown, mask, value, int(delta & 31), width,
                               {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize, CUDA_ON_HOST_SITE) {
  return cuda_on_host::shuffle(cuda_on_host::WarpOperation::kShuffleXor, mask, value, lane_mask & 31, width,
                               {file, line});
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUDA_ON_HOST_SITE) {
  static_assert(
      cuda_on_host::is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>,
      "CUDA has no __match_any_sync of this type");
  return unsigned(cuda_on_host::current_worker->warp_operation(
      {cuda_on_host::WarpOperation::kMatchAny, mask, cuda_on_host::to_bits(value), 0, warpSize, nullptr},
      {file, line}));
}

// Devices have these from sm_80 on.
#define CUDA_ON_HOST_REDUCTION(name, T, combine)                        \
  inline T name(unsigned mask, T value, CUDA_ON_HOST_SITE) {            \
    return cuda_on_host::reduce<T, combine>(mask, value, {file, line}); \
  }
CUDA_ON_HOST_REDUCTION(__reduce_add_sync, int, cuda_on_host::wrapping_sum<int>)
CUDA_ON_HOST_REDUCTION(__reduce_add_sync, unsigned, cuda_on_host::wrapping_sum<unsigned>)
CUDA_ON_HOST_REDUCTION(__reduce_min_sync, int, cuda_on_host::smaller<int>)
CUDA_ON_HOST_REDUCTION(__reduce_min_sync, unsigned, cuda_on_host::smaller<unsigned>)
CUDA_ON_HOST_REDUCTION(__reduce_max_sync, int, cuda_on_host::larger<int>)
CUDA_ON_HOST_REDUCTION(__reduce_max_sync, unsigned, cuda_on_host::larger<unsigned>)
CUDA_ON_HOST_REDUCTION(__reduce_and_sync, unsigned, cuda_on_host::bit_and)
CUDA_ON_HOST_REDUCTION(__reduce_or_sync, unsigned, cuda_on_host::bit_or)
CUDA_ON_HOST_REDUCTION(__reduce_xor_sync, unsigned, cuda_on_host::bit_xor)
#undef CUDA_ON_HOST_REDUCTION

// ---- Atomics: relaxed, as on a device ----

namespace cuda_on_host {

template <class T, class Update>
T atomic_update(T* address, Update update) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T)) current_worker->fail_here("atomic at a misaligned address");
  count_atomic();
  Bits* const bits = reinterpret_cast<Bits*>(address);
  Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
  Bits next;
  do {
    next = bit_cast<Bits>(update(bit_cast<T>(seen)));
  } while (!__atomic_compare_exchange_n(bits, &seen, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return bit_cast<T>(seen);
}

// Integer sums wrap.
template <class T>
T atomic_sum(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using Unsigned = std::make_unsigned_t<T>;
    return T(Unsigned(a) + Unsigned(b));
  } else {
    return a + b;
  }
}

}  // namespace cuda_on_host

#define CUDA_ON_HOST_ATOMIC(name, T, expression)                                             \
  inline T name(T* address, T value) {                                                       \
    return cuda_on_host::atomic_update(address, [value](T old) -> T { return expression; }); \
  }
#define CUDA_ON_HOST_ATOMIC_CAS(T)                                                                                   \
  inline T atomicCAS(T* address, T expected, T value) {                                                              \
    return cuda_on_host::atomic_update(address, [expected, value](T old) { return old == expected ? value : old; }); \
  }
#define CUDA_ON_HOST_INTEGER_ATOMICS(T)                                   \
  CUDA_ON_HOST_ATOMIC(atomicAdd, T, cuda_on_host::atomic_sum(old, value)) \
  CUDA_ON_HOST_ATOMIC(atomicMin, T, value < old ? value : old)            \
  CUDA_ON_HOST_ATOMIC(atomicMax, T, old < value ? value : old)            \
  CUDA_ON_HOST_ATOMIC(atomicAnd, T, old& value)                           \
  CUDA_ON_HOST_ATOMIC(atomicOr, T, old | value)                           \
  CUDA_ON_HOST_ATOMIC(atomicXor, T, old ^ value)                          \
  CUDA_ON_HOST_ATOMIC(atomicExch, T, ((void)old, value))                  \
  CUDA_ON_HOST_ATOMIC_CAS(T)
CUDA_ON_HOST_INTEGER_ATOMICS(int)
CUDA_ON_HOST_INTEGER_ATOMICS(unsigned)
CUDA_ON_HOST_INTEGER_ATOMICS(unsigned long long)
CUDA_ON_HOST_ATOMIC(atomicAdd, float, cuda_on_host::atomic_sum(old, value))
CUDA_ON_HOST_ATOMIC(atomicAdd, double, cuda_on_host::atomic_sum(old, value))
CUDA_ON_HOST_ATOMIC(atomicExch, float, ((void)old, value))
#undef CUDA_ON_HOST_INTEGER_ATOMICS
#undef CUDA_ON_HOST_ATOMIC_CAS
#undef CUDA_ON_HOST_ATOMIC

namespace cuda_on_host {

// ThreadSanitizer does not know fences: there a fence orders all that happened before earlier fences before all that
// happens after it. Hence writer and reader both need one, which is also what CUDA's memory model asks for.
CUDA_ON_HOST_UNSANITIZED inline void fence() {
#if defined(__SANITIZE_THREAD__)
  static char token;
  __tsan_acquire(&token);
  __tsan_release(&token);
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

}  // namespace cuda_on_host

inline void __threadfence() { cuda_on_host::fence(); }
inline void __threadfence_block() { cuda_on_host::fence(); }

// ---- Loads and stores that the counters see ----

template <class T>
T __ldg(const T* address) {
  cuda_on_host::count_load(sizeof(T));
  return *address;
}
template <class T>
void __stcs(T* address, std::common_type_t<T> value) {
  cuda_on_host::count_store(sizeof(T));
  *address = value;
}

// ---- Bits ----

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline int __clzll(long long bits) { return bits ? __builtin_clzll((unsigned long long)(bits)) : 64; }

inline float __int_as_float(int bits) { return cuda_on_host::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return cuda_on_host::bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return cuda_on_host::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return cuda_on_host::bit_cast<unsigned>(value); }
inline double __longlong_as_double(long long bits) { return cuda_on_host::bit_cast<double>(bits); }
inline long long __double_as_longlong(double value) { return cuda_on_host::bit_cast<long long>(value); }

// ---- Arithmetic ----

inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline double rsqrt(double value) { return 1.0 / sqrt(value); }
inline float __expf(float value) { return expf(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float value) { return fminf(fmaxf(value, 0.0f), 1.0f); }

// CUDA's min and max of floats give the other operand when one is NaN.
#define CUDA_ON_HOST_MIN_MAX(T)                    \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
CUDA_ON_HOST_MIN_MAX(int)
CUDA_ON_HOST_MIN_MAX(unsigned)
CUDA_ON_HOST_MIN_MAX(long)
CUDA_ON_HOST_MIN_MAX(unsigned long)
CUDA_ON_HOST_MIN_MAX(long long)
CUDA_ON_HOST_MIN_MAX(unsigned long long)
#undef CUDA_ON_HOST_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
