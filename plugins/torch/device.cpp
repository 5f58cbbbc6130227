#include "torch/device.h"

#include <dlfcn.h>

#include <stdexcept>

namespace dibr::torch_door {
namespace {

using StreamOfDevice = AOTITorchError (*)(int32_t device_index, void** stream);

// A CPU build of torch lacks this function, so it is looked up when the first CUDA tensor comes: in what is loaded
// globally, then in torch's CUDA library, which Python loads out of global sight.
StreamOfDevice find_current_stream() {
  constexpr const char* kFunction = "aoti_torch_get_current_cuda_stream";
  void* function = dlsym(RTLD_DEFAULT, kFunction);
  if (function == nullptr) {
    if (void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD)) {
      function = dlsym(library, kFunction);
      dlclose(library);
    }
  }
  return reinterpret_cast<StreamOfDevice>(function);
}

}  // namespace

#if DIBR_CUDA_ON_HOST

// For tests: the CUDA kernels run on the CPU, on CPU tensors, and take the path of CUDA tensors.
Device::Device(const Tensor&) : kind_(DIBR_CUDA) {}

#else

Device::Device(const Tensor& tensor) : kind_(tensor.is_cuda() ? DIBR_CUDA : DIBR_CPU) {
  if (kind_ == DIBR_CPU) return;
  index_ = tensor.get_device_index();
  guard_.emplace(index_);
}

#endif

void* Device::current_stream() const {
  if (kind_ == DIBR_CPU) return nullptr;
  static const StreamOfDevice function = find_current_stream();
  void* stream = nullptr;
  if (function == nullptr || function(index_, &stream) != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error(
        "torch gives no current CUDA stream: aoti_torch_get_current_cuda_stream is missing or failed");
  }
  return stream;
}

}  // namespace dibr::torch_door
