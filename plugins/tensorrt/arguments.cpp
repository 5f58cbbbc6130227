#include "tensorrt/arguments.h"

#include <algorithm>
#include <string>

#include "tensorrt/report.h"

namespace dibr::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::IDimensionExpr;

[[noreturn]] void reject(const OpDefinition& op, const std::string& argument, const std::string& expected,
                         const std::string& actual) {
  fail(std::string(op.name) + ": " + argument + " must " + expected + ", got " + actual);
}

std::string to_text(DataType type) {
  constexpr const char* kNames[] = {"float32", "float16",  "int8",  "int32", "bool",   "uint8",
                                    "float8",  "bfloat16", "int64", "int4",  "float4", "e8m0"};
  const auto code = static_cast<int32_t>(type);
  const bool known = code >= 0 && code < static_cast<int32_t>(std::size(kNames));
  return known ? kNames[code] : "type code " + std::to_string(code);
}

const char* to_text(Type type) {
  switch (type) {
    case Type::kFloat32:
      return "float32";
    case Type::kInt32:
      return "int32";
    case Type::kReal:
    case Type::kTexel:
      break;
  }
  return "float32, float16 or bfloat16";
}

template <class Name>
std::string bracketed(int rank, const Name& name) {
  std::string text = "[";
  for (int axis = 0; axis < rank; ++axis) text += (axis > 0 ? ", " : "") + name(axis);
  return text + "]";
}

std::string to_text(const Dims& dims) {
  return bracketed(std::clamp(dims.nbDims, 0, Dims::MAX_DIMS), [&](int axis) { return std::to_string(dims.d[axis]); });
}

// For example "[B, V, 4] with B = 2".
std::string to_text(const Shape& shape, const Sizes& sizes) {
  std::string known;
  std::string text = bracketed(shape.rank, [&](int axis) -> std::string {
    const Extent& extent = shape[axis];
    if (extent.is_number()) return std::to_string(extent.number);
    const int64_t value = sizes[extent.size];
    if (value >= 0)
      known += (known.empty() ? " with " : ", ") + std::string(kSizeNames[extent.size]) + " = " + std::to_string(value);
    return kSizeNames[extent.size];
  });
  return text + known;
}

// Matches one tensor and sets the sizes that no argument before it has set.
void match(const OpDefinition& op, const Argument& argument, const Dims& dims, Sizes* sizes) {
  bool fits = dims.nbDims == argument.shape.rank;
  for (int axis = 0; fits && axis < argument.shape.rank; ++axis) {
    const Extent& extent = argument.shape[axis];
    const int64_t expected = extent.is_number() ? extent.number : (*sizes)[extent.size];
    fits = dims.d[axis] >= 0 && (expected == kUnknown || dims.d[axis] == expected);
  }
  if (!fits) reject(op, argument.name, "have shape " + to_text(argument.shape, *sizes), to_text(dims));
  for (int axis = 0; axis < argument.shape.rank; ++axis) {
    if (!argument.shape[axis].is_number()) (*sizes)[argument.shape[axis].size] = dims.d[axis];
  }
}

// Matches the bounds of one tensor; a size is the largest that any argument gives it.
void match_largest(const OpDefinition& op, const Argument& argument, const Dims& largest, Sizes* sizes) {
  bool fits = largest.nbDims == argument.shape.rank;
  for (int axis = 0; fits && axis < argument.shape.rank; ++axis) {
    const Extent& extent = argument.shape[axis];
    fits = largest.d[axis] >= 0 && (!extent.is_number() || largest.d[axis] == extent.number);
  }
  if (!fits) reject(op, argument.name, "have at most the shape " + to_text(argument.shape, Sizes()), to_text(largest));
  for (int axis = 0; axis < argument.shape.rank; ++axis) {
    if (argument.shape[axis].is_number()) continue;
    int64_t& size = (*sizes)[argument.shape[axis].size];
    size = std::max(size, largest.d[axis]);
  }
}

// The expression of each size; NULL where nothing has told it.
using Expressions = std::array<const IDimensionExpr*, kSizes>;

// A constant that differs from what is expected would fail at run time only: refuse it here.
bool contradicts(const IDimensionExpr& actual, int64_t expected) {
  return actual.isConstant() && actual.getConstantValue() != expected;
}

void match(const OpDefinition& op, const Argument& argument, const DimsExprs& dims, Expressions* expressions) {
  Sizes known;
  for (int size = 0; size < kSizes; ++size) {
    const IDimensionExpr* expression = (*expressions)[size];
    if (expression != nullptr && expression->isConstant()) known[Size(size)] = expression->getConstantValue();
  }
  bool fits = dims.nbDims == argument.shape.rank;
  for (int axis = 0; fits && axis < argument.shape.rank; ++axis) {
    const Extent& extent = argument.shape[axis];
    const int64_t expected = extent.is_number() ? extent.number : known[extent.size];
    fits = dims.d[axis] != nullptr && (expected == kUnknown || !contradicts(*dims.d[axis], expected));
  }
  if (!fits) {
    const int rank = std::clamp(dims.nbDims, 0, Dims::MAX_DIMS);
    reject(op, argument.name, "have shape " + to_text(argument.shape, known), bracketed(rank, [&](int axis) {
             const IDimensionExpr* actual = dims.d[axis];
             return actual != nullptr && actual->isConstant() ? std::to_string(actual->getConstantValue()) : "?";
           }));
  }
  for (int axis = 0; axis < argument.shape.rank; ++axis) {
    const Extent& extent = argument.shape[axis];
    if (extent.is_number()) continue;
    const IDimensionExpr*& expression = (*expressions)[extent.size];
    if (expression == nullptr || dims.d[axis]->isConstant()) expression = dims.d[axis];
  }
}

// Sizes that no input has: from the values of the shape input, or else from fields.
void match_shape_input(const OpDefinition& op, const Values& fields, const DimsExprs* shape_input,
                       Expressions* expressions, nvinfer1::IExprBuilder& builder) {
  const View<FieldSize>& sizes = op.shape_input.sizes;
  if (shape_input != nullptr && shape_input->nbDims != sizes.size()) {
    reject(op, op.shape_input.name, "have " + std::to_string(sizes.size()) + " values",
           std::to_string(shape_input->nbDims));
  }
  for (int i = 0; i < sizes.size(); ++i) {
    const double value = fields[sizes[i].field];
    if (shape_input == nullptr && value < 1) {
      reject(op, std::string("field ") + op.fields[sizes[i].field].name,
             std::string("be at least 1 where there is no shape input ") + op.shape_input.name,
             std::to_string(static_cast<int64_t>(value)));
    }
    (*expressions)[sizes[i].size] =
        shape_input != nullptr ? shape_input->d[i] : builder.constant(static_cast<int64_t>(value));
  }
}

}  // namespace

void check_counts(const OpDefinition& op, int32_t input_count, int32_t output_count) {
  const auto required = static_cast<int32_t>(
      std::count_if(op.inputs.begin(), op.inputs.end(), [](const Argument& input) { return !input.optional; }));
  if (input_count < required || input_count > op.inputs.size()) {
    const std::string shape_input = op.shape_input.name == nullptr ? "" : std::string(op.shape_input.name);
    reject(op, "the inputs",
           "be " + std::to_string(required) + " to " + std::to_string(op.inputs.size()) +
               (shape_input.empty() ? "" : ", and " + shape_input + " a shape input"),
           std::to_string(input_count));
  }
  if (output_count != op.outputs.size()) {
    reject(op, "the outputs", "be " + std::to_string(op.outputs.size()), std::to_string(output_count));
  }
}

const Argument& argument_at(const OpDefinition& op, int32_t input_count, int32_t position) {
  return position < input_count ? op.inputs[position] : op.outputs[position - input_count];
}

bool accepts(const Argument& argument, DataType type, const Reals& reals) {
  switch (argument.type) {
    case Type::kFloat32:
      return type == DataType::kFLOAT;
    case Type::kInt32:
      return type == DataType::kINT32;
    case Type::kReal:
    case Type::kTexel:
      break;
  }
  const DataType known = argument.type == Type::kReal ? reals.real : reals.texel;
  if (known != kUnknownType) return type == known;
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

Reals check_input_types(const OpDefinition& op, const DataType* types, int32_t count) {
  Reals reals;
  for (int32_t i = 0; i < count; ++i) {
    const Argument& input = op.inputs[i];
    if (!accepts(input, types[i], reals)) {
      reject(op, input.name, std::string("be ") + to_text(input.type), to_text(types[i]));
    }
    reals.learn(input, types[i]);
  }
  return reals;
}

Reals check_types(const OpDefinition& op, const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                  const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) {
  Reals reals;
  for (int32_t position = 0; position < input_count + output_count; ++position) {
    const Argument& argument = argument_at(op, input_count, position);
    const nvinfer1::PluginTensorDesc& desc =
        position < input_count ? inputs[position] : outputs[position - input_count];
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) {
      reject(op, argument.name, "have the linear format", "format code " + std::to_string(int(desc.format)));
    }
    if (!accepts(argument, desc.type, reals)) {
      reject(op, argument.name, std::string("be ") + to_text(argument.type), to_text(desc.type));
    }
    reals.learn(argument, desc.type);
  }
  return reals;
}

DataType output_type(const Argument& output, const Reals& reals) {
  const DataType type = output.type == Type::kInt32   ? DataType::kINT32
                        : output.type == Type::kReal  ? reals.real
                        : output.type == Type::kTexel ? reals.texel
                                                      : DataType::kFLOAT;
  return type == kUnknownType ? DataType::kFLOAT : type;
}

dibr_dtype dtype_of(DataType type) {
  return type == DataType::kHALF ? DIBR_FLOAT16 : type == DataType::kBF16 ? DIBR_BFLOAT16 : DIBR_FLOAT32;
}

Sizes sizes_of(const OpDefinition& op, const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
               const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) {
  Sizes sizes;
  for (int32_t i = 0; i < input_count; ++i) match(op, op.inputs[i], inputs[i].dims, &sizes);
  for (int32_t i = 0; i < output_count; ++i) match(op, op.outputs[i], outputs[i].dims, &sizes);
  return sizes;
}

Sizes largest_sizes(const OpDefinition& op, const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                    const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t output_count) {
  Sizes sizes;
  for (int32_t i = 0; i < input_count; ++i) match_largest(op, op.inputs[i], inputs[i].max, &sizes);
  for (int32_t i = 0; i < output_count; ++i) match_largest(op, op.outputs[i], outputs[i].max, &sizes);
  return sizes;
}

void make_output_shapes(const OpDefinition& op, const Values& fields, const DimsExprs* inputs, int32_t input_count,
                        const DimsExprs* shape_inputs, int32_t shape_input_count, DimsExprs* outputs,
                        nvinfer1::IExprBuilder& builder) {
  const int32_t most = op.shape_input.sizes.size() > 0 ? 1 : 0;
  if (shape_input_count < 0 || shape_input_count > most) {
    reject(op, "the shape inputs", "be at most " + std::to_string(most), std::to_string(shape_input_count));
  }
  Expressions expressions{};
  for (int32_t i = 0; i < input_count; ++i) match(op, op.inputs[i], inputs[i], &expressions);
  match_shape_input(op, fields, shape_input_count > 0 ? shape_inputs : nullptr, &expressions, builder);
  for (int i = 0; i < op.outputs.size(); ++i) {
    const Shape& shape = op.outputs[i].shape;
    outputs[i].nbDims = shape.rank;
    for (int axis = 0; axis < shape.rank; ++axis) {
      const Extent& extent = shape[axis];
      outputs[i].d[axis] = extent.is_number() ? builder.constant(extent.number) : expressions[extent.size];
    }
  }
}

}  // namespace dibr::tensorrt
