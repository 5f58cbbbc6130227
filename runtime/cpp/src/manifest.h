// What a bundle says about itself: manifest.json, read and checked before anything of the bundle is loaded. The checks
// are those of dibr_deploy.runtime.manifest.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "files.h"
#include "tensors.h"

namespace dibr::runtime {

constexpr const char* manifest_file = "manifest.json";
constexpr std::uint64_t largest_manifest = 1 << 20;  // bytes

struct FileEntry {
  std::string sha256;
  std::uint64_t bytes = 0;
};

// Smallest, usual and largest shape of an input; of a shape input, its values.
struct Profile {
  std::vector<std::int64_t> min, opt, max;
};

struct Engine {
  std::string file, flavour, version;
  std::vector<std::string> compute_capability;
  bool version_compatible = false;
  std::string hardware_compatible = "none";
  std::string plugin_sha256;
  bool carries_plugin = false;
  std::vector<std::map<std::string, Profile>> profiles;
};

struct Manifest {
  std::int64_t schema_version = 0, opset = 0, onnxruntime_api = 0;
  std::string producer, model = "model.onnx";
  std::vector<TensorSpec> inputs, outputs;
  std::map<std::string, FileEntry> files;
  std::vector<Engine> engines;
  std::optional<std::string> sample;
  // ONNX graph from pixels, uint8 [height, width, 3 or 4] of any size, to an input of the model.
  std::optional<std::string> preprocess;
  // ONNX graph that renders a prediction.
  std::optional<std::string> renderer;
};

// what: names the bundle in errors. Fails with REFUSED where it is too large, of another format version, no JSON, or a
// value is not what it must be.
Manifest parse_manifest(const Bytes& content, const std::string& what);

}  // namespace dibr::runtime
