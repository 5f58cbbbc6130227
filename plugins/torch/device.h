// Where a call runs: the device of a tensor, made current for as long as the call lasts, and its current stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "dibr/dibr.h"

namespace dibr::torch_door {

using Tensor = ::torch::stable::Tensor;

class Device {
 public:
  explicit Device(const Tensor& tensor);

  dibr_device kind() const { return kind_; }

  // The cudaStream_t that torch would launch on now; NULL on the CPU.
  void* current_stream() const;

 private:
  dibr_device kind_;
  int32_t index_ = 0;
  std::optional<::torch::stable::accelerator::DeviceGuard> guard_;
};

}  // namespace dibr::torch_door
