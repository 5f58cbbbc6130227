// In place of plugins/cuda/compat.h: the shim, with every launch announced to the counters, and the device functions
// that take the float that counts.
#pragma once

#include "counted.h"
#include "cuda_on_host.h"

#undef DIBR_LAUNCH
#define DIBR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
  do {                                                                                                  \
    ::cuda_on_host::reset_counters();                                                                   \
    ::counting::begin_launch(#kernel);                                                                  \
    ::cuda_on_host::configure(#kernel, kernel, (grid), (block), (shared_bytes), (stream))(__VA_ARGS__); \
    ::counting::end_launch(::counting::atomics_of_launch());                                            \
  } while (0)

namespace counting {

inline uint64_t atomics_of_launch() {
  uint64_t atomics = 0;
  for (const auto& [kernel, counters] : cuda_on_host::counters()) atomics += counters.atomics;
  return atomics;
}

inline Counted __shfl_up_sync(unsigned mask, Counted a, unsigned delta) {
  return Counted(::__shfl_up_sync(mask, a.value, delta));
}
inline Counted __shfl_down_sync(unsigned mask, Counted a, unsigned delta) {
  return Counted(::__shfl_down_sync(mask, a.value, delta));
}
inline Counted __shfl_xor_sync(unsigned mask, Counted a, int lanes) {
  return Counted(::__shfl_xor_sync(mask, a.value, lanes));
}
inline Counted atomicAdd(Counted* address, Counted a) {
  ++operations;
  atomic(address, sizeof a);
  return Counted(::atomicAdd(&address->value, a.value));
}

}  // namespace counting
