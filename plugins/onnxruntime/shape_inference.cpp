#include "onnxruntime/shape_inference.h"

#include <atomic>
#include <memory>

namespace dibr::onnxruntime {

// ONNX Runtime takes no unnamed dimension here, and equal names tell its memory planner that two sizes are equal: each
// unknown one gets a name of its own.
Dim Dim::unknown() {
  static std::atomic<uint64_t> count{0};
  return Dim("dibr_unknown_" + std::to_string(count++));
}

bool ShapeInference::has_input(size_t index) const {
  size_t count = 0;
  Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputCount(context_, &count));
  return index < count && input_type(index) != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

const OrtTensorTypeAndShapeInfo* ShapeInference::info(size_t index) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;  // owned by the context
  Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(context_, index, &info));
  return info;
}

Dim ShapeInference::input(size_t index, size_t rank, size_t axis) const {
  const OrtTensorTypeAndShapeInfo* shape = info(index);
  size_t actual_rank = 0;
  Ort::ThrowOnError(Ort::GetApi().GetDimensionsCount(shape, &actual_rank));
  if (actual_rank != rank) return Dim::unknown();
  std::vector<int64_t> numbers(rank);
  std::vector<const char*> symbols(rank);
  Ort::ThrowOnError(Ort::GetApi().GetDimensions(shape, numbers.data(), rank));
  Ort::ThrowOnError(Ort::GetApi().GetSymbolicDimensions(shape, symbols.data(), rank));
  if (numbers[axis] >= 0) return Dim(numbers[axis]);
  const bool named = symbols[axis] != nullptr && symbols[axis][0] != '\0';
  return named ? Dim(std::string(symbols[axis])) : Dim::unknown();
}

ONNXTensorElementDataType ShapeInference::input_type(size_t index) const {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Ort::ThrowOnError(Ort::GetApi().GetTensorElementType(info(index), &type));
  return type;
}

int64_t ShapeInference::integer(const char* attribute, int64_t fallback) const {
  const OrtOpAttr* handle = nullptr;
  OrtStatus* status = Ort::GetApi().ShapeInferContext_GetAttribute(context_, attribute, &handle);
  int64_t value = fallback;
  size_t bytes = 0;
  if (status == nullptr) {
    status = Ort::GetApi().ReadOpAttr(handle, ORT_OP_ATTR_INT, &value, sizeof(value), &bytes);
  }
  if (status == nullptr) return value;
  Ort::GetApi().ReleaseStatus(status);
  return fallback;
}

std::string ShapeInference::text(const char* attribute) const {
  const OrtOpAttr* handle = nullptr;
  OrtStatus* status = Ort::GetApi().ShapeInferContext_GetAttribute(context_, attribute, &handle);
  std::string value;
  size_t bytes = 0;
  // The first call fails and tells the length.
  if (status == nullptr) status = Ort::GetApi().ReadOpAttr(handle, ORT_OP_ATTR_STRING, nullptr, 0, &bytes);
  if (status != nullptr && bytes > 0) {
    Ort::GetApi().ReleaseStatus(status);
    value.resize(bytes);
    status = Ort::GetApi().ReadOpAttr(handle, ORT_OP_ATTR_STRING, value.data(), bytes, &bytes);
  }
  if (status == nullptr) return value.c_str();
  Ort::GetApi().ReleaseStatus(status);
  return "";
}

void ShapeInference::set_output(size_t index, const std::vector<Dim>& shape, ONNXTensorElementDataType type) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Ort::ThrowOnError(Ort::GetApi().CreateTensorTypeAndShapeInfo(&info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> owner(
      info, [](OrtTensorTypeAndShapeInfo* info) { Ort::GetApi().ReleaseTensorTypeAndShapeInfo(info); });
  std::vector<int64_t> numbers;
  std::vector<const char*> symbols;
  for (const Dim& dim : shape) {
    numbers.push_back(dim.number);
    symbols.push_back(dim.symbol.c_str());
  }
  Ort::ThrowOnError(Ort::GetApi().SetTensorElementType(info, type));
  Ort::ThrowOnError(Ort::GetApi().SetDimensions(info, numbers.data(), numbers.size()));
  Ort::ThrowOnError(Ort::GetApi().SetSymbolicDimensions(info, symbols.data(), symbols.size()));
  Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_SetOutputTypeShape(context_, index, info));
}

}  // namespace dibr::onnxruntime
