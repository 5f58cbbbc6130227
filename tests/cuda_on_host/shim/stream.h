// CUDA_ON_HOST_STREAM=HANDLE, a number above 0, states the only stream that work may be given to: work on another one,
// and every call that allocates or waits, ends the program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "order.h"

using cudaStream_t = struct CUstream_st*;

namespace cuda_on_host {

// 0 where any will do.
inline uint64_t only_stream() {
  const char* const name = "CUDA_ON_HOST_STREAM";
  const char* const value = std::getenv(name);
  return !value || !*value ? 0 : parse_number(name, "a number above 0", value, value, 1);
}

inline void require_stream(const char* work, cudaStream_t stream) {
  const uint64_t only = only_stream();
  if (only == 0 || uint64_t(reinterpret_cast<uintptr_t>(stream)) == only) return;
  std::fprintf(stderr, "cuda_on_host: %s is given to stream %p, not to CUDA_ON_HOST_STREAM\n", work,
               static_cast<void*>(stream));
  std::abort();
}

inline void require_any_stream(const char* call) {
  if (only_stream() == 0) return;
  std::fprintf(stderr, "cuda_on_host: %s is called, which no stream orders, in spite of CUDA_ON_HOST_STREAM\n", call);
  std::abort();
}

}  // namespace cuda_on_host
