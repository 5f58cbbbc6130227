// Theoretical occupancy by the CUDA toolkit's own calculator (cuda_occupancy.h), without a device or a driver.
// Reads lines "compute_capability registers shared_bytes threads_per_block", e.g. "90 56 5152 256", and writes for each
// the percentage of an SM's threads that can be resident.
#include <cuda_runtime_api.h>
// After the runtime's types.
#include <cuda_occupancy.h>

#include <cstdio>

namespace {

constexpr int kKibibyte = 1024;

// "Technical Specifications per Compute Capability" of the CUDA C++ Programming Guide, release 13.0. The number of
// resident blocks, the allocation units and the shared memory carve-outs are in cuda_occupancy.h itself.
struct Limits {
  int compute_capability;
  int threads_per_sm;
  int shared_kibibytes_per_sm, shared_kibibytes_per_block;
};
constexpr Limits kLimits[] = {
    {75, 1024, 64, 64},   {80, 2048, 164, 163},  {86, 1536, 100, 99},  {89, 1536, 100, 99},
    {90, 2048, 228, 227}, {100, 2048, 228, 227}, {120, 1536, 100, 99},
};

cudaOccDeviceProp device_of(const Limits& limits) {
  cudaOccDeviceProp device;
  device.computeMajor = limits.compute_capability / 10;
  device.computeMinor = limits.compute_capability % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = limits.threads_per_sm;
  device.regsPerBlock = device.regsPerMultiprocessor = 64 * 1024;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 * kKibibyte;
  device.sharedMemPerMultiprocessor = limits.shared_kibibytes_per_sm * kKibibyte;
  device.sharedMemPerBlockOptin = limits.shared_kibibytes_per_block * kKibibyte;
  device.reservedSharedMemPerBlock = device.computeMajor >= 8 ? kKibibyte : 0;
  device.numSms = 1;  // does not enter into the occupancy of one SM
  return device;
}

// Percent, or -1 where the calculator refuses.
double occupancy(const Limits& limits, int registers, int shared_bytes, int threads) {
  const cudaOccDeviceProp device = device_of(limits);
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = registers;
  kernel.sharedSizeBytes = size_t(shared_bytes);
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_DEFAULT;
  kernel.maxDynamicSharedSizeBytes = 0;
  kernel.numBlockBarriers = 1;
  const cudaOccDeviceState state;
  cudaOccResult result;
  const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0);
  if (error != CUDA_OCC_SUCCESS) return -1;
  return 100.0 * result.activeBlocksPerMultiprocessor * threads / limits.threads_per_sm;
}

const Limits* limits_of(int compute_capability) {
  for (const Limits& limits : kLimits) {
    if (limits.compute_capability == compute_capability) return &limits;
  }
  return nullptr;
}

}  // namespace

int main() {
  int compute_capability, registers, shared_bytes, threads;
  while (std::scanf("%d %d %d %d", &compute_capability, &registers, &shared_bytes, &threads) == 4) {
    const Limits* limits = limits_of(compute_capability);
    const double percent = limits == nullptr ? -1 : occupancy(*limits, registers, shared_bytes, threads);
    if (percent < 0) {
      std::fprintf(stderr, "occupancy: no answer for compute capability %d\n", compute_capability);
      return 1;
    }
    std::printf("%.0f\n", percent);
  }
}
