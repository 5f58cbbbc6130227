// Plugin fields, as TensorRT's ONNX parser makes them from a node's attributes and as an engine keeps them.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "tensorrt/definition.h"

namespace dibr::tensorrt {

// The field that stamps the version of the op schema into an engine.
inline constexpr const char* kSchemaVersionField = "schema_version";

// Checks every field's name, type, length and range, and throws Error at the first that is wrong. At build a field that
// is left out has its default; at run time each must be there, and so must the stamp of this library's schema.
Values read_fields(const OpDefinition& op, const nvinfer1::PluginFieldCollection* fields,
                   nvinfer1::TensorRTPhase phase);

// The values in TensorRT's form. What collection() points to lives as long as this object.
class WrittenFields {
 public:
  WrittenFields(const OpDefinition& op, const Values& values);
  WrittenFields(const WrittenFields&) = delete;
  WrittenFields& operator=(const WrittenFields&) = delete;

  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  template <class T>
  void add(const char* name, nvinfer1::PluginFieldType type, T value);

  std::vector<std::unique_ptr<char[]>> memory_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

// The names and types of an op's fields, without values: what the ONNX parser looks for on a node.
std::vector<nvinfer1::PluginField> declare_fields(const OpDefinition& op);

// For example "Texture(filter=bilinear, wrap=clamp)".
std::string to_text(const OpDefinition& op, const Values& values);

}  // namespace dibr::tensorrt
