// One call of a torch op: its tensors, checked against the shapes the op declares, and the launch of a libdibr op.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "dibr/dibr.h"
#include "torch/device.h"

namespace dibr::torch_door {

using OptionalTensor = std::optional<Tensor>;

// A size that several arguments share, named as in the op's documentation. The first argument that has it sets it.
struct Size {
  const char* name;
  int64_t value = -1;
};

// What one dimension of an argument must be: a number or a shared size.
struct Extent {
  Extent(int64_t number) : number(number) {}
  Extent(Size& size) : size(&size) {}

  int64_t number = 0;
  Size* size = nullptr;
};
using Shape = std::initializer_list<Extent>;

// The dtypes that an op's first tensor may have.
enum class Dtypes { kReal, kRealOrHalf };  // float32 and float64; float16 and bfloat16 besides

class Call {
 public:
  // The op runs on the device of its first tensor, and in its dtype.
  Call(const char* op, const char* first_name, const Tensor& first, Dtypes allowed = Dtypes::kReal);

  dibr_dtype dtype() const { return dtype_; }

  // Data of an input of the op's dtype, of that dtype or float32 where it is a half, or of int32; NULL for an optional
  // input that is absent. Sets the sizes that are not set yet. A tensor that is not contiguous is copied, and the copy
  // lives as long as the call.
  const void* real(const char* name, const OptionalTensor& tensor, Shape shape);
  const void* real_not_half(const char* name, const OptionalTensor& tensor, Shape shape);
  const int32_t* int32(const char* name, const OptionalTensor& tensor, Shape shape);
  const void* bytes(const char* name, const OptionalTensor& tensor, Shape shape);
  // Data of an input of the op's dtype, or of a half beside float32; dtype receives which.
  const void* stored(const char* name, const Tensor& tensor, Shape shape, dibr_dtype* dtype);

  // An enumerator of dibr.h, which has `count` of them.
  template <class Enumeration>
  Enumeration choice(const char* name, int64_t value, int64_t count) const {
    check_choice(name, value, count);
    return static_cast<Enumeration>(value);
  }

  Tensor new_real(std::initializer_list<int64_t> shape) const;
  Tensor new_int32(std::initializer_list<int64_t> shape) const;
  Tensor new_stored(dibr_dtype dtype, std::initializer_list<int64_t> shape) const;

  // Checks the sizes and allocates the workspace; goes before the outputs, whose sizes it vouches for.
  template <class Params>
  void prepare(const Params& params, dibr_status (*workspace_size)(const Params*, dibr_device, uint64_t*)) {
    allocate_workspace(this->workspace_size(params, workspace_size));
  }
  template <class Params>
  int64_t workspace_size(const Params& params,
                         dibr_status (*workspace_size)(const Params*, dibr_device, uint64_t*)) const {
    uint64_t bytes = 0;
    check(workspace_size(&params, device_.kind(), &bytes));
    return int64_t(bytes);
  }
  const Tensor& workspace() const { return *workspace_; }
  template <class Params>
  void launch(const Params& params, dibr_status (*run)(const Params*, const dibr_launch*)) const {
    const dibr_launch launch = make_launch();
    check(run(&params, &launch));
  }

 private:
  const Tensor& hold(const char* name, const Tensor& tensor, ::torch::headeronly::ScalarType type, Shape shape);
  void match(const char* name, const Tensor& tensor, Shape shape) const;
  void check_choice(const char* name, int64_t value, int64_t count) const;
  void check(dibr_status status) const;
  void allocate_workspace(int64_t bytes);
  // Uninitialised, on the op's device.
  Tensor new_tensor(std::initializer_list<int64_t> shape, int32_t dtype) const;
  dibr_launch make_launch() const;

  const char* op_;
  const char* first_name_;
  Tensor first_;
  dibr_dtype dtype_;
  Device device_;
  OptionalTensor workspace_;  // once it is allocated
  std::vector<Tensor> inputs_;
};

}  // namespace dibr::torch_door
