// Sums over neighbouring threads, before anything touches global memory.
#pragma once

#include "cuda/launch.h"

namespace dibr::cuda {

// Runs of equal keys among the lanes of a warp: neighbouring pixels mostly show the same face. Every lane must take
// part.
class WarpRuns {
 public:
  __device__ explicit WarpRuns(int64_t key) {
    const int64_t before = __shfl_up_sync(kFullWarp, key, 1);
    head_ = lane_index() == 0 || before != key;
    const unsigned heads = __ballot_sync(kFullWarp, head_);
    const unsigned later = lane_index() == kWarp - 1 ? 0u : heads >> (lane_index() + 1);
    left_ = later == 0 ? kWarp - lane_index() : __ffs(int(later));
  }

  __device__ bool is_head() const { return head_; }

  // At the head of a run: the sum of its values, always added in the same order.
  template <class T>
  __device__ T sum(T value) const {
    for (int d = 1; d < kWarp; d *= 2) {
      const T other = __shfl_down_sync(kFullWarp, value, d);
      if (d < left_) value += other;
    }
    return value;
  }

 private:
  bool head_;
  int left_;  // lanes from this one to the end of its run
};

template <class T>
__device__ T warp_sum(T value) {
  for (int d = kWarp / 2; d > 0; d /= 2) value += __shfl_xor_sync(kFullWarp, value, d);
  return value;
}

template <class T>
__device__ T warp_max(T value) {
  for (int d = kWarp / 2; d > 0; d /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, value, d);
    value = value < other ? other : value;
  }
  return value;
}

}  // namespace dibr::cuda
