#include "libraries.h"

#include <dlfcn.h>

#include "dibr/dibr.h"
#include "failure.h"
#include "files.h"
#include "onnx_header.h"

namespace dibr::runtime {

SharedLibrary::SharedLibrary(const std::vector<std::string>& names, const std::string& what,
                             const std::string& remedy) {
  std::string reasons;
  for (const std::string& name : names) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      name_ = name;
      return;
    }
    const char* reason = dlerror();
    reasons += (reasons.empty() ? "" : "; ") + one_line(reason != nullptr ? reason : name);
  }
  fail(DIBR_RUNTIME_ABSENT, what, " cannot be loaded (", reasons, "): ", remedy);
}

void* SharedLibrary::symbol(const char* name) const { return dlsym(handle_, name); }

std::string own_folder() {
  Dl_info information{};
  const auto* here = reinterpret_cast<const void*>(&dibr_runtime_abi);
  if (dladdr(here, &information) == 0 || information.dli_fname == nullptr) return ".";
  const std::string path = information.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

void check_schema_version(const std::string& path, std::int64_t wanted) {
  const std::int64_t known = dibr_schema_version();
  if (wanted > known) {
    fail(DIBR_RUNTIME_REFUSED, "model ", path, " uses version ", wanted, " of the ", op_domain,
         " ops, but this library knows versions up to ", known,
         ": update dibr, or export the model again with a dibr_deploy of its version");
  }
}

}  // namespace dibr::runtime
