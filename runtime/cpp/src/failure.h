// How failures travel inside of the library, and how they leave it: as a status and the thread's last sentence.
#pragma once

#include <exception>
#include <new>
#include <sstream>
#include <string>

#include "dibr/runtime.h"

namespace dibr::runtime {

class Failure : public std::exception {
 public:
  Failure(dibr_runtime_status status, std::string sentence) : status(status), sentence(std::move(sentence)) {}
  const char* what() const noexcept override { return sentence.c_str(); }

  const dibr_runtime_status status;
  const std::string sentence;
};

template <class... Parts>
std::string sentence(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class... Parts>
[[noreturn]] void fail(dibr_runtime_status status, const Parts&... parts) {
  throw Failure(status, sentence(parts...));
}

// Of others' words: the first line, without control characters, and cut where it is long.
std::string one_line(const std::string& words);

// Sets what dibr_runtime_last_error returns in this thread. Never throws.
void set_last_error(const char* sentence) noexcept;

// Runs the body of a function of the C ABI: nothing that it throws gets out.
template <class Body>
dibr_runtime_status guarded(const Body& body) noexcept {
  try {
    body();
    return DIBR_RUNTIME_OK;
  } catch (const Failure& failure) {
    set_last_error(failure.what());
    return failure.status;
  } catch (const std::bad_alloc&) {
    set_last_error("there is not enough memory");
    return DIBR_RUNTIME_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
  } catch (...) {
    set_last_error("an unknown exception");
  }
  return DIBR_RUNTIME_INTERNAL;
}

}  // namespace dibr::runtime
