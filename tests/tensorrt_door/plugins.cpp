#include "tensorrt_door/plugins.h"

#include <dlfcn.h>

namespace dibr::test {

Plugin::Plugin(nvinfer1::IPluginV3* object) : object_(object) {
  if (object == nullptr) return;
  using nvinfer1::PluginCapabilityType;
  const auto capability = [&](PluginCapabilityType type) { return object->getCapabilityInterface(type); };
  core_ = static_cast<nvinfer1::IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE));
  build_ = static_cast<nvinfer1::IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD));
  runtime_ = static_cast<nvinfer1::IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME));
}

template <class T>
static FieldValue scalar_field(const std::string& name, PluginFieldType type, T value) {
  return {name, type, 1, std::string(reinterpret_cast<const char*>(&value), sizeof(T))};
}

FieldValue int32_field(const std::string& name, int32_t value) {
  return scalar_field(name, PluginFieldType::kINT32, value);
}

FieldValue float_field(const std::string& name, float value) {
  return scalar_field(name, PluginFieldType::kFLOAT32, value);
}

FieldValue text_field(const std::string& name, const std::string& value) {
  return {name, PluginFieldType::kCHAR, int32_t(value.size()), value};
}

bool operator==(const FieldValue& a, const FieldValue& b) {
  return a.name == b.name && a.type == b.type && a.length == b.length && a.bytes == b.bytes;
}

FieldValues written_fields(const Plugin& plugin) {
  const nvinfer1::PluginFieldCollection* collection = plugin.runtime().getFieldsToSerialize();
  FieldValues fields;
  for (int32_t i = 0; collection != nullptr && i < collection->nbFields; ++i) {
    const nvinfer1::PluginField& field = collection->fields[i];
    const size_t size = field.type == PluginFieldType::kCHAR ? 1 : 4;
    fields.push_back({field.name, field.type, field.length,
                      std::string(static_cast<const char*>(field.data), size * size_t(field.length))});
  }
  return fields;
}

Plugins::Plugins(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!expect(library != nullptr, library == nullptr ? dlerror() : "")) return;
  const auto find_logger = reinterpret_cast<void (*)(nvinfer1::ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
  const auto get_creators =
      reinterpret_cast<nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  find_logger(&log);
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* creators = get_creators(count);
  expect(count == int32_t(kOpNames.size()), "getCreators gives one creator for each op");
  for (int32_t i = 0; i < count; ++i) {
    expect(std::string(creators[i]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE", "creators are of kind V3ONE");
    auto* creator = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]);
    creators_[creator->getPluginName()] = creator;
  }
}

Plugin Plugins::create(const std::string& op, const FieldValues& values, TensorRTPhase phase) const {
  std::vector<std::unique_ptr<Bytes>> memory;
  std::vector<nvinfer1::PluginField> fields;
  for (const FieldValue& value : values) {
    memory.push_back(std::make_unique<Bytes>(value.bytes.size(), 0));
    if (!value.bytes.empty()) std::memcpy(memory.back()->data(), value.bytes.data(), value.bytes.size());
    fields.emplace_back(value.name.c_str(), value.has_data ? memory.back()->data() : nullptr, value.type, value.length);
  }
  const nvinfer1::PluginFieldCollection collection{int32_t(fields.size()), fields.data()};
  return Plugin(creator(op).createPlugin("layer", &collection, phase));
}

}  // namespace dibr::test
