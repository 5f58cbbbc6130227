#include "cuda_driver.h"

#include "failure.h"

namespace dibr::runtime {

// What cuda.h renames by macros, such as cuMemAlloc to cuMemAlloc_v2, keeps its right symbol this way.
#define DIBR_CUDA_FUNCTIONS(X) \
  X(cuInit)                    \
  X(cuGetErrorString)          \
  X(cuDeviceGetCount)          \
  X(cuDeviceGet)               \
  X(cuDeviceGetAttribute)      \
  X(cuDevicePrimaryCtxRetain)  \
  X(cuDevicePrimaryCtxRelease) \
  X(cuCtxPushCurrent)          \
  X(cuCtxPopCurrent)           \
  X(cuMemAlloc)                \
  X(cuMemFree)                 \
  X(cuMemcpyHtoDAsync)         \
  X(cuMemcpyDtoHAsync)         \
  X(cuStreamCreate)            \
  X(cuStreamDestroy)           \
  X(cuStreamSynchronize)
#define DIBR_CUDA_TEXT(name) #name
#define DIBR_CUDA_SYMBOL(name) DIBR_CUDA_TEXT(name)

struct CudaDevice::Functions {
#define DIBR_CUDA_MEMBER(name) decltype(&::name) name = nullptr;
  DIBR_CUDA_FUNCTIONS(DIBR_CUDA_MEMBER)
#undef DIBR_CUDA_MEMBER
};

CudaDevice::CudaDevice(int number)
    : library_({"libcuda.so.1"}, "NVIDIA's driver", "install it, or choose provider cpu"),
      functions_(std::make_unique<Functions>()) {
#define DIBR_CUDA_LOAD(name)                                                       \
  functions_->name = library_.function<decltype(&::name)>(DIBR_CUDA_SYMBOL(name)); \
  if (functions_->name == nullptr) fail(DIBR_RUNTIME_ABSENT, "NVIDIA's driver has no " DIBR_CUDA_SYMBOL(name));
  DIBR_CUDA_FUNCTIONS(DIBR_CUDA_LOAD)
#undef DIBR_CUDA_LOAD
  check(functions_->cuInit(0), "start CUDA", DIBR_RUNTIME_ABSENT);
  int count = 0;
  check(functions_->cuDeviceGetCount(&count), "count the devices", DIBR_RUNTIME_ABSENT);
  if (number >= count) fail(DIBR_RUNTIME_ABSENT, "there is no CUDA device ", number, ", this machine has ", count);
  check(functions_->cuDeviceGet(&device_, number), "open the device", DIBR_RUNTIME_ABSENT);
  check(functions_->cuDevicePrimaryCtxRetain(&context_, device_), "open the device", DIBR_RUNTIME_ABSENT);
}

CudaDevice::~CudaDevice() { functions_->cuDevicePrimaryCtxRelease(device_); }

void CudaDevice::check(CUresult result, const char* task, dibr_runtime_status status) const {
  if (result == CUDA_SUCCESS) return;
  const char* words = nullptr;
  if (functions_->cuGetErrorString(result, &words) != CUDA_SUCCESS || words == nullptr) words = "an unknown error";
  fail(status, "CUDA could not ", task, ": ", words);
}

ComputeCapability CudaDevice::compute_capability() const {
  ComputeCapability capability;
  const auto ask = [&](int* value, CUdevice_attribute attribute) {
    check(functions_->cuDeviceGetAttribute(value, attribute, device_), "describe the device", DIBR_RUNTIME_ABSENT);
  };
  ask(&capability.major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  ask(&capability.minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return capability;
}

CudaDevice::Current::Current(const CudaDevice& device) : device_(device) {
  device.check(device.functions_->cuCtxPushCurrent(device.context_), "use the device", DIBR_RUNTIME_FAILED);
}

CudaDevice::Current::~Current() {
  CUcontext context = nullptr;
  device_.functions_->cuCtxPopCurrent(&context);
}

CUdeviceptr CudaDevice::allocate(std::size_t bytes) const {
  CUdeviceptr memory = 0;
  check(functions_->cuMemAlloc(&memory, bytes), "take device memory", DIBR_RUNTIME_OUT_OF_MEMORY);
  return memory;
}

void CudaDevice::free(CUdeviceptr memory) const { functions_->cuMemFree(memory); }

CUstream CudaDevice::make_stream() const {
  CUstream stream = nullptr;
  check(functions_->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "make a stream", DIBR_RUNTIME_FAILED);
  return stream;
}

void CudaDevice::destroy(CUstream stream) const { functions_->cuStreamDestroy(stream); }

void CudaDevice::copy_to_device(CUdeviceptr target, const void* source, std::size_t bytes, CUstream stream) const {
  check(functions_->cuMemcpyHtoDAsync(target, source, bytes, stream), "copy an input", DIBR_RUNTIME_FAILED);
}

void CudaDevice::copy_to_host(void* target, CUdeviceptr source, std::size_t bytes, CUstream stream) const {
  check(functions_->cuMemcpyDtoHAsync(target, source, bytes, stream), "copy an output", DIBR_RUNTIME_FAILED);
}

void CudaDevice::synchronize(CUstream stream) const {
  check(functions_->cuStreamSynchronize(stream), "run the engine", DIBR_RUNTIME_FAILED);
}

}  // namespace dibr::runtime
