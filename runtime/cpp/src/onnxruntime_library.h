// ONNX Runtime, found at run time and used through its C API.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "libraries.h"

namespace dibr::runtime {

// The oldest API that has what this library calls, and the one that libdibr_onnxruntime.so asks for: ONNX Runtime 1.17
// and newer have it.
constexpr int onnxruntime_api = 17;
constexpr const char* onnxruntime_variable = "DIBR_ONNXRUNTIME_LIBRARY";

class OnnxRuntime {
 public:
  explicit OnnxRuntime(const std::string& path);
  OnnxRuntime(const OnnxRuntime&) = delete;
  ~OnnxRuntime() { api_->ReleaseEnv(environment_); }

  const OrtApi& api() const { return *api_; }
  OrtEnv* environment() const { return environment_; }
  const std::string& version() const { return version_; }
  const std::string& path() const { return library_.name(); }
  bool offers(const std::string& execution_provider) const;

 private:
  SharedLibrary library_;
  std::string version_;
  const OrtApi* api_ = nullptr;
  OrtEnv* environment_ = nullptr;
};

// path: a library or a folder with one; "" for the one that the environment or the dynamic linker names. One object for
// all sessions that are open at the same time and name the same path. Fails with ABSENT where there is none or it is
// too old.
std::shared_ptr<const OnnxRuntime> load_onnxruntime(const std::string& path);

// Words of a status, without the codes that stand before an operator's own words; releases the status.
std::string words_of(const OrtApi& api, OrtStatus* status);

// Whether a version of ONNX Runtime, for example "1.21.0", is below 1.N for API N.
bool is_older(const std::string& version, std::int64_t api);

}  // namespace dibr::runtime
