// TensorRT's side of the plugin interfaces, as far as a plugin can see it.
#pragma once

#include <NvInferRuntime.h>

#include <deque>
#include <string>
#include <vector>

namespace dibr::test {

// A dimension: a number, or a symbol that stands for one.
class Dimension final : public nvinfer1::IDimensionExpr {
 public:
  explicit Dimension(int64_t number) : impl_(number, "") { mImpl = &impl_; }
  explicit Dimension(std::string symbol) : impl_(kSymbolic, std::move(symbol)) { mImpl = &impl_; }

  // "B", or the digits of a number.
  std::string text() const { return impl_.symbol.empty() ? std::to_string(impl_.number) : impl_.symbol; }

 private:
  static constexpr int64_t kSymbolic = INT64_MIN;  // what getConstantValue gives for a symbol

  struct Impl final : nvinfer1::apiv::VDimensionExpr {
    Impl(int64_t number, std::string symbol) : number(number), symbol(std::move(symbol)) {}
    bool isConstant() const override { return symbol.empty(); }
    int64_t getConstantValue() const override { return number; }
    bool isSizeTensor() const override { return false; }

    int64_t number;
    std::string symbol;
  };
  Impl impl_;
};

// Owns the dimensions it makes. The door needs no arithmetic on them.
class Dimensions final : public nvinfer1::IExprBuilder {
 public:
  Dimensions() : impl_(this) { mImpl = &impl_; }

  const Dimension* make(int64_t number) { return &dimensions_.emplace_back(number); }
  const Dimension* make(const std::string& symbol) { return &dimensions_.emplace_back(symbol); }
  // A word of digits is a number, any other a symbol.
  nvinfer1::DimsExprs shape(const std::vector<std::string>& words) {
    nvinfer1::DimsExprs dims{};
    for (const std::string& word : words) {
      const bool number = word[0] >= '0' && word[0] <= '9';
      dims.d[dims.nbDims++] = number ? make(int64_t(std::stoll(word))) : make(word);
    }
    return dims;
  }
  static std::vector<std::string> words(const nvinfer1::DimsExprs& dims) {
    std::vector<std::string> result;
    for (int i = 0; i < dims.nbDims; ++i) result.push_back(static_cast<const Dimension*>(dims.d[i])->text());
    return result;
  }

 private:
  struct Impl final : nvinfer1::apiv::VExprBuilder {
    explicit Impl(Dimensions* owner) : owner(owner) {}
    const nvinfer1::IDimensionExpr* constant(int64_t value) override { return owner->make(value); }
    const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation, const nvinfer1::IDimensionExpr&,
                                              const nvinfer1::IDimensionExpr&) override {
      return nullptr;
    }
    const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                      const nvinfer1::IDimensionExpr&) override {
      return nullptr;
    }
    Dimensions* owner;
  };
  Impl impl_;
  std::deque<Dimension> dimensions_;
};

class Recorder final : public nvinfer1::IErrorRecorder {
 public:
  std::vector<std::string> errors;

  int32_t getNbErrors() const noexcept override { return int32_t(errors.size()); }
  nvinfer1::ErrorCode getErrorCode(int32_t) const noexcept override { return nvinfer1::ErrorCode::kUNSPECIFIED_ERROR; }
  const char* getErrorDesc(int32_t index) const noexcept override { return errors[index].c_str(); }
  bool hasOverflowed() const noexcept override { return false; }
  void clear() noexcept override { errors.clear(); }
  bool reportError(nvinfer1::ErrorCode, const char* description) noexcept override {
    errors.emplace_back(description);
    return false;
  }
  int32_t incRefCount() noexcept override { return 1; }
  int32_t decRefCount() noexcept override { return 1; }
};

class Context final : public nvinfer1::IPluginResourceContext {
 public:
  mutable Recorder recorder;

  nvinfer1::IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return &recorder; }
};

// A logger that keeps the last message, and the finder that leads to it.
class Log final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
 public:
  int64_t count = 0;
  std::string last;

  void log(Severity, const char* message) noexcept override {
    ++count;
    last = message;
  }
  nvinfer1::ILogger* findLogger() override { return this; }
};

}  // namespace dibr::test
