// The one header that kernel sources include for CUDA. nvcc gives real CUDA; the host compiler gives the test shim that
// runs the same source on the CPU (tests/cuda_on_host, found through the include path).
//
// Two things in a kernel source are written through a macro, and nothing else:
//   DIBR_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)   kernel<<<grid, block, shared_bytes,
//   stream>>>(args...)
//       Put a template kernel in parentheses: DIBR_LAUNCH((kernel<64, float>), ...). Errors show in cudaGetLastError().
//   DIBR_DYNAMIC_SHARED(T, name)   declares T* name, the block's dynamic shared memory, aligned to 16 bytes.
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DIBR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

// The array is of bytes whatever T is: two instantiations of a template may not declare it with different types.
#define DIBR_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char dibr_dynamic_shared_[]; \
  T* name = reinterpret_cast<T*>(dibr_dynamic_shared_)

#else

#include "cuda_on_host.h"

#endif
