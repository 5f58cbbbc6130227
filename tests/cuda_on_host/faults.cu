// Kernels with one planted fault each: `faults NAME` runs one and prints its result. test_shim.py states what must show
// it.
#include <cstdlib>
#include <cstring>

#include "check.h"

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kCount = 64;

// ---- Out of bounds; through a pointer, where the type does not tell the size ----

__global__ void write_past_global(int* out) { out[threadIdx.x + 1] = 1; }

__global__ void write_past_static_shared(int* out) {
  __shared__ int values[kCount];
  __shared__ int others[kCount];
  int* const next = values + 1;
  next[threadIdx.x] = 1;
  others[threadIdx.x] = 2;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x] + others[threadIdx.x];
}

template <class T>
__global__ void write_past_template_shared(T* out) {
  __shared__ T values[kCount];
  T* const next = values + 1;
  next[threadIdx.x] = T(1);
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void write_past_dynamic_shared(int* out) {
  DIBR_DYNAMIC_SHARED(int, values);
  values[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

// ---- Misaligned ----

__global__ void misaligned_vector(int* out) {
  DIBR_DYNAMIC_SHARED(int, values);
  values[threadIdx.x] = threadIdx.x;
  __syncthreads();
  if (threadIdx.x == 0) *reinterpret_cast<int4*>(out) = *reinterpret_cast<int4*>(values + 1);
}

__global__ void misaligned_atomic(int* out) {
  if (threadIdx.x == 0) atomicAdd(reinterpret_cast<int*>(reinterpret_cast<char*>(out) + 2), 1);
}

// ---- Read before written ----

__global__ void uninitialised_static_shared(int* out) {
  __shared__ int values[kCount];
  if (blockIdx.x == 0) values[threadIdx.x] = 7;  // the other block finds neither this nor zero
  __syncthreads();
  if (blockIdx.x == 1) out[threadIdx.x] = values[threadIdx.x];
}

template <class T>
__global__ void uninitialised_template_shared(T* out) {
  __shared__ T values[kCount];
  if (blockIdx.x == 0) values[threadIdx.x] = T(7);
  __syncthreads();
  if (blockIdx.x == 1) out[threadIdx.x] = values[threadIdx.x];
}

__global__ void uninitialised_dynamic_shared(int* out) {
  DIBR_DYNAMIC_SHARED(int, values);
  if (blockIdx.x == 0) values[threadIdx.x] = 7;
  __syncthreads();
  if (blockIdx.x == 1) out[threadIdx.x] = values[threadIdx.x];
}

__global__ void never_written_shared(int* out) {
  __shared__ int value;
  out[threadIdx.x] = value;
}

__global__ void uninitialised_flag(int* out) {
  __shared__ bool found;
  if (threadIdx.x > kCount) found = true;
  __syncthreads();
  out[threadIdx.x] = found ? 1 : 0;
}

__global__ void uninitialised_global(int* out) { out[0] += 1; }

// ---- Races ----

__global__ void missing_barrier(int* out) {
  __shared__ int values[kCount];
  values[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = values[kCount - 1 - threadIdx.x];
}

// The barrier after the read is missing: the next round overwrites what others have yet to read.
__global__ void missing_second_barrier(int* out) {
  __shared__ int values[kCount];
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    values[threadIdx.x] = threadIdx.x + 100 * round;
    __syncthreads();
    sum += values[kCount - 1 - threadIdx.x];
  }
  out[threadIdx.x] = sum;
}

__global__ void shuffle_as_barrier(int* out) {
  __shared__ int values[32];
  values[threadIdx.x] = threadIdx.x;
  __shfl_down_sync(kAllLanes, int(threadIdx.x), 1);
  out[threadIdx.x] = values[31 - threadIdx.x];
}

__global__ void last_thread_wins(int* out) { out[0] = threadIdx.x; }

__global__ void last_block_wins(int* out) {
  if (threadIdx.x == 0) out[0] = blockIdx.x;
}

__global__ void order_dependent_atomics(int* out) {  // no data race, and still no definite result
  const int place = atomicAdd(&out[0], 1);
  if (place + 1 < kCount) atomicExch(&out[place + 1], int(threadIdx.x));
}

__global__ void missing_atomic(int* out) {
  if (threadIdx.x == 0) out[0] += 1;
}

// ---- Barriers and warp operations that not everybody reaches ----

__global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    out[0] = 1;
    __syncthreads();
  }
}

__global__ void return_before_barrier(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void lane_never_arrives(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(kAllLanes, int(threadIdx.x), 1);
}

__global__ void lanes_in_two_operations(int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = __any_sync(kAllLanes, 1);
  } else {
    out[threadIdx.x] = int(__ballot_sync(kAllLanes, 1));
  }
}

__global__ void warp_waits_at_barrier(int* out) {
  if (threadIdx.x < 8) __syncwarp();
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void mask_without_caller(int* out) { out[threadIdx.x] = __shfl_sync(0x0000FFFFu, int(threadIdx.x), 0); }

__global__ void mask_beyond_block(int* out) { out[threadIdx.x] = __any_sync(kAllLanes, 1); }

__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000FFFFu, int(threadIdx.x), 20);
}

__global__ void shuffle_of_odd_width(int* out) { out[threadIdx.x] = __shfl_sync(kAllLanes, int(threadIdx.x), 0, 12); }

struct Fault {
  const char* name;
  void (*launch)(int* out);
};

#define FAULT(kernel, grid, block, shared_bytes) \
  {#kernel, [](int* out) { DIBR_LAUNCH(kernel, grid, block, shared_bytes, 0, out); }}

// ---- Against CUDA_ON_HOST_STREAM, which is stated only once the memory is there ----

void state_stream() { setenv("CUDA_ON_HOST_STREAM", "4096", 1); }

void launch_on_another_stream(int* out) {
  state_stream();
  DIBR_LAUNCH(last_thread_wins, 1, kCount, 0, nullptr, out);
}

void memset_on_another_stream(int* out) {
  state_stream();
  cudaMemsetAsync(out, 0, sizeof *out, nullptr);
}

void allocation_beside_a_stream(int* out) {
  state_stream();
  cudaMalloc(&out, sizeof *out);
}

void wait_beside_a_stream(int*) {
  state_stream();
  cudaDeviceSynchronize();
}

const Fault kFaults[] = {
    FAULT(write_past_global, 1, kCount, 0),
    FAULT(write_past_static_shared, 1, kCount, 0),
    FAULT(write_past_template_shared<int>, 1, kCount, 0),
    FAULT(write_past_dynamic_shared, 1, kCount, kCount * sizeof(int)),
    FAULT(misaligned_vector, 1, kCount, kCount * sizeof(int)),
    FAULT(misaligned_atomic, 1, kCount, 0),
    FAULT(uninitialised_static_shared, 2, kCount, 0),
    FAULT(uninitialised_template_shared<int>, 2, kCount, 0),
    FAULT(uninitialised_dynamic_shared, 2, kCount, kCount * sizeof(int)),
    FAULT(never_written_shared, 1, kCount, 0),
    FAULT(uninitialised_flag, 1, kCount, 0),
    FAULT(uninitialised_global, 1, 1, 0),
    FAULT(missing_barrier, 1, kCount, 0),
    FAULT(missing_second_barrier, 1, kCount, 0),
    FAULT(shuffle_as_barrier, 1, 32, 0),
    FAULT(last_thread_wins, 1, kCount, 0),
    FAULT(last_block_wins, 8, 32, 0),
    FAULT(order_dependent_atomics, 1, 32, 0),
    FAULT(missing_atomic, 8, 32, 0),
    FAULT(divergent_barrier, 1, kCount, 0),
    FAULT(return_before_barrier, 1, kCount, 0),
    FAULT(lane_never_arrives, 1, 32, 0),
    FAULT(lanes_in_two_operations, 1, 32, 0),
    FAULT(warp_waits_at_barrier, 1, 32, 0),
    FAULT(mask_without_caller, 1, 32, 0),
    FAULT(mask_beyond_block, 1, 48, 0),
    FAULT(shuffle_from_outside, 1, 32, 0),
    FAULT(shuffle_of_odd_width, 1, 32, 0),
    {"launch_on_another_stream", launch_on_another_stream},
    {"memset_on_another_stream", memset_on_another_stream},
    {"allocation_beside_a_stream", allocation_beside_a_stream},
    {"wait_beside_a_stream", wait_beside_a_stream},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Fault& fault : kFaults) {
    if (argc != 2 || std::strcmp(argv[1], fault.name) != 0) continue;
    const bool in_place = std::strncmp(fault.name, "uninitialised", 13) == 0;
    const DeviceBuffer<int> zeroed(kCount, 0), fresh(kCount);
    const DeviceBuffer<int>& out = in_place ? fresh : zeroed;
    fault.launch(out.get());
    for (const int value : out.values()) std::printf("%d ", value);
    std::printf("\n");
    return 0;
  }
  std::printf("no fault of that name; there are:\n");
  for (const Fault& fault : kFaults) std::printf("  %s\n", fault.name);
  return 2;
}
