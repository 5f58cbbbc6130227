// What TensorRT's plugin registry holds for each op.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "tensorrt/definition.h"

namespace dibr::tensorrt {

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const OpDefinition& op);

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return op_.name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  const OpDefinition& op_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

// One creator for each op. A registry may hold them until after static objects are destroyed: they are never freed.
const std::vector<Creator*>& creators();

}  // namespace dibr::tensorrt
