// load_plugins LIBRARY: lets TensorRT's plugin registry load the plugins, and prints what it then has in our namespace.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
  nvinfer1::IPluginRegistry* registry = getPluginRegistry();
  if (argc != 2 || registry->loadLibrary(argv[1]) == nullptr) return 1;
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* creators = registry->getAllCreators(&count);
  for (int32_t i = 0; i < count; ++i) {
    if (std::strcmp(creators[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") != 0) continue;
    auto* creator = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginNamespace(), "ai.dibr") == 0) std::printf("%s\n", creator->getPluginName());
  }
}
