#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "failure.h"

namespace dibr::runtime {
namespace {

constexpr std::size_t most_at_once = std::size_t{1} << 30;  // Linux reads and writes less than 2 GiB in one call

std::string system_error(int number) {
  char buffer[128] = "";
  return strerror_r(number, buffer, sizeof buffer);
}

mode_t kind_of(const std::string& path) {
  struct stat information{};
  return stat(path.c_str(), &information) == 0 ? information.st_mode & S_IFMT : 0;
}

}  // namespace

InputFile::InputFile(const std::string& path, const std::string& what) : what_(what) {
  // Non-blocking: to open a pipe that nobody writes to would wait for ever.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    const int number = errno;
    if (number == ENOENT || number == ENOTDIR) fail(DIBR_RUNTIME_NOT_FOUND, what, " does not exist");
    fail(DIBR_RUNTIME_REFUSED, what, " cannot be opened: ", system_error(number));
  }
  struct stat information{};
  if (fstat(descriptor_, &information) != 0 || !S_ISREG(information.st_mode)) {
    close(descriptor_);
    fail(DIBR_RUNTIME_NOT_FOUND, what, " is no file");
  }
  size_ = static_cast<std::uint64_t>(information.st_size);
}

InputFile::~InputFile() { close(descriptor_); }

void InputFile::read(std::uint64_t offset, void* data, std::size_t bytes) const {
  auto* place = static_cast<unsigned char*>(data);
  while (bytes > 0) {
    const ssize_t count = pread(descriptor_, place, std::min(bytes, most_at_once), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(DIBR_RUNTIME_REFUSED, what_, " cannot be read: ", system_error(errno));
    if (count == 0) fail(DIBR_RUNTIME_REFUSED, what_, " is cut off: it ends after ", offset, " bytes");
    place += count;
    offset += static_cast<std::uint64_t>(count);
    bytes -= static_cast<std::size_t>(count);
  }
}

Bytes InputFile::read(std::uint64_t offset, std::uint64_t bytes) const {
  // Asked of the file, and not of what claims a size, before memory is taken.
  if (offset > size_ || bytes > size_ - offset) {
    fail(DIBR_RUNTIME_REFUSED, what_, " is cut off: it ends after ", size_, " bytes");
  }
  Bytes content(bytes);
  read(offset, content.data(), content.size());
  return content;
}

bool exists(const std::string& path) { return kind_of(path) != 0; }
bool is_folder(const std::string& path) { return kind_of(path) == S_IFDIR; }
bool is_file(const std::string& path) { return kind_of(path) == S_IFREG; }

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
  while (folder != nullptr) {
    const dirent* entry = readdir(folder.get());
    if (entry == nullptr) break;
    names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void write_atomically(const std::string& path, const Bytes& content, const std::string& what) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  std::string temporary = folder + "." + path.substr(folder.size()) + ".XXXXXX";
  const int descriptor = mkostemp(temporary.data(), O_CLOEXEC);
  if (descriptor < 0) fail(DIBR_RUNTIME_FAILED, what, " ", path, " cannot be written: ", system_error(errno));
  int number = 0;
  for (std::size_t written = 0; written < content.size() && number == 0;) {
    const ssize_t count = write(descriptor, content.data() + written, std::min(content.size() - written, most_at_once));
    if (count >= 0) {
      written += static_cast<std::size_t>(count);
    } else if (errno != EINTR) {
      number = errno;
    }
  }
  // umask can only be read by setting it, which other threads would see: /proc tells it without.
  mode_t mode = 0644;
  if (std::FILE* status = std::fopen("/proc/self/status", "re")) {
    char line[256];
    unsigned mask = 0;
    while (std::fgets(line, sizeof line, status) != nullptr) {
      if (std::sscanf(line, "Umask: %o", &mask) == 1) mode = 0666 & ~mask;
    }
    std::fclose(status);
  }
  if (number == 0 && fchmod(descriptor, mode) != 0) number = errno;
  if (close(descriptor) != 0 && number == 0) number = errno;
  if (number == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) number = errno;
  if (number != 0) {
    unlink(temporary.c_str());
    fail(DIBR_RUNTIME_FAILED, what, " ", path, " cannot be written: ", system_error(number));
  }
}

std::string sha256(const unsigned char* data, std::size_t bytes) {
  unsigned char digest[32];
  unsigned length = 0;
  if (EVP_Digest(data, bytes, digest, &length, EVP_sha256(), nullptr) != 1 || length != sizeof digest) {
    fail(DIBR_RUNTIME_INTERNAL, "libcrypto does not compute SHA-256");
  }
  std::string text;
  for (const unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace dibr::runtime
