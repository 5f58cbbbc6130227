// The plugin library as TensorRT holds it: creators by name, plugins and their interfaces.
#pragma once

#include <NvInferRuntime.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/harness.h"
#include "tensorrt_door/doubles.h"

namespace dibr::test {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorRTPhase;

inline const std::vector<std::string> kOpNames = {"Rasterize", "Interpolate", "SoftMask",
                                                  "Texture",   "Antialias",   "Render"};

class Plugin {
 public:
  Plugin() = default;
  explicit Plugin(nvinfer1::IPluginV3* object);

  explicit operator bool() const { return object_ != nullptr; }
  nvinfer1::IPluginV3OneCore& core() const { return *core_; }
  nvinfer1::IPluginV3OneBuild& build() const { return *build_; }
  nvinfer1::IPluginV3OneRuntime& runtime() const { return *runtime_; }
  Plugin clone() const { return Plugin(object_->clone()); }

 private:
  std::shared_ptr<nvinfer1::IPluginV3> object_;
  nvinfer1::IPluginV3OneCore* core_ = nullptr;
  nvinfer1::IPluginV3OneBuild* build_ = nullptr;
  nvinfer1::IPluginV3OneRuntime* runtime_ = nullptr;
};

// A field with memory of exactly its size.
struct FieldValue {
  std::string name;
  PluginFieldType type;
  int32_t length;
  std::string bytes;
  bool has_data = true;
};
using FieldValues = std::vector<FieldValue>;

FieldValue int32_field(const std::string& name, int32_t value);
FieldValue float_field(const std::string& name, float value);
FieldValue text_field(const std::string& name, const std::string& value);
bool operator==(const FieldValue& a, const FieldValue& b);

// What the plugin would write into an engine.
FieldValues written_fields(const Plugin& plugin);

class Plugins {
 public:
  explicit Plugins(const char* path);

  nvinfer1::IPluginCreatorV3One& creator(const std::string& op) const { return *creators_.at(op); }
  Plugin create(const std::string& op, const FieldValues& fields, TensorRTPhase phase = TensorRTPhase::kBUILD) const;

  mutable Log log;

 private:
  std::map<std::string, nvinfer1::IPluginCreatorV3One*> creators_;
};

void test_lifecycle(const Plugins& plugins);
void test_shapes(const Plugins& plugins);
void test_formats(const Plugins& plugins);
void test_fields(const Plugins& plugins);
void test_hostile(const Plugins& plugins, int64_t iterations, uint64_t seed);

}  // namespace dibr::test
