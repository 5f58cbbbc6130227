#include "onnxruntime/custom_op.h"

#include <string>

namespace dibr::onnxruntime {
namespace {

// A node's kernel together with what its custom op was registered for.
struct BoundKernel {
  const OpDefinition& definition;
  Dtypes dtypes;
  dibr_device device;
  std::unique_ptr<Kernel> kernel;
};

ONNXTensorElementDataType element_type(Type type, Dtypes dtypes) {
  if (type == Type::kInt32) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  if (type == Type::kInt64) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  const dibr_dtype dtype = type == Type::kTexel ? dtypes.texel : dtypes.stored;
  if (type != Type::kReal && dtype == DIBR_FLOAT16) return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  if (type != Type::kReal && dtype == DIBR_BFLOAT16) return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  return dtype == DIBR_FLOAT64 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

OrtCustomOpInputOutputCharacteristic characteristic(const Argument& argument) {
  return argument.optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
}

void check_plugin_version(const Node& node) {
  const std::string known = std::to_string(DIBR_SCHEMA_VERSION);
  const std::string version = node.text("plugin_version", known.c_str());
  if (version != known) {
    fail(std::string(node.op()) + ": attribute plugin_version must be \"" + known +
         "\", the op schema of this library, got \"" + version + "\"; use a dibr_deploy that knows that schema");
  }
}

}  // namespace

CustomOp::CustomOp(const OpDefinition& definition, Dtypes dtypes, dibr_device device, bool infer_shapes)
    : OrtCustomOp{}, definition_(definition), dtypes_(dtypes), device_(device) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return static_cast<const CustomOp*>(op)->definition_.name; };
  GetExecutionProviderType = [](const OrtCustomOp* op) {
    return in_gpu_memory(static_cast<const CustomOp*>(op)->device_) ? "CUDAExecutionProvider" : "CPUExecutionProvider";
  };

  GetInputTypeCount = [](const OrtCustomOp* op) { return static_cast<const CustomOp*>(op)->definition_.inputs.size(); };
  GetInputType = [](const OrtCustomOp* op, size_t index) {
    const auto* self = static_cast<const CustomOp*>(op);
    return element_type(self->definition_.inputs[index].type, self->dtypes_);
  };
  GetInputCharacteristic = [](const OrtCustomOp* op, size_t index) {
    return characteristic(static_cast<const CustomOp*>(op)->definition_.inputs[index]);
  };
  GetInputMemoryType = [](const OrtCustomOp* op, size_t index) {
    const bool on_host = static_cast<const CustomOp*>(op)->definition_.inputs[index].on_host;
    return on_host ? OrtMemTypeCPUInput : OrtMemTypeDefault;
  };
  GetOutputTypeCount = [](const OrtCustomOp* op) {
    return static_cast<const CustomOp*>(op)->definition_.outputs.size();
  };
  GetOutputType = [](const OrtCustomOp* op, size_t index) {
    const auto* self = static_cast<const CustomOp*>(op);
    return element_type(self->definition_.outputs[index].type, self->dtypes_);
  };
  GetOutputCharacteristic = [](const OrtCustomOp* op, size_t index) {
    return characteristic(static_cast<const CustomOp*>(op)->definition_.outputs[index]);
  };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };

  CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
    return guard([&] {
      const auto* self = static_cast<const CustomOp*>(op);
      const Node node(self->definition_.name, info);
      check_plugin_version(node);
      *kernel = new BoundKernel{self->definition_, self->dtypes_, self->device_, self->definition_.create(node)};
    });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guard([&] {
      const auto* bound = static_cast<const BoundKernel*>(kernel);
      bound->kernel->compute(Call(bound->definition, bound->dtypes, bound->device, context));
    });
  };
  KernelDestroy = [](void* kernel) { delete static_cast<BoundKernel*>(kernel); };

  if (!infer_shapes) return;
  // A shape that cannot be inferred is left open; ONNX Runtime ignores the status and would leak it.
  InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) -> OrtStatus* {
    OrtStatus* status =
        guard([&] { static_cast<const CustomOp*>(op)->definition_.infer_shapes(ShapeInference(context)); });
    if (status != nullptr) Ort::GetApi().ReleaseStatus(status);
    return nullptr;
  };
}

}  // namespace dibr::onnxruntime
