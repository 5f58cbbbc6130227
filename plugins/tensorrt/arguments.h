// A plugin's tensors against the arguments that its op declares. Every failure is an Error that names op and argument.
#pragma once

#include <NvInferRuntime.h>

#include "tensorrt/definition.h"

namespace dibr::tensorrt {

// Throws unless this many inputs and outputs fit the op.
void check_counts(const OpDefinition& op, int32_t input_count, int32_t output_count);

// The inputs followed by the outputs, as TensorRT numbers them.
const Argument& argument_at(const OpDefinition& op, int32_t input_count, int32_t position);

// The types that kReal and kTexel stand for. kUnknownType: no argument has told it yet.
inline constexpr auto kUnknownType = static_cast<nvinfer1::DataType>(-1);
struct Reals {
  nvinfer1::DataType real = kUnknownType, texel = kUnknownType;

  // Learns from an argument of this type.
  void learn(const Argument& argument, nvinfer1::DataType type) {
    if (argument.type == Type::kReal) real = type;
    if (argument.type == Type::kTexel) texel = type;
  }
};

// Whether an argument may have a type, given those of the arguments before it.
bool accepts(const Argument& argument, nvinfer1::DataType type, const Reals& reals);

// What the types stand for.
Reals check_input_types(const OpDefinition& op, const nvinfer1::DataType* types, int32_t count);
Reals check_types(const OpDefinition& op, const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                  const nvinfer1::PluginTensorDesc* outputs, int32_t output_count);
nvinfer1::DataType output_type(const Argument& output, const Reals& reals);

// float32 for kUnknownType, as in an op that has no such argument.
dibr_dtype dtype_of(nvinfer1::DataType type);

// Sizes from tensors that all have their dimensions. Throws where two arguments disagree.
Sizes sizes_of(const OpDefinition& op, const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
               const nvinfer1::PluginTensorDesc* outputs, int32_t output_count);

// The largest sizes of an optimization profile.
Sizes largest_sizes(const OpDefinition& op, const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                    const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t output_count);

// Shapes of the outputs in terms of those of the inputs.
void make_output_shapes(const OpDefinition& op, const Values& fields, const nvinfer1::DimsExprs* inputs,
                        int32_t input_count, const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                        nvinfer1::DimsExprs* outputs, nvinfer1::IExprBuilder& builder);

}  // namespace dibr::tensorrt
