#include "tensorrt/plugin.h"

#include <limits>
#include <vector>

#include "tensorrt/arguments.h"
#include "tensorrt/report.h"

namespace dibr::tensorrt {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr dibr_device kDevice = DIBR_CUDA;
constexpr int32_t kSuccess = 0;
constexpr int32_t kFailure = 1;
constexpr size_t kNoSuchWorkspace = std::numeric_limits<int64_t>::max();  // more than any device has

void check(dibr_status status) {
  if (status == DIBR_OK) return;
  using nvinfer1::ErrorCode;
  throw Error(dibr_last_error(), status == DIBR_INVALID_ARGUMENT ? ErrorCode::kINVALID_ARGUMENT
                                 : status == DIBR_UNSUPPORTED    ? ErrorCode::kUNSUPPORTED_STATE
                                                                 : ErrorCode::kFAILED_EXECUTION);
}

uint64_t workspace_bytes(const OpDefinition& op, const Problem& problem) {
  uint64_t bytes = 0;
  check(op.calls.workspace_size(problem, kDevice, &bytes));
  return bytes;
}

std::vector<PluginTensorDesc> descs_of(const DynamicPluginTensorDesc* tensors, int32_t count) {
  std::vector<PluginTensorDesc> descs;
  for (int32_t i = 0; i < count; ++i) descs.push_back(tensors[i].desc);
  return descs;
}

// The workspace for the largest sizes of a profile, and with it for all smaller ones.
uint64_t largest_workspace(const OpDefinition& op, const Values& fields, const DynamicPluginTensorDesc* inputs,
                           int32_t input_count, const DynamicPluginTensorDesc* outputs, int32_t output_count) {
  check_counts(op, input_count, output_count);
  const Reals reals = check_types(op, descs_of(inputs, input_count).data(), input_count,
                                  descs_of(outputs, output_count).data(), output_count);
  const dibr_dtype dtype = dtype_of(reals.real);
  const Sizes sizes = largest_sizes(op, inputs, input_count, outputs, output_count);
  return workspace_bytes(op, {fields, sizes, dtype, nullptr, input_count});
}

}  // namespace

Plugin::Plugin(const OpDefinition& op, const Values& fields, nvinfer1::IErrorRecorder* errors)
    : definition_(op), op_(op), fields_(fields), text_(to_text(op, fields)), errors_(errors) {
  if (op.choose_arguments == nullptr) return;
  inputs_.assign(op.inputs.begin(), op.inputs.end());
  outputs_.assign(op.outputs.begin(), op.outputs.end());
  op.choose_arguments(fields, &inputs_, &outputs_);
  op_.inputs = inputs_;
  op_.outputs = outputs_;
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::copy(nvinfer1::IErrorRecorder* errors) const noexcept {
  return guard<nvinfer1::IPluginV3*>(nullptr, errors_, [&] {
    auto plugin = std::make_unique<Plugin>(definition_, fields_, errors);
    plugin->input_count_ = input_count_;
    return plugin.release();
  });
}

nvinfer1::IPluginV3* Plugin::clone() noexcept { return copy(errors_); }

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext* context) noexcept {
  return copy(context == nullptr ? errors_ : context->getErrorRecorder());
}

int32_t Plugin::getOutputDataTypes(nvinfer1::DataType* output_types, int32_t output_count,
                                   const nvinfer1::DataType* input_types, int32_t input_count) const noexcept {
  return guard(kFailure, errors_, [&] {
    check_counts(op_, input_count, output_count);
    const Reals reals = check_input_types(op_, input_types, input_count);
    for (int i = 0; i < output_count; ++i) output_types[i] = output_type(op_.outputs[i], reals);
    return kSuccess;
  });
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                                const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                                nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  return guard(kFailure, errors_, [&] {
    check_counts(op_, input_count, output_count);
    make_output_shapes(op_, fields_, inputs, input_count, shape_inputs, shape_input_count, outputs, builder);
    return kSuccess;
  });
}

bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t input_count,
                                       int32_t output_count) noexcept {
  return guard(false, errors_, [&] {
    check_counts(op_, input_count, output_count);
    if (position < 0 || position >= input_count + output_count) return false;
    Reals reals;
    for (int32_t before = 0; before < position; ++before) {
      reals.learn(argument_at(op_, input_count, before), tensors[before].desc.type);
    }
    const PluginTensorDesc& desc = tensors[position].desc;
    return desc.format == nvinfer1::TensorFormat::kLINEAR &&
           accepts(argument_at(op_, input_count, position), desc.type, reals);
  });
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const DynamicPluginTensorDesc* outputs, int32_t output_count) noexcept {
  return guard(kFailure, errors_, [&] {
    largest_workspace(op_, fields_, inputs, input_count, outputs, output_count);
    return kSuccess;
  });
}

size_t Plugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const DynamicPluginTensorDesc* outputs, int32_t output_count) const noexcept {
  return guard(kNoSuchWorkspace, errors_,
               [&]() -> size_t { return largest_workspace(op_, fields_, inputs, input_count, outputs, output_count); });
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc* outputs,
                              int32_t output_count) noexcept {
  return guard(kFailure, errors_, [&] {
    check_counts(op_, input_count, output_count);
    check_types(op_, inputs, input_count, outputs, output_count);
    sizes_of(op_, inputs, input_count, outputs, output_count);
    input_count_ = input_count;
    return kSuccess;
  });
}

int32_t Plugin::enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc* output_descs,
                        const void* const* inputs, void* const* outputs, void* workspace,
                        cudaStream_t stream) noexcept {
  return guard(kFailure, errors_, [&] {
    check_counts(op_, input_count_, op_.outputs.size());
    const Reals reals = check_types(op_, input_descs, input_count_, output_descs, op_.outputs.size());
    const Sizes sizes = sizes_of(op_, input_descs, input_count_, output_descs, op_.outputs.size());
    const Problem problem{fields_, sizes, dtype_of(reals.real), inputs, input_count_, outputs, dtype_of(reals.texel)};
    dibr_launch launch{};
    launch.device = kDevice;
    launch.stream = stream;
    launch.workspace = workspace;
    launch.workspace_bytes = workspace_bytes(op_, problem);
    check(op_.calls.launch(problem, launch));
    return kSuccess;
  });
}

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept {
  return guard<const nvinfer1::PluginFieldCollection*>(nullptr, errors_, [&] {
    if (written_ == nullptr) written_ = std::make_unique<WrittenFields>(op_, fields_);
    return written_->collection();
  });
}

}  // namespace dibr::tensorrt
