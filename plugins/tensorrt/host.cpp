#include "tensorrt/host.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace dibr::tensorrt {
namespace {

using nvinfer1::IPluginCreatorInterface;
using nvinfer1::IPluginCreatorV3One;
using nvinfer1::IPluginRegistry;

constexpr Abi kAbi10{6, 12, 13, 0, 0};
constexpr Abi kAbi11{3, 8, 9, 4, 4};  // no IPluginV2 in the registry; loggers are versioned interfaces
constexpr const Abi& kAbiOfHeaders = NV_TENSORRT_MAJOR >= 11 ? kAbi11 : kAbi10;

template <class Result, class Object, class... Arguments>
Result call(Object* object, int slot, Arguments... arguments) {
  void** const functions = *reinterpret_cast<void***>(object);
  return reinterpret_cast<Result (*)(Object*, Arguments...)>(functions[slot])(object, arguments...);
}

constexpr std::string_view kTensorRT = "libnvinfer";
constexpr std::string_view kTensorRTX = "libtensorrt_rtx";

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

// version: major * 10000 + minor * 100 + patch. NULL for one whose ABI is not known.
const Abi* abi_of(std::string_view file, int32_t version) {
  const int32_t major = version / 10000;
  if (starts_with(file, kTensorRTX)) return major == 1 && version >= 10700 ? &kAbi11 : nullptr;
  if (major == 10) return &kAbi10;
  return major == 11 ? &kAbi11 : nullptr;
}

// A library that is loaded and stays so for as long as this object lives.
class Library {
 public:
  explicit Library(const char* path) : handle_(dlopen(path, RTLD_LAZY | RTLD_NOLOAD), close) {
    const std::string_view file = std::string_view(path).substr(std::string_view(path).rfind('/') + 1);
    const bool named = starts_with(file, kTensorRT) || starts_with(file, kTensorRTX);
    const auto version = named ? find<int32_t() noexcept>("getInferLibVersion") : nullptr;
    abi_ = version == nullptr ? nullptr : abi_of(file, version());
  }

  // NULL for what is not TensorRT.
  const Abi* abi() const { return abi_; }

  template <class Function>
  Function* find(const char* name) const {
    return handle_ == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle_.get(), name));
  }

 private:
  static void close(void* handle) {
    if (handle != nullptr) dlclose(handle);
  }

  std::unique_ptr<void, void (*)(void*)> handle_;
  const Abi* abi_;
};

// Calls visit(library) for each TensorRT library of the process.
template <class Visit>
void for_each_loaded(const Visit& visit) {
  std::vector<std::string> paths;
  const auto collect = [](dl_phdr_info* info, size_t, void* paths) {
    if (info->dlpi_name != nullptr) static_cast<std::vector<std::string>*>(paths)->emplace_back(info->dlpi_name);
    return 0;
  };
  dl_iterate_phdr(collect, &paths);
  for (const std::string& path : paths) {
    if (path.find(kTensorRT) == std::string::npos && path.find(kTensorRTX) == std::string::npos) continue;
    const Library library(path.c_str());
    if (library.abi() != nullptr) visit(library);
  }
}

// The ABI of the library that implements an object; that of the headers where it is not TensorRT itself.
const Abi& abi_of_implementer(const void* object) {
  Dl_info info{};
  if (dladdr(*static_cast<void* const*>(object), &info) == 0 || info.dli_fname == nullptr) return kAbiOfHeaders;
  const Abi* abi = Library(info.dli_fname).abi();
  return abi == nullptr ? kAbiOfHeaders : *abi;
}

bool same_plugin(const IPluginCreatorV3One& a, const IPluginCreatorV3One& b) {
  return std::strcmp(a.getPluginName(), b.getPluginName()) == 0 &&
         std::strcmp(a.getPluginVersion(), b.getPluginVersion()) == 0 &&
         std::strcmp(a.getPluginNamespace(), b.getPluginNamespace()) == 0;
}

}  // namespace

nvinfer1::IErrorRecorder* Registry::error_recorder() const {
  return call<nvinfer1::IErrorRecorder*>(object_, abi_->registry_error_recorder);
}

bool Registry::has(const IPluginCreatorV3One& creator) const {
  int32_t count = 0;
  const auto* all = call<IPluginCreatorInterface* const*>(object_, abi_->registry_all, &count);
  return std::any_of(all, all + (all == nullptr ? 0 : count), [&](const IPluginCreatorInterface* other) {
    return std::strcmp(other->getInterfaceInfo().kind, creator.getInterfaceInfo().kind) == 0 &&
           same_plugin(static_cast<const IPluginCreatorV3One&>(*other), creator);
  });
}

bool Registry::add(IPluginCreatorV3One& creator) const {
  return call<bool>(object_, abi_->registry_add, static_cast<IPluginCreatorInterface*>(&creator),
                    creator.getPluginNamespace());
}

void Logger::log(nvinfer1::ILogger::Severity severity, const char* message) const {
  call<void>(object_, abi_->logger_log, severity, message);
}

LoggerFinder::LoggerFinder(nvinfer1::ILoggerFinder* object)
    : object_(object), abi_(object == nullptr ? nullptr : &abi_of_implementer(object)) {}

Logger LoggerFinder::find() const {
  return object_ == nullptr ? Logger() : Logger(call<nvinfer1::ILogger*>(object_, abi_->finder_find), *abi_);
}

std::vector<Registry> loaded_registries() {
  std::vector<Registry> registries;
  for_each_loaded([&](const Library& library) {
    const auto get_registry = library.find<IPluginRegistry*() noexcept>("getPluginRegistry");
    IPluginRegistry* object = get_registry == nullptr ? nullptr : get_registry();
    if (object == nullptr) return;
    const Registry registry(object, *library.abi());
    if (std::find(registries.begin(), registries.end(), registry) == registries.end()) registries.push_back(registry);
  });
  return registries;
}

Logger loaded_logger() {
  Logger logger;
  for_each_loaded([&](const Library& library) {
    const auto get_logger = library.find<nvinfer1::ILogger*() noexcept>("getLogger");
    if (!logger && get_logger != nullptr) logger = Logger(get_logger(), *library.abi());
  });
  return logger;
}

}  // namespace dibr::tensorrt
