// The TensorRT libraries that this process has loaded. The door links to none of them: it serves TensorRT 10 and 11,
// their lean and dispatch runtimes, and TensorRT-RTX from 1.7 on, whichever loads it.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

namespace dibr::tensorrt {

// Which virtual function is which in the classes that TensorRT and its user implement and this door calls. They moved
// with TensorRT 11, so that the declarations in the headers fit the libraries of one major version alone. The classes
// that the door implements are versioned interfaces, which all of these libraries take.
struct Abi {
  int registry_error_recorder, registry_add, registry_all;
  int logger_log;
  int finder_find;
};

// The plugin registry of a loaded library.
class Registry {
 public:
  Registry(nvinfer1::IPluginRegistry* object, const Abi& abi) : object_(object), abi_(&abi) {}

  nvinfer1::IErrorRecorder* error_recorder() const;
  bool has(const nvinfer1::IPluginCreatorV3One& creator) const;
  bool add(nvinfer1::IPluginCreatorV3One& creator) const;
  bool operator==(const Registry& other) const { return object_ == other.object_; }

 private:
  nvinfer1::IPluginRegistry* object_;
  const Abi* abi_;
};

// A logger that a TensorRT library knows; none where object is NULL.
class Logger {
 public:
  Logger() = default;
  Logger(nvinfer1::ILogger* object, const Abi& abi) : object_(object), abi_(&abi) {}

  explicit operator bool() const { return object_ != nullptr; }
  void log(nvinfer1::ILogger::Severity severity, const char* message) const;

 private:
  nvinfer1::ILogger* object_ = nullptr;
  const Abi* abi_ = nullptr;
};

// A TensorRT library's way to the logger of the engine that is calling; none where object is NULL.
class LoggerFinder {
 public:
  LoggerFinder() = default;
  explicit LoggerFinder(nvinfer1::ILoggerFinder* object);

  Logger find() const;

 private:
  nvinfer1::ILoggerFinder* object_ = nullptr;
  const Abi* abi_ = nullptr;
};

// The plugin registries of the loaded libraries, each once.
std::vector<Registry> loaded_registries();

// The logger that the first loaded library was given, if any.
Logger loaded_logger();

}  // namespace dibr::tensorrt
