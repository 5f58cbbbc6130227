#include "torch/call.h"

#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <sstream>
#include <stdexcept>
#include <string>

namespace dibr::torch_door {
namespace {

using ::torch::headeronly::ScalarType;

// torch turns this into a RuntimeError.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// As Python spells it.
std::string to_text(ScalarType type) {
  switch (type) {
    case ScalarType::Bool:
      return "bool";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    default:
      return ::torch::headeronly::toString(type);
  }
}

std::string to_text(const Tensor& tensor) {
  std::ostringstream text;
  const char* separator = "";
  text << "[";
  for (const int64_t size : tensor.sizes()) {
    text << separator << size;
    separator = ", ";
  }
  text << "]";
  return text.str();
}

// For example "[B, V, 4] with B = 2".
std::string to_text(Shape shape) {
  std::ostringstream text, known;
  const char* separator = "";
  text << "[";
  for (const Extent& extent : shape) {
    text << separator;
    separator = ", ";
    if (extent.size == nullptr) {
      text << extent.number;
      continue;
    }
    text << extent.size->name;
    if (extent.size->value >= 0) {
      known << (known.tellp() > 0 ? ", " : " with ") << extent.size->name << " = " << extent.size->value;
    }
  }
  text << "]" << known.str();
  return text.str();
}

dibr_dtype dtype_of(const char* op, const char* name, const Tensor& tensor, Dtypes allowed) {
  const bool half = allowed == Dtypes::kRealOrHalf;
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DIBR_FLOAT32;
    case ScalarType::Double:
      return DIBR_FLOAT64;
    case ScalarType::Half:
      if (half) return DIBR_FLOAT16;
      break;
    case ScalarType::BFloat16:
      if (half) return DIBR_BFLOAT16;
      break;
    default:
      break;
  }
  fail(op, ": ", name, " must be float32", half ? ", float64, float16 or bfloat16" : " or float64", ", got ",
       to_text(tensor.scalar_type()));
}

// dibr_parallel_for on torch's intra-op threads, each of which has a run of the tasks.
void parallel_for(void*, int64_t count, dibr_task task, void* task_state) noexcept {
  std::atomic<int64_t> left{count};
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) task(task_state, i);
    left -= end - begin;
    // The caller, which has the first run, would fall asleep for as short a time as the others still need, and take
    // longer than that to wake up.
    constexpr auto kShortWait = std::chrono::microseconds(50);
    const auto start = std::chrono::steady_clock::now();
    while (begin == 0 && left > 0 && std::chrono::steady_clock::now() - start < kShortWait) {
    }
  };
  ::torch::stable::parallel_for(0, count, 1, run);
}

}  // namespace

Call::Call(const char* op, const char* first_name, const Tensor& first, Dtypes allowed)
    : op_(op),
      first_name_(first_name),
      first_(first),
      dtype_(dtype_of(op, first_name, first, allowed)),
      device_(first) {}

const void* Call::real(const char* name, const OptionalTensor& tensor, Shape shape) {
  return tensor ? hold(name, *tensor, first_.scalar_type(), shape).const_data_ptr() : nullptr;
}

const void* Call::real_not_half(const char* name, const OptionalTensor& tensor, Shape shape) {
  const ScalarType type = dtype_ == DIBR_FLOAT64 ? ScalarType::Double : ScalarType::Float;
  return tensor ? hold(name, *tensor, type, shape).const_data_ptr() : nullptr;
}

const int32_t* Call::int32(const char* name, const OptionalTensor& tensor, Shape shape) {
  return tensor ? static_cast<const int32_t*>(hold(name, *tensor, ScalarType::Int, shape).const_data_ptr()) : nullptr;
}

const void* Call::bytes(const char* name, const OptionalTensor& tensor, Shape shape) {
  return tensor ? hold(name, *tensor, ScalarType::Byte, shape).const_data_ptr() : nullptr;
}

const void* Call::stored(const char* name, const Tensor& tensor, Shape shape, dibr_dtype* dtype) {
  *dtype = dtype_of(op_, name, tensor, dtype_ == DIBR_FLOAT32 ? Dtypes::kRealOrHalf : Dtypes::kReal);
  const bool half = *dtype == DIBR_FLOAT16 || *dtype == DIBR_BFLOAT16;
  return hold(name, tensor, half ? tensor.scalar_type() : first_.scalar_type(), shape).const_data_ptr();
}

Tensor Call::new_real(std::initializer_list<int64_t> shape) const {
  int32_t dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(first_.get(), &dtype));
  return new_tensor(shape, dtype);
}

Tensor Call::new_int32(std::initializer_list<int64_t> shape) const {
  return new_tensor(shape, aoti_torch_dtype_int32());
}

Tensor Call::new_stored(dibr_dtype dtype, std::initializer_list<int64_t> shape) const {
  if (dtype == dtype_) return new_real(shape);
  return new_tensor(shape, dtype == DIBR_FLOAT16 ? aoti_torch_dtype_float16() : aoti_torch_dtype_bfloat16());
}

const Tensor& Call::hold(const char* name, const Tensor& tensor, ScalarType type, Shape shape) {
  if (tensor.device() != first_.device()) fail(op_, ": ", name, " must be on the device of ", first_name_);
  if (tensor.scalar_type() != type) {
    fail(op_, ": ", name, " must be ", to_text(type), ", got ", to_text(tensor.scalar_type()));
  }
  match(name, tensor, shape);
  // Asking torch's dispatcher takes as long as a small kernel.
  return inputs_.emplace_back(tensor.is_contiguous() ? tensor : ::torch::stable::contiguous(tensor));
}

void Call::match(const char* name, const Tensor& tensor, Shape shape) const {
  bool fits = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t axis = 0;
  for (const Extent& extent : shape) {
    if (!fits) break;
    const int64_t expected = extent.size != nullptr ? extent.size->value : extent.number;
    fits = expected < 0 || tensor.size(axis) == expected;
    ++axis;
  }
  if (!fits) fail(op_, ": ", name, " must have shape ", to_text(shape), ", got ", to_text(tensor));
  axis = 0;
  for (const Extent& extent : shape) {
    if (extent.size != nullptr) extent.size->value = tensor.size(axis);
    ++axis;
  }
}

void Call::check_choice(const char* name, int64_t value, int64_t count) const {
  if (value < 0 || value >= count) fail(op_, ": ", name, " must be in [0, ", count - 1, "], got ", value);
}

void Call::check(dibr_status status) const {
  if (status != DIBR_OK) fail(dibr_last_error());
}

void Call::allocate_workspace(int64_t bytes) { workspace_ = new_tensor({bytes}, aoti_torch_dtype_uint8()); }

// torch::stable::new_empty would look its operator up by name, and takes twice as long.
Tensor Call::new_tensor(std::initializer_list<int64_t> shape, int32_t dtype) const {
  std::array<int64_t, 4> strides;
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides.at(axis) = stride;
    stride *= std::max<int64_t>(shape.begin()[axis], 1);
  }
  int32_t type, index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(first_.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(first_.get(), &index));
  AtenTensorHandle out;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(int64_t(shape.size()), shape.begin(), strides.data(), dtype, type, index, &out));
  return Tensor(out);
}

dibr_launch Call::make_launch() const {
  dibr_launch launch{};
  launch.device = device_.kind();
  launch.stream = device_.current_stream();
  launch.parallel_for = ::torch::stable::get_num_threads() > 1 ? parallel_for : nullptr;
  launch.workspace = workspace_->mutable_data_ptr();
  launch.workspace_bytes = static_cast<uint64_t>(workspace_->numel());
  return launch;
}

}  // namespace dibr::torch_door
