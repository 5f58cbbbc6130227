// How launchers cut work into grids, and what a kernel needs to walk its share.
#pragma once

#include <cstdint>

#include "abi/error.h"
#include "cuda/compat.h"

namespace dibr::cuda {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

// Blocks for n items; kernels stride over what a bounded grid leaves.
inline unsigned grid_for(int64_t items, int64_t items_per_block = kBlock) {
  constexpr int64_t kMaxGrid = 1 << 20;
  const int64_t blocks = (items + items_per_block - 1) / items_per_block;
  return unsigned(blocks < kMaxGrid ? blocks : kMaxGrid);
}

inline cudaStream_t stream_of(const dibr_launch& launch) { return static_cast<cudaStream_t>(launch.stream); }

inline dibr_status check_launch(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return DIBR_OK;
  return fail(DIBR_CUDA_ERROR, "%s: %s", op, cudaGetErrorString(error));
}
inline dibr_status launched(const char* op) { return check_launch(op, cudaGetLastError()); }

__device__ inline int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_stride() { return int64_t(gridDim.x) * blockDim.x; }
__device__ inline int lane_index() { return int(threadIdx.x) % kWarp; }

template <class T>
__global__ void fill_kernel(T* out, T value, int64_t count) {
  for (int64_t i = thread_index(); i < count; i += thread_stride()) out[i] = value;
}

template <class T>
void fill(T* out, T value, int64_t count, cudaStream_t stream) {
  if (count > 0) DIBR_LAUNCH((fill_kernel<T>), grid_for(count), kBlock, 0, stream, out, value, count);
}

}  // namespace dibr::cuda
