// libdibr_tensorrt_static.so: registers the creators as it is loaded, with every TensorRT library of the process.
#include "tensorrt/creator.h"
#include "tensorrt/host.h"
#include "tensorrt/report.h"

namespace dibr::tensorrt {
namespace {

void log_error(const std::string& message) { log(nvinfer1::ILogger::Severity::kERROR, message); }

// A creator that is there already came with libdibr_tensorrt.so, and stays.
void register_creators(const Registry& registry) {
  for (Creator* creator : creators()) {
    if (!registry.has(*creator) && !registry.add(*creator)) {
      log_error(std::string("dibr: TensorRT refused to register the plugin ") + creator->getPluginName());
    }
  }
}

const bool registered = guard(false, nullptr, [] {
  const std::vector<Registry> registries = loaded_registries();
  if (registries.empty()) {
    log_error(
        "dibr: libdibr_tensorrt_static.so has registered no plugins, since the process has loaded no TensorRT 10 or 11 "
        "and no TensorRT-RTX 1.7 or newer; load it after TensorRT, or let the plugin registry load "
        "libdibr_tensorrt.so");
  }
  for (const Registry& registry : registries) register_creators(registry);
  return !registries.empty();
});

}  // namespace
}  // namespace dibr::tensorrt
