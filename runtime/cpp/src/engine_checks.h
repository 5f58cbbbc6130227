// Whether a TensorRT engine can run here, asked of its manifest before anything of it is loaded. The rules are those of
// dibr_deploy.runtime.tensorrt_engine; nothing here needs TensorRT.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "manifest.h"

namespace dibr::runtime {

struct ComputeCapability {
  int major = 0, minor = 0;
};

// Whether a version of TensorRT loads the engine: the very same one, or of version-compatible ones any later one of the
// same major.
bool loads(const std::string& installed, const Engine& engine);

// Fails with ABSENT where the installed TensorRT is not one that loads the engine. what: names the engine in errors;
// rebuild: the command that builds it again.
void check_tensorrt_version(const std::string& what, const Engine& engine, const std::string& installed,
                            const std::string& rebuild);

// Fails with ABSENT where the engine was built for other devices.
void check_device(const std::string& what, const Engine& engine, const ComputeCapability& here,
                  const std::string& rebuild);

// Number of the first optimization profile that covers these sizes; given: the shape of every input, and the values of
// shape inputs. Fails with INVALID_ARGUMENT where none does.
int choose_profile(const std::vector<std::map<std::string, Profile>>& profiles,
                   const std::map<std::string, std::vector<std::int64_t>>& given);

}  // namespace dibr::runtime
