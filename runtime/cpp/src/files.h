// Files read with a limit, and written whole or not at all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dibr::runtime {

using Bytes = std::vector<unsigned char>;

// An ordinary file, open for reading at any place.
class InputFile {
 public:
  // Fails with NOT_FOUND where there is no file. what: names it in errors, for example "model model.onnx".
  InputFile(const std::string& path, const std::string& what);
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  std::uint64_t size() const { return size_; }
  // Fails where the file ends before that.
  void read(std::uint64_t offset, void* data, std::size_t bytes) const;
  Bytes read(std::uint64_t offset, std::uint64_t bytes) const;
  Bytes read_all() const { return read(0, size_); }

 private:
  std::string what_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

bool exists(const std::string& path);
bool is_folder(const std::string& path);
bool is_file(const std::string& path);
// Names in a folder, sorted; none where it cannot be read.
std::vector<std::string> list_folder(const std::string& path);

// Writes beside the path and moves it there. what: names the file in errors, for example "image".
void write_atomically(const std::string& path, const Bytes& content, const std::string& what);

// Lower-case hexadecimal SHA-256.
std::string sha256(const unsigned char* data, std::size_t bytes);
inline std::string sha256(const Bytes& content) { return sha256(content.data(), content.size()); }

}  // namespace dibr::runtime
