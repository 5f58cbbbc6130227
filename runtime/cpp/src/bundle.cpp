#include "bundle.h"

#include "failure.h"

namespace dibr::runtime {

bool is_bundle(const std::string& path) { return is_folder(path) || is_zip(path); }

Bundle::Bundle(const std::string& path) : path_(path) {
  if (!exists(path)) fail(DIBR_RUNTIME_NOT_FOUND, what(), " does not exist");
  if (!is_folder(path)) zip_.emplace(path, what());
  while (!read_manifest()) {
  }
}

bool Bundle::read_manifest() {
  const Bytes text = manifest_text();
  manifest_ = parse_manifest(text, what());
  try {
    check_lengths();
  } catch (const Failure&) {
    if (manifest_text() == text) throw;
    return false;
  }
  return true;
}

Bytes Bundle::manifest_text() const {
  if (size(manifest_file) > largest_manifest) {
    fail(DIBR_RUNTIME_REFUSED, what(), ": ", manifest_file, " has more than ", largest_manifest, " bytes");
  }
  return content(manifest_file);
}

void Bundle::check_lengths() const {
  for (const auto& [name, entry] : manifest_.files) {
    const std::uint64_t actual = size(name);
    if (actual != entry.bytes) {
      fail(DIBR_RUNTIME_REFUSED, what(), ": ", name, " has ", actual, " bytes, but ", manifest_file, " says ",
           entry.bytes, ": copy or export the bundle again");
    }
  }
}

Bytes Bundle::read(const std::string& name) const {
  Bytes bytes = content(name);
  const std::string& stated = manifest_.files.at(name).sha256;
  const std::string actual = sha256(bytes);
  if (actual != stated) {
    fail(DIBR_RUNTIME_REFUSED, what(), ": ", name, " is not the file that ", manifest_file,
         " describes (its SHA-256 is ", actual, ", not ", stated, "): copy or export the bundle again");
  }
  return bytes;
}

std::uint64_t Bundle::size(const std::string& name) const {
  if (zip_) {
    if (!zip_->contains(name)) refuse_missing(name);
    return zip_->size(name);
  }
  const std::string file = path_ + "/" + name;
  if (!is_file(file)) refuse_missing(name);
  return InputFile(file, what() + ": " + name).size();
}

Bytes Bundle::content(const std::string& name) const {
  if (zip_) return zip_->read(name);
  return InputFile(path_ + "/" + name, what() + ": " + name).read_all();
}

void Bundle::refuse_missing(const std::string& name) const {
  fail(DIBR_RUNTIME_REFUSED, what(), " has no ", name, ": it must be what `dibr export` writes, with all its files");
}

}  // namespace dibr::runtime
