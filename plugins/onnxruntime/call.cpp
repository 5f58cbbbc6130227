#include "onnxruntime/call.h"

#include <new>

#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

std::string bracketed(const std::vector<std::string>& parts) {
  std::string text = "[";
  for (const std::string& part : parts) text += (text.size() > 1 ? ", " : "") + part;
  return text + "]";
}

std::string to_text(const std::vector<int64_t>& shape) {
  std::vector<std::string> parts;
  for (const int64_t size : shape) parts.push_back(std::to_string(size));
  return bracketed(parts);
}

// For example "[1 or B, V, D] with B = 4".
std::string to_text(std::initializer_list<Extent> extents) {
  std::vector<std::string> parts;
  std::string known;
  for (const Extent& extent : extents) {
    if (extent.size == nullptr) {
      parts.push_back(std::to_string(extent.number));
      continue;
    }
    const Size& size = extent.one_or != nullptr ? *extent.one_or : *extent.size;
    parts.push_back((extent.one_or != nullptr ? "1 or " : "") + std::string(size.name));
    if (size.value >= 0) {
      known += (known.empty() ? " with " : ", ") + std::string(size.name) + " = " + std::to_string(size.value);
    }
  }
  return bracketed(parts) + known;
}

bool fits(const Extent& extent, int64_t size) {
  if (extent.size == nullptr) return size == extent.number;
  if (extent.one_or != nullptr) return size == 1 || size == extent.one_or->value;
  return extent.size->value < 0 || size == extent.size->value;
}

bool fits(std::initializer_list<Extent> extents, const std::vector<int64_t>& shape) {
  if (shape.size() != extents.size()) return false;
  size_t axis = 0;
  for (const Extent& extent : extents) {
    if (!fits(extent, shape[axis++])) return false;
  }
  return true;
}

struct Task {
  dibr_task run;
  void* state;
};

// dibr_parallel_for on the session's intra-op threads.
void parallel_for(void* context, int64_t count, dibr_task run, void* state) {
  Task task{run, state};
  const auto call = [](void* task, size_t index) {
    static_cast<Task*>(task)->run(static_cast<Task*>(task)->state, static_cast<int64_t>(index));
  };
  OrtStatus* status = Ort::GetApi().KernelContext_ParallelFor(static_cast<OrtKernelContext*>(context), call,
                                                              static_cast<size_t>(count), 0, &task);
  if (status == nullptr) return;
  Ort::GetApi().ReleaseStatus(status);
  for (int64_t index = 0; index < count; ++index) run(state, index);
}

}  // namespace

Workspace::Workspace(const OrtKernelContext* context, const char* memory_name, int device_id, uint64_t bytes)
    : bytes_(bytes) {
  if (bytes == 0) return;
  const Ort::MemoryInfo memory(memory_name, OrtArenaAllocator, device_id, OrtMemTypeDefault);
  Ort::ThrowOnError(Ort::GetApi().KernelContext_GetAllocator(context, memory, &allocator_));
  data_ = allocator_->Alloc(allocator_, bytes);
  if (data_ == nullptr) {
    Ort::GetApi().ReleaseAllocator(allocator_);
    throw std::bad_alloc();
  }
}

Workspace::~Workspace() {
  if (allocator_ == nullptr) return;
  allocator_->Free(allocator_, data_);
  Ort::GetApi().ReleaseAllocator(allocator_);
}

Call::Call(const OpDefinition& definition, const Dtypes& dtypes, dibr_device device, OrtKernelContext* context)
    : definition_(definition), dtype_(dtypes.stored), texel_dtype_(dtypes.texel), device_(device), context_(context) {}

const OrtValue* Call::find_input(size_t index) const {
  size_t count = 0;
  Ort::ThrowOnError(Ort::GetApi().KernelContext_GetInputCount(context_, &count));
  const OrtValue* value = nullptr;
  if (index < count) Ort::ThrowOnError(Ort::GetApi().KernelContext_GetInput(context_, index, &value));
  return value;
}

const void* Call::match(size_t index, std::initializer_list<Extent> extents) const {
  const Ort::ConstValue value(find_input(index));
  const std::vector<int64_t> shape = value.GetTensorTypeAndShapeInfo().GetShape();
  if (!fits(extents, shape)) {
    fail(std::string(definition_.name) + ": " + definition_.inputs[index].name + " must have shape " +
         to_text(extents) + ", got " + to_text(shape));
  }
  size_t axis = 0;
  for (const Extent& extent : extents) {
    if (extent.size != nullptr && extent.size->value < 0) extent.size->value = shape[axis];
    ++axis;
  }
  return value.GetTensorRawData();
}

void* Call::allocate_output(size_t index, const std::vector<int64_t>& shape) const {
  OrtValue* value = nullptr;
  Ort::ThrowOnError(Ort::GetApi().KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
  return value == nullptr ? nullptr : Ort::UnownedValue(value).GetTensorMutableRawData();
}

// On the device that the first input lies on.
Workspace Call::allocate_workspace(uint64_t bytes) const {
  if (!in_gpu_memory(device_)) return Workspace(context_, "Cpu", 0, bytes);
  return Workspace(context_, "Cuda", Ort::ConstValue(find_input(0)).GetTensorMemoryInfo().GetDeviceId(), bytes);
}

dibr_launch Call::make_launch(const Workspace& workspace) const {
  dibr_launch launch{};
  launch.device = device_;
  launch.workspace = workspace.data();
  launch.workspace_bytes = workspace.bytes();
  if (device_ == DIBR_CUDA) {
    Ort::ThrowOnError(Ort::GetApi().KernelContext_GetGPUComputeStream(context_, &launch.stream));
  } else {
    launch.parallel_for = parallel_for;
    launch.parallel_for_state = context_;
  }
  return launch;
}

void Call::check(dibr_status status) const {
  if (status == DIBR_OK) return;
  const OrtErrorCode code = status == DIBR_INVALID_ARGUMENT ? ORT_INVALID_ARGUMENT
                            : status == DIBR_UNSUPPORTED    ? ORT_NOT_IMPLEMENTED
                                                            : ORT_FAIL;
  fail(dibr_last_error(), code);
}

}  // namespace dibr::onnxruntime
