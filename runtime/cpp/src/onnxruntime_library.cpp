#include "onnxruntime_library.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "failure.h"
#include "files.h"

namespace dibr::runtime {
namespace {

const std::string remedy = sentence("name the file or its folder in ", onnxruntime_variable,
                                    " or in the session's options; ONNX Runtime 1.", onnxruntime_api,
                                    " or newer serves, such as that of the Python package onnxruntime, in its folder "
                                    "capi, or of an official release archive");

std::vector<std::string> candidates(const std::string& path) {
  if (path.empty()) return {"libonnxruntime.so.1", "libonnxruntime.so"};
  if (!is_folder(path)) return {path.find('/') == std::string::npos && is_file(path) ? "./" + path : path};
  std::vector<std::string> names;
  for (const std::string& name : list_folder(path)) {
    if (name == "libonnxruntime.so" || name.rfind("libonnxruntime.so.", 0) == 0) names.push_back(path + "/" + name);
  }
  if (names.empty()) fail(DIBR_RUNTIME_ABSENT, "the folder ", path, " has no libonnxruntime.so: ", remedy);
  return names;
}

}  // namespace

OnnxRuntime::OnnxRuntime(const std::string& path) : library_(candidates(path), "ONNX Runtime", remedy) {
  const auto get_base = library_.function<const OrtApiBase* (*)()>("OrtGetApiBase");
  if (get_base == nullptr) {
    fail(DIBR_RUNTIME_ABSENT, library_.name(), " is no ONNX Runtime, it has no OrtGetApiBase: ", remedy);
  }
  const OrtApiBase* base = get_base();
  version_ = one_line(base->GetVersionString());
  // An older one would write to its standard error that it has no such API.
  if (!is_older(version_, onnxruntime_api)) api_ = base->GetApi(onnxruntime_api);
  if (api_ == nullptr) {
    fail(DIBR_RUNTIME_ABSENT, "ONNX Runtime ", version_, " at ", library_.name(), " is too old: ", remedy);
  }
  if (OrtStatus* status = api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "dibr", &environment_)) {
    fail(DIBR_RUNTIME_INTERNAL, "ONNX Runtime cannot start: ", words_of(*api_, status));
  }
}

bool OnnxRuntime::offers(const std::string& execution_provider) const {
  char** names = nullptr;
  int count = 0;
  if (OrtStatus* status = api_->GetAvailableProviders(&names, &count)) {
    api_->ReleaseStatus(status);
    return false;
  }
  const bool found = std::any_of(names, names + count, [&](const char* name) { return execution_provider == name; });
  if (OrtStatus* status = api_->ReleaseAvailableProviders(names, count)) api_->ReleaseStatus(status);
  return found;
}

std::shared_ptr<const OnnxRuntime> load_onnxruntime(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const OnnxRuntime>> loaded;
  std::string wanted = path;
  const char* variable = std::getenv(onnxruntime_variable);
  if (wanted.empty() && variable != nullptr) wanted = variable;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<const OnnxRuntime> found = loaded[wanted].lock();
  if (found == nullptr) loaded[wanted] = found = std::make_shared<const OnnxRuntime>(wanted);
  return found;
}

std::string words_of(const OrtApi& api, OrtStatus* status) {
  std::string words = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  // "Non-zero status code returned while running X node. Name:'Y' Status Message: Z"
  const std::string marker = "Status Message: ";
  const std::size_t place = words.find(marker);
  if (words.rfind("Non-zero status code returned", 0) == 0 && place != std::string::npos) {
    words = words.substr(place + marker.size());
  }
  const std::string prefix = "Exception during initialization: ";
  if (words.rfind(prefix, 0) == 0) words = words.substr(prefix.size());
  return one_line(words);
}

bool is_older(const std::string& version, std::int64_t api) {
  long long major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%lld.%lld", &major, &minor) != 2) return false;
  return major < 1 || (major == 1 && minor < api);
}

}  // namespace dibr::runtime
