#include "tensorrt/report.h"

#include <cstdio>
#include <mutex>

#include "tensorrt/host.h"

namespace dibr::tensorrt {
namespace {

std::mutex logger_finder_mutex;
LoggerFinder logger_finder;

Logger find_logger() {
  LoggerFinder finder;
  {
    const std::lock_guard<std::mutex> lock(logger_finder_mutex);
    finder = logger_finder;
  }
  const Logger logger = finder.find();
  return logger ? logger : loaded_logger();
}

void record(nvinfer1::IErrorRecorder& recorder, nvinfer1::ErrorCode code, const std::string& message) {
  recorder.reportError(code, message.substr(0, nvinfer1::IErrorRecorder::kMAX_DESC_LENGTH).c_str());
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept {
  const std::lock_guard<std::mutex> lock(logger_finder_mutex);
  logger_finder = LoggerFinder(finder);
}

void log(nvinfer1::ILogger::Severity severity, const std::string& message) noexcept {
  try {
    if (const Logger logger = find_logger()) {
      logger.log(severity, message.c_str());
    } else {
      std::fprintf(stderr, "%s\n", message.c_str());
    }
  } catch (...) {
    std::fputs("dibr: a message could not be logged\n", stderr);
  }
}

void report(nvinfer1::ErrorCode code, const char* message, nvinfer1::IErrorRecorder* recorder) noexcept {
  log(nvinfer1::ILogger::Severity::kERROR, message);
  try {
    if (recorder != nullptr) return record(*recorder, code, message);
    for (const Registry& registry : loaded_registries()) {
      if (nvinfer1::IErrorRecorder* of_registry = registry.error_recorder()) record(*of_registry, code, message);
    }
  } catch (...) {
    std::fputs("dibr: an error could not be recorded\n", stderr);
  }
}

}  // namespace dibr::tensorrt
