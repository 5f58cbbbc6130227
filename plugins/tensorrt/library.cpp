// libdibr_tensorrt.so: a plugin registry that loads this library calls these two functions.
#include "tensorrt/creator.h"
#include "tensorrt/report.h"

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) noexcept {
  return dibr::tensorrt::guard<nvinfer1::IPluginCreatorInterface* const*>(nullptr, nullptr, [&] {
    const auto& creators = dibr::tensorrt::creators();
    static const std::vector<nvinfer1::IPluginCreatorInterface*> interfaces(creators.begin(), creators.end());
    count = static_cast<int32_t>(interfaces.size());
    return interfaces.data();
  });
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  dibr::tensorrt::set_logger_finder(finder);
}
