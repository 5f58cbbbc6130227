// How the door fails: inside by an exception with one sentence, at its edge by a status, that sentence being told to
// TensorRT. No exception leaves the door.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

namespace dibr::tensorrt {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, nvinfer1::ErrorCode code = nvinfer1::ErrorCode::kINVALID_ARGUMENT)
      : std::runtime_error(message), code_(code) {}
  nvinfer1::ErrorCode code() const { return code_; }

 private:
  nvinfer1::ErrorCode code_;
};

[[noreturn]] inline void fail(const std::string& message) { throw Error(message); }

// TensorRT gives a library that it loads a way to the logger of whichever engine is calling.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

void log(nvinfer1::ILogger::Severity severity, const std::string& message) noexcept;

// Logs an error and records it with `recorder`, or with the plugin registries where that is NULL.
void report(nvinfer1::ErrorCode code, const char* message, nvinfer1::IErrorRecorder* recorder) noexcept;

// Returns what body returns; where it throws, reports and returns `failure`.
template <class Result, class Body>
Result guard(Result failure, nvinfer1::IErrorRecorder* recorder, const Body& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    report(error.code(), error.what(), recorder);
  } catch (const std::bad_alloc&) {
    report(nvinfer1::ErrorCode::kFAILED_ALLOCATION, "dibr: out of host memory", recorder);
  } catch (const std::exception& error) {
    report(nvinfer1::ErrorCode::kINTERNAL_ERROR, error.what(), recorder);
  } catch (...) {
    report(nvinfer1::ErrorCode::kINTERNAL_ERROR, "dibr: unknown error", recorder);
  }
  return failure;
}

}  // namespace dibr::tensorrt
