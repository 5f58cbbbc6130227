#include "tensorrt/creator.h"

#include <memory>

#include "tensorrt/fields.h"
#include "tensorrt/plugin.h"
#include "tensorrt/report.h"

namespace dibr::tensorrt {

Creator::Creator(const OpDefinition& op)
    : op_(op), fields_(declare_fields(op)), collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginV3* Creator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  return guard<nvinfer1::IPluginV3*>(nullptr, nullptr,
                                     [&] { return new Plugin(op_, read_fields(op_, fields, phase)); });
}

const std::vector<Creator*>& creators() {
  static const auto* const all = [] {
    auto* list = new std::vector<Creator*>;
    for (const OpDefinition* op : kOps) list->push_back(new Creator(*op));
    return list;
  }();
  return *all;
}

}  // namespace dibr::tensorrt
