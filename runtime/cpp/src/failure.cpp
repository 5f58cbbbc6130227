#include "failure.h"

namespace dibr::runtime {
namespace {

constexpr std::size_t longest = 400;
thread_local std::string last_error;

}  // namespace

std::string one_line(const std::string& words) {
  const std::size_t start = words.find_first_not_of(" \t\r\n");
  if (start == std::string::npos) return "";
  std::string line = words.substr(start, words.find('\n', start) - start);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  if (line.size() > longest) line = line.substr(0, longest) + "...";
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

void set_last_error(const char* sentence) noexcept {
  try {
    last_error = sentence;
  } catch (...) {
    last_error.clear();  // no memory for the words
  }
}

}  // namespace dibr::runtime

extern "C" const char* dibr_runtime_last_error(void) { return dibr::runtime::last_error.c_str(); }

extern "C" int32_t dibr_runtime_abi(void) { return DIBR_RUNTIME_ABI; }
