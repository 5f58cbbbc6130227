// CUDA's declaration qualifiers, and the two macros of plugins/cuda/compat.h.
#pragma once

#if defined(CUDA_ON_HOST_MT)
// __thread, not thread_local: constant initialisation only, so no wrapper call at every use of threadIdx.
#define CUDA_ON_HOST_PER_WORKER __thread
#define CUDA_ON_HOST_SHARED_STORAGE static thread_local
#else
#define CUDA_ON_HOST_PER_WORKER
#define CUDA_ON_HOST_SHARED_STORAGE static  // a plain static: AddressSanitizer puts red zones round each
#endif

// The machinery switches stacks under the sanitizers' feet, so it must not be instrumented itself.
#define CUDA_ON_HOST_UNSANITIZED __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// The tag becomes part of the variable's symbol, by which shared_memory.h finds it to poison it at the start of a
// block; `used` keeps the compiler from folding a variable that no code writes into a constant.
#define __shared__ CUDA_ON_HOST_SHARED_STORAGE __attribute__((abi_tag("cuda_on_host_shared"), used))

#define DIBR_DYNAMIC_SHARED(T, name) T* name = ::cuda_on_host::dynamic_shared_memory<T>()
#define DIBR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_on_host::configure(#kernel, kernel, (grid), (block), (shared_bytes), (stream))(__VA_ARGS__)
