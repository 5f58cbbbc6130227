// What every way to run a model offers: dibr_session checks the inputs and hands them to one of these.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "tensors.h"

// Outputs in the model's order, and what owns their memory.
struct dibr_result {
  virtual ~dibr_result() = default;
  std::vector<dibr_tensor> tensors;
};

namespace dibr::runtime {

// A result with memory of its own.
struct HostResult : dibr_result {
  void add(const std::string& name, dibr_element element, std::vector<std::int64_t> shape, Bytes content);

 private:
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    Bytes content;
  };
  std::deque<Tensor> owned_;
};

// An opened model. Several threads may run it at the same time; nobody destroys it while it runs.
class Backend {
 public:
  virtual ~Backend() = default;
  // inputs: one for each of specs, checked.
  virtual std::unique_ptr<dibr_result> run(const std::vector<dibr_tensor>& inputs) = 0;

  std::vector<TensorSpec> inputs, outputs;
};

// Options of a session, with strings in place of pointers.
struct Options {
  std::string provider = "auto", onnxruntime_library, operator_library, tensorrt_library;
  int threads = 0, device = 0, instances = 1;
};

// A model for ONNX Runtime, either of a bundle whose manifest is then given, or bare.
struct OnnxModel {
  std::string path;  // named in errors
  Bytes content;
  bool has_our_ops = false;
  const Manifest* manifest = nullptr;
  std::string bundle;  // its path
};

// provider: "cpu" or "cuda". Fails with ABSENT where ONNX Runtime or the provider is not on this machine.
std::unique_ptr<Backend> open_onnxruntime(const OnnxModel& model, const std::string& provider, const Options& options);

// Whether this ONNX Runtime was built with CUDA, which may still not load. False where there is no ONNX Runtime.
bool onnxruntime_offers_cuda(const Options& options);

// Fails with ABSENT where this library was built without TensorRT, or no engine of the bundle is for this machine.
std::unique_ptr<Backend> open_tensorrt(const Bundle& bundle, const Options& options);

}  // namespace dibr::runtime
