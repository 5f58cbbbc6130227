// The CUDA driver, found at run time: device memory, copies and streams, in the device's primary context, which the
// CUDA runtime uses too.
#pragma once

#include <cuda.h>

#include <memory>
#include <string>

#include "engine_checks.h"
#include "libraries.h"

namespace dibr::runtime {

class CudaDevice {
 public:
  // Fails with ABSENT where there is no driver or no such device.
  explicit CudaDevice(int number);
  CudaDevice(const CudaDevice&) = delete;
  ~CudaDevice();

  ComputeCapability compute_capability() const;

  // Makes the device's context the thread's current one for as long as it lives.
  class Current {
   public:
    explicit Current(const CudaDevice& device);
    Current(const Current&) = delete;
    ~Current();

   private:
    const CudaDevice& device_;
  };

  // The context must be current.
  CUdeviceptr allocate(std::size_t bytes) const;
  void free(CUdeviceptr memory) const;
  CUstream make_stream() const;
  void destroy(CUstream stream) const;
  void copy_to_device(CUdeviceptr target, const void* source, std::size_t bytes, CUstream stream) const;
  void copy_to_host(void* target, CUdeviceptr source, std::size_t bytes, CUstream stream) const;
  void synchronize(CUstream stream) const;

 private:
  // Of cuda.h, by the names that its macros give them.
  struct Functions;
  void check(CUresult result, const char* task, dibr_runtime_status status) const;

  SharedLibrary library_;
  std::unique_ptr<Functions> functions_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

}  // namespace dibr::runtime
