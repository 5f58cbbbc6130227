// The host side of the CUDA runtime, as far as launchers and tests use it. Device memory is host memory and every call
// is complete when it returns, so a stream is only a handle (stream.h checks it).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "shared_memory.h"
#include "stream.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

namespace cuda_on_host {

inline thread_local cudaError_t last_error = cudaSuccess;
inline void set_last_error(cudaError_t error) { last_error = error; }
inline cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) set_last_error(error);
  return error;
}

// Above 48 KiB a kernel must ask first, and no device gives more than 227 KiB.
constexpr size_t kDefaultDynamicSharedBytes = 48 << 10;
constexpr size_t kLargestDynamicSharedBytes = 227 << 10;

class DynamicSharedLimits {
 public:
  static DynamicSharedLimits& instance() {
    static DynamicSharedLimits limits;
    return limits;
  }
  void set(const void* kernel, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes_[kernel] = bytes;
  }
  size_t get(const void* kernel) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = bytes_.find(kernel);
    return found == bytes_.end() || found->second < kDefaultDynamicSharedBytes ? kDefaultDynamicSharedBytes
                                                                               : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<const void*, size_t> bytes_;
};

inline size_t max_dynamic_shared_bytes(const void* kernel) { return DynamicSharedLimits::instance().get(kernel); }

}  // namespace cuda_on_host

inline cudaError_t cudaPeekAtLastError() { return cuda_on_host::last_error; }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_host::last_error;
  cuda_on_host::last_error = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
  }
  return "unrecognized error code";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
  }
  return "unrecognized error code";
}

// Device memory is not zero either.
template <class T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  cuda_on_host::require_any_stream("cudaMalloc");
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  void* const memory = std::malloc(bytes);
  if (!memory) return cuda_on_host::report(cudaErrorMemoryAllocation);
  cuda_on_host::poison(memory, bytes);
  *pointer = static_cast<T*>(memory);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
  cuda_on_host::require_any_stream("cudaFree");
  std::free(pointer);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream = nullptr) {
  cuda_on_host::require_stream("cudaMemcpyAsync", stream);
  if (bytes) std::memcpy(destination, source, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* destination, const void* source, size_t bytes, cudaMemcpyKind kind) {
  cuda_on_host::require_any_stream("cudaMemcpy");
  return cudaMemcpyAsync(destination, source, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t stream = nullptr) {
  cuda_on_host::require_stream("cudaMemsetAsync", stream);
  if (bytes) std::memset(destination, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* destination, int value, size_t bytes) {
  cuda_on_host::require_any_stream("cudaMemset");
  return cudaMemsetAsync(destination, value, bytes);
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  cuda_on_host::require_any_stream("cudaStreamSynchronize");
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  cuda_on_host::require_any_stream("cudaDeviceSynchronize");
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || size_t(value) > cuda_on_host::kLargestDynamicSharedBytes)
    return cuda_on_host::report(cudaErrorInvalidValue);
  cuda_on_host::DynamicSharedLimits::instance().set(reinterpret_cast<const void*>(kernel), size_t(value));
  return cudaSuccess;
}
