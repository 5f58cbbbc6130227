// Bundles: a folder or a zip file with model.onnx, engines, a sample and manifest.json.
#pragma once

#include <optional>
#include <string>

#include "manifest.h"
#include "zip.h"

namespace dibr::runtime {

// Whether the path holds a bundle, told by a look at it: a folder, or a zip file by its first bytes.
bool is_bundle(const std::string& path);

// A bundle opened for reading. Opening it reads the manifest, and checks that all files are there in full length.
class Bundle {
 public:
  explicit Bundle(const std::string& path);

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  // Content of a file that the manifest lists, once its SHA-256 is what the manifest says.
  Bytes read(const std::string& name) const;

 private:
  // False where the folder was replaced by another bundle meanwhile.
  bool read_manifest();
  Bytes manifest_text() const;
  void check_lengths() const;
  std::uint64_t size(const std::string& name) const;
  Bytes content(const std::string& name) const;
  // "bundle PATH", for errors.
  std::string what() const { return "bundle " + path_; }
  [[noreturn]] void refuse_missing(const std::string& name) const;

  std::string path_;
  std::optional<ZipFile> zip_;
  Manifest manifest_;
};

}  // namespace dibr::runtime
