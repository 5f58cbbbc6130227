// A model in ONNX Runtime, on the CPU or on CUDA.
#include <cstring>
#include <utility>

#include "backend.h"
#include "failure.h"
#include "files.h"
#include "onnx_header.h"
#include "onnxruntime_library.h"

namespace dibr::runtime {
namespace {

constexpr const char* cuda_execution_provider = "CUDAExecutionProvider";

// An object of ONNX Runtime with the function that gives it back.
template <class T>
using Owned = std::unique_ptr<T, void(ORT_API_CALL*)(T*)>;

class OnnxRuntimeBackend : public Backend {
 public:
  OnnxRuntimeBackend(const OnnxModel& model, const std::string& provider, const Options& options)
      : runtime_(load_onnxruntime(options.onnxruntime_library)),
        api_(runtime_->api()),
        memory_(nullptr, api_.ReleaseMemoryInfo),
        session_(nullptr, api_.ReleaseSession) {
    if (model.manifest != nullptr) check_version(model);
    if (provider == "cuda" && !runtime_->offers(cuda_execution_provider)) {
      fail(DIBR_RUNTIME_ABSENT, "provider cuda is not in ONNX Runtime ", runtime_->version(), " at ", runtime_->path());
    }
    OrtMemoryInfo* memory = nullptr;
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), DIBR_RUNTIME_INTERNAL,
          "ONNX Runtime cannot describe memory: ");
    memory_.reset(memory);
    open(model, provider, options);
    inputs = specs(api_.SessionGetInputCount, api_.SessionGetInputName, api_.SessionGetInputTypeInfo);
    outputs = specs(api_.SessionGetOutputCount, api_.SessionGetOutputName, api_.SessionGetOutputTypeInfo);
  }

  std::unique_ptr<dibr_result> run(const std::vector<dibr_tensor>& given) override;

 private:
  struct Result;

  // Releases a status that tells of a failure, and fails with its words.
  void check(OrtStatus* status, dibr_runtime_status kind, const std::string& what) const {
    if (status != nullptr) fail(kind, what, words_of(api_, status));
  }

  void check_version(const OnnxModel& model) const {
    if (is_older(runtime_->version(), model.manifest->onnxruntime_api)) {
      fail(DIBR_RUNTIME_REFUSED, "bundle ", model.bundle, " needs ONNX Runtime 1.", model.manifest->onnxruntime_api,
           " or newer, but ", runtime_->version(), " is installed at ", runtime_->path());
    }
  }

  void open(const OnnxModel& model, const std::string& provider, const Options& options);
  void append_cuda(OrtSessionOptions* settings, int device) const;
  void register_operators(OrtSessionOptions* settings, const OnnxModel& model, const Options& options) const;

  template <class Count, class Name, class Type>
  std::vector<TensorSpec> specs(Count count_of, Name name_of, Type type_of) const;
  void describe(const OrtTypeInfo* type, TensorSpec& spec) const;

  const std::shared_ptr<const OnnxRuntime> runtime_;
  const OrtApi& api_;
  Owned<OrtMemoryInfo> memory_;
  Owned<OrtSession> session_;
};

void OnnxRuntimeBackend::open(const OnnxModel& model, const std::string& provider, const Options& options) {
  constexpr dibr_runtime_status internal = DIBR_RUNTIME_INTERNAL;
  OrtSessionOptions* created = nullptr;
  check(api_.CreateSessionOptions(&created), internal, "ONNX Runtime cannot make options: ");
  const Owned<OrtSessionOptions> settings(created, api_.ReleaseSessionOptions);
  check(api_.SetSessionLogSeverityLevel(settings.get(), ORT_LOGGING_LEVEL_FATAL), internal, "log level: ");
  check(api_.SetIntraOpNumThreads(settings.get(), options.threads), internal, "threads: ");
  if (provider == "cuda") append_cuda(settings.get(), options.device);
  if (model.has_our_ops) register_operators(settings.get(), model, options);
  OrtSession* session = nullptr;
  check(api_.CreateSessionFromArray(runtime_->environment(), model.content.data(), model.content.size(), settings.get(),
                                    &session),
        DIBR_RUNTIME_REFUSED, "model " + model.path + " cannot be opened: ");
  session_.reset(session);
}

void OnnxRuntimeBackend::append_cuda(OrtSessionOptions* settings, int device) const {
  OrtCUDAProviderOptionsV2* created = nullptr;
  const std::string what = "provider cuda: ONNX Runtime could not load its " + std::string(cuda_execution_provider) +
                           ", which needs an NVIDIA driver, and the CUDA and cuDNN libraries of its major versions: ";
  check(api_.CreateCUDAProviderOptions(&created), DIBR_RUNTIME_ABSENT, what);
  const Owned<OrtCUDAProviderOptionsV2> cuda(created, api_.ReleaseCUDAProviderOptions);
  const std::string number = std::to_string(device);
  const char *key = "device_id", *value = number.c_str();
  check(api_.UpdateCUDAProviderOptions(cuda.get(), &key, &value, 1), DIBR_RUNTIME_ABSENT, what);
  check(api_.SessionOptionsAppendExecutionProvider_CUDA_V2(settings, cuda.get()), DIBR_RUNTIME_ABSENT, what);
}

void OnnxRuntimeBackend::register_operators(OrtSessionOptions* settings, const OnnxModel& model,
                                            const Options& options) const {
  const std::string path =
      options.operator_library.empty() ? own_folder() + "/libdibr_onnxruntime.so" : options.operator_library;
  if (!is_file(path)) {
    fail(DIBR_RUNTIME_NOT_FOUND, "model ", model.path, " needs the ", op_domain, " custom ops, but ", path,
         " does not exist: build dibr with DIBR_ORT=ON, or name the library in the session's options");
  }
  check(api_.RegisterCustomOpsLibrary_V2(settings, path.c_str()), DIBR_RUNTIME_REFUSED,
        "the operators of " + path + " cannot be registered: ");
}

template <class Count, class Name, class Type>
std::vector<TensorSpec> OnnxRuntimeBackend::specs(Count count_of, Name name_of, Type type_of) const {
  constexpr dibr_runtime_status refused = DIBR_RUNTIME_REFUSED;
  OrtAllocator* allocator = nullptr;
  check(api_.GetAllocatorWithDefaultOptions(&allocator), refused, "ONNX Runtime has no allocator: ");
  std::size_t count = 0;
  check(count_of(session_.get(), &count), refused, "the model does not tell its inputs and outputs: ");
  std::vector<TensorSpec> result(count);
  for (std::size_t index = 0; index < count; ++index) {
    char* name = nullptr;
    check(name_of(session_.get(), index, allocator, &name), refused, "an input or output has no name: ");
    const auto give_back = [&](char* memory) {
      if (OrtStatus* status = api_.AllocatorFree(allocator, memory)) api_.ReleaseStatus(status);
    };
    const std::unique_ptr<char, decltype(give_back)> owned(name, give_back);
    result[index].name = name;
    OrtTypeInfo* type = nullptr;
    check(type_of(session_.get(), index, &type), refused, "an input or output has no type: ");
    const Owned<OrtTypeInfo> owned_type(type, api_.ReleaseTypeInfo);
    describe(type, result[index]);
  }
  return result;
}

void OnnxRuntimeBackend::describe(const OrtTypeInfo* type, TensorSpec& spec) const {
  const std::string what = "the model's " + spec.name + " cannot be described: ";
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // owned by type
  check(api_.CastTypeInfoToTensorInfo(type, &tensor), DIBR_RUNTIME_REFUSED, what);
  if (tensor == nullptr) fail(DIBR_RUNTIME_REFUSED, what, "it is no tensor");
  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  check(api_.GetTensorElementType(tensor, &element), DIBR_RUNTIME_REFUSED, what);
  spec.type = element_of_onnx(element);
  if (spec.type == nullptr) fail(DIBR_RUNTIME_REFUSED, what, "it is no tensor of numbers");
  std::size_t rank = 0;
  check(api_.GetDimensionsCount(tensor, &rank), DIBR_RUNTIME_REFUSED, what);
  spec.shape.resize(rank);
  std::vector<const char*> names(rank, "");
  check(api_.GetDimensions(tensor, spec.shape.data(), rank), DIBR_RUNTIME_REFUSED, what);
  check(api_.GetSymbolicDimensions(tensor, names.data(), rank), DIBR_RUNTIME_REFUSED, what);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    // An axis without a name is called INPUT.AXIS, as in dibr_deploy.runtime.
    const bool has_name = names[axis] != nullptr && names[axis][0] != '\0';
    const std::string own = has_name ? names[axis] : spec.name + "." + std::to_string(axis);
    spec.axes.push_back(spec.shape[axis] < 0 ? own : "");
    if (spec.shape[axis] < 0) spec.shape[axis] = -1;
  }
}

struct OnnxRuntimeBackend::Result : dibr_result {
  explicit Result(std::shared_ptr<const OnnxRuntime> loaded) : runtime(std::move(loaded)) {}
  Result(const Result&) = delete;
  ~Result() override {
    for (OrtValue* value : values) runtime->api().ReleaseValue(value);
  }

  const std::shared_ptr<const OnnxRuntime> runtime;
  std::vector<OrtValue*> values;
  std::vector<std::string> names;
  std::vector<std::vector<std::int64_t>> shapes;
};

std::unique_ptr<dibr_result> OnnxRuntimeBackend::run(const std::vector<dibr_tensor>& given) {
  std::vector<Owned<OrtValue>> values;
  std::vector<const OrtValue*> feed;
  std::vector<const char*> input_names, output_names;
  static char nothing[16];  // stands for the data of an empty tensor: ONNX Runtime takes no NULL
  for (std::size_t index = 0; index < given.size(); ++index) {
    const dibr_tensor& tensor = given[index];
    OrtValue* value = nullptr;
    // ONNX Runtime takes a pointer to data that it may write to, and reads inputs alone.
    void* data = tensor.bytes > 0 ? const_cast<void*>(tensor.data) : nothing;
    check(api_.CreateTensorWithDataAsOrtValue(memory_.get(), data, tensor.bytes, tensor.shape,
                                              static_cast<std::size_t>(tensor.rank),
                                              static_cast<ONNXTensorElementDataType>(inputs[index].type->onnx), &value),
          DIBR_RUNTIME_INVALID_ARGUMENT, "input " + inputs[index].name + ": ");
    values.emplace_back(value, api_.ReleaseValue);
    feed.push_back(value);
    input_names.push_back(inputs[index].name.c_str());
  }
  for (const TensorSpec& spec : outputs) output_names.push_back(spec.name.c_str());
  auto result = std::make_unique<Result>(runtime_);
  result->values.resize(outputs.size(), nullptr);
  check(api_.Run(session_.get(), nullptr, input_names.data(), feed.data(), feed.size(), output_names.data(),
                 output_names.size(), result->values.data()),
        DIBR_RUNTIME_FAILED, "the model could not be run: ");
  for (std::size_t index = 0; index < outputs.size(); ++index) {
    const std::string what = "output " + outputs[index].name + ": ";
    OrtTensorTypeAndShapeInfo* created = nullptr;
    check(api_.GetTensorTypeAndShape(result->values[index], &created), DIBR_RUNTIME_FAILED, what);
    const Owned<OrtTensorTypeAndShapeInfo> type(created, api_.ReleaseTensorTypeAndShapeInfo);
    std::size_t rank = 0;
    check(api_.GetDimensionsCount(type.get(), &rank), DIBR_RUNTIME_FAILED, what);
    std::vector<std::int64_t>& shape = result->shapes.emplace_back(rank);
    check(api_.GetDimensions(type.get(), shape.data(), rank), DIBR_RUNTIME_FAILED, what);
    void* data = nullptr;
    check(api_.GetTensorMutableData(result->values[index], &data), DIBR_RUNTIME_FAILED, what);
    dibr_tensor tensor{};
    tensor.element = outputs[index].type->element;
    tensor.rank = static_cast<int32_t>(rank);
    tensor.data = data;
    tensor.bytes = tensor_bytes("output " + outputs[index].name, *outputs[index].type, shape.data(), rank);
    result->tensors.push_back(tensor);
    result->names.push_back(outputs[index].name);
  }
  for (std::size_t index = 0; index < outputs.size(); ++index) {
    result->tensors[index].name = result->names[index].c_str();
    result->tensors[index].shape = result->shapes[index].data();
  }
  return result;
}

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const OnnxModel& model, const std::string& provider, const Options& options) {
  return std::make_unique<OnnxRuntimeBackend>(model, provider, options);
}

bool onnxruntime_offers_cuda(const Options& options) {
  try {
    return load_onnxruntime(options.onnxruntime_library)->offers(cuda_execution_provider);
  } catch (const Failure&) {
    return false;
  }
}

}  // namespace dibr::runtime
