// A bundle's TensorRT engine: several execution contexts of one engine, any number of threads. TensorRT and the driver
// are found at run time; of TensorRT's headers this is the one file that includes them.
#include <NvInferRuntime.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "backend.h"
#include "cuda_driver.h"
#include "dibr/dibr.h"
#include "engine_checks.h"
#include "failure.h"
#include "files.h"
#include "libraries.h"
#include "onnx_header.h"

namespace dibr::runtime {
namespace {

namespace trt = nvinfer1;

constexpr const char* plugin_library = "libdibr_tensorrt.so";

// Keeps what TensorRT reports in this thread, for the sentence of the failure that follows.
class Listener : public trt::ILogger {
 public:
  void log(Severity severity, const trt::AsciiChar* words) noexcept override {
    if (severity > Severity::kERROR || words == nullptr) return;
    try {
      said() = one_line(words);
    } catch (...) {  // no memory for the words
    }
  }

  [[noreturn]] static void fail_to(const std::string& task, dibr_runtime_status status = DIBR_RUNTIME_FAILED) {
    const std::string words = std::move(said());
    said().clear();
    fail(status, "TensorRT could not ", task, ": ", words.empty() ? "it does not say why" : words);
  }

 private:
  static std::string& said() {
    thread_local std::string words;
    return words;
  }
};

// TensorRT keeps the first logger that it sees as long as the process lives.
Listener& listener() {
  static auto* const object = new Listener();
  return *object;
}

const ElementType* element_of(trt::DataType type) {
  switch (type) {
    case trt::DataType::kFLOAT:
      return element_type(DIBR_ELEMENT_FLOAT32);
    case trt::DataType::kHALF:
      return element_type(DIBR_ELEMENT_FLOAT16);
    case trt::DataType::kBF16:
      return element_type(DIBR_ELEMENT_BFLOAT16);
    case trt::DataType::kINT8:
      return element_type(DIBR_ELEMENT_INT8);
    case trt::DataType::kUINT8:
      return element_type(DIBR_ELEMENT_UINT8);
    case trt::DataType::kINT32:
      return element_type(DIBR_ELEMENT_INT32);
    case trt::DataType::kINT64:
      return element_type(DIBR_ELEMENT_INT64);
    case trt::DataType::kBOOL:
      return element_type(DIBR_ELEMENT_BOOL);
    default:
      return nullptr;
  }
}

std::vector<std::int64_t> sizes_of(const trt::Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

trt::Dims dims_of(const std::vector<std::int64_t>& shape) {
  trt::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

std::string rebuild_command(const Bundle& bundle) { return "`dibr export --bundle " + bundle.path() + " --tensorrt`"; }

// TensorRT itself, of one version.
class TensorRt {
 public:
  TensorRt(const std::string& path, const Engine& engine, const std::string& what)
      : library_(candidates(path, engine, what), "TensorRT", "install TensorRT " + engine.version + " for " + what) {
    if (symbols_missing()) {
      fail(DIBR_RUNTIME_ABSENT, library_.name(), " is no TensorRT of major version ", NV_TENSORRT_MAJOR,
           ": it lacks functions of it");
    }
  }

  std::string version() const {
    std::string text = sentence(ask("getInferLibMajorVersion"), ".", ask("getInferLibMinorVersion"), ".",
                                ask("getInferLibPatchVersion"));
    return text + sentence(".", ask("getInferLibBuildVersion"));
  }

  trt::IRuntime* make_runtime() const {
    const auto create = library_.function<void* (*)(void*, std::int32_t)>("createInferRuntime_INTERNAL");
    auto* runtime = static_cast<trt::IRuntime*>(create(&listener(), NV_TENSORRT_VERSION));
    if (runtime == nullptr) Listener::fail_to("start", DIBR_RUNTIME_ABSENT);
    return runtime;
  }

  // Our plugins into TensorRT's registry, once per process.
  void load_plugins(const std::string& path) const {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    trt::IPluginRegistry* registry = library_.function<trt::IPluginRegistry* (*)()>("getPluginRegistry")();
    std::int32_t count = 0;
    trt::IPluginCreatorInterface* const* creators = registry->getAllCreators(&count);
    for (std::int32_t index = 0; index < count; ++index) {
      const auto* creator = static_cast<const trt::IPluginCreatorV3One*>(creators[index]);
      const bool is_v3 = std::strcmp(creators[index]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0;
      if (is_v3 && std::strcmp(const_cast<trt::IPluginCreatorV3One*>(creator)->getPluginNamespace(), op_domain) == 0) {
        return;
      }
    }
    if (registry->loadLibrary(path.c_str()) == nullptr) Listener::fail_to("load the plugins of " + path);
  }

 private:
  static std::vector<std::string> candidates(const std::string& path, const Engine& engine, const std::string& what) {
    const std::string major = engine.version.substr(0, engine.version.find('.'));
    if (engine.flavour != "tensorrt" || major != std::to_string(NV_TENSORRT_MAJOR)) {
      fail(DIBR_RUNTIME_ABSENT, what, " is for ", engine.flavour == "tensorrt" ? "TensorRT " : "TensorRT-RTX ",
           engine.version, ", but this libdibr_runtime was built with the headers of TensorRT ", NV_TENSORRT_MAJOR);
    }
    if (!path.empty()) return {path};
    std::vector<std::string> names = {"libnvinfer.so." + major};
    if (engine.version_compatible) {
      names.push_back("libnvinfer_lean.so." + major);
      names.push_back("libnvinfer_dispatch.so." + major);
    }
    return names;
  }

  bool symbols_missing() const {
    const char* names[] = {"createInferRuntime_INTERNAL", "getPluginRegistry",       "getInferLibMajorVersion",
                           "getInferLibMinorVersion",     "getInferLibPatchVersion", "getInferLibBuildVersion"};
    return std::any_of(std::begin(names), std::end(names),
                       [&](const char* name) { return library_.symbol(name) == nullptr; });
  }

  std::int32_t ask(const char* name) const { return library_.function<std::int32_t (*)()>(name)(); }

  SharedLibrary library_;
};

// An engine that may be loaded here, since everything that its manifest asks for is there.
struct CheckedEngine {
  const Engine* entry = nullptr;
  std::unique_ptr<const TensorRt> tensorrt;
  std::string plugins;
  Bytes content;
};

// Compares what the manifest says of an engine with this machine. Nothing of the bundle is loaded.
CheckedEngine check_engine(const Bundle& bundle, const Engine& entry, const ComputeCapability& device,
                           const Options& options) {
  const std::string what = "engine " + entry.file + " of bundle " + bundle.path();
  const std::string rebuild = rebuild_command(bundle);
  CheckedEngine checked;
  checked.entry = &entry;
  checked.tensorrt = std::make_unique<const TensorRt>(options.tensorrt_library, entry, what);
  check_tensorrt_version(what, entry, checked.tensorrt->version(), rebuild);
  check_device(what, entry, device, rebuild);
  check_schema_version(bundle.path(), bundle.manifest().schema_version);
  if (!entry.carries_plugin) {
    checked.plugins = own_folder() + "/" + plugin_library;
    if (!is_file(checked.plugins)) {
      fail(DIBR_RUNTIME_ABSENT, what, " needs the ", op_domain, " plugins, but ", checked.plugins, " does not exist");
    }
    const std::string actual = sha256(InputFile(checked.plugins, plugin_library).read_all());
    if (actual != entry.plugin_sha256) {
      fail(DIBR_RUNTIME_ABSENT, what, " was built with another ", plugin_library, " than ", checked.plugins,
           " (SHA-256 ", entry.plugin_sha256.substr(0, 12), "..., not ", actual.substr(0, 12),
           "...): build the engine again with ", rebuild);
    }
  }
  checked.content = bundle.read(entry.file);
  return checked;
}

// The bundle's first engine that may be loaded here.
CheckedEngine choose_engine(const Bundle& bundle, const ComputeCapability& device, const Options& options) {
  if (bundle.manifest().engines.empty()) {
    fail(DIBR_RUNTIME_ABSENT, "bundle ", bundle.path(), " has no TensorRT engine: build one here with ",
         rebuild_command(bundle));
  }
  dibr_runtime_status status = DIBR_RUNTIME_ABSENT;
  std::string refusals;
  for (const Engine& entry : bundle.manifest().engines) {
    try {
      return check_engine(bundle, entry, device, options);
    } catch (const Failure& failure) {
      if (failure.status != DIBR_RUNTIME_ABSENT) status = failure.status;
      refusals += (refusals.empty() ? "" : "; ") + failure.sentence;
    }
  }
  fail(status, refusals);
}

// Memory that grows, for one input or output of a context.
class Buffer {
 public:
  explicit Buffer(const CudaDevice& device) : device_(&device) {}
  Buffer(Buffer&& other) noexcept : device_(other.device_), memory_(other.memory_), size_(other.size_) {
    other.memory_ = 0;
  }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() {
    if (memory_ != 0) device_->free(memory_);
  }

  CUdeviceptr at_least(std::size_t bytes) {
    if (bytes > size_ || memory_ == 0) {
      if (memory_ != 0) device_->free(memory_);
      memory_ = 0;
      size_ = std::max<std::size_t>(bytes, 1);
      memory_ = device_->allocate(size_);
    }
    return memory_;
  }

 private:
  const CudaDevice* device_;
  CUdeviceptr memory_ = 0;
  std::size_t size_ = 0;
};

// An input or output of the engine: of the model's tensors the one with its name.
struct EngineTensor {
  std::string name;
  const ElementType* type = nullptr;
  std::vector<std::int64_t> shape;  // -1 where the size is dynamic
  bool on_host = false;             // TensorRT reads or writes its values in host memory: it is a shape
};

// An output as it is computed.
struct Output {
  std::vector<std::int64_t> shape;
  Bytes content;
};

// An execution context with a stream and buffers of its own.
struct Context {
  std::unique_ptr<trt::IExecutionContext> execution;
  CUstream stream = nullptr;
  std::vector<Buffer> inputs, outputs;
  std::vector<std::vector<std::int64_t>> host_values;  // room for the shape inputs and outputs, 8 bytes a value
};

class TensorRtBackend : public Backend {
 public:
  TensorRtBackend(const Bundle& bundle, const Options& options)
      : device_(options.device), checked_(choose_engine(bundle, device_.compute_capability(), options)) {
    inputs = bundle.manifest().inputs;
    outputs = bundle.manifest().outputs;
    profiles_ = checked_.entry->profiles;
    const CudaDevice::Current current(device_);
    load(bundle);
    try {
      for (int i = 0; i < options.instances; ++i) add_context();
    } catch (...) {
      close();
      throw;
    }
  }

  ~TensorRtBackend() override {
    try {
      const CudaDevice::Current current(device_);
      close();
    } catch (const Failure&) {  // the device is gone, and all that was on it
    }
  }

  std::unique_ptr<dibr_result> run(const std::vector<dibr_tensor>& given) override {
    Context* context = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      context_is_free_.wait(lock, [&] { return !free_.empty(); });
      context = free_.front();
      free_.pop_front();
    }
    const auto give_back = [&](Context* used) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.push_back(used);
      }
      context_is_free_.notify_one();
    };
    const std::unique_ptr<Context, decltype(give_back)> guard(context, give_back);
    const CudaDevice::Current current(device_);
    try {
      return run_in(*context, given);
    } catch (...) {
      try {
        device_.synchronize(context->stream);  // nothing reads the caller's memory any more
      } catch (const Failure&) {               // the first error says more
      }
      throw;
    }
  }

 private:
  void load(const Bundle& bundle) {
    const std::string task = "load engine " + checked_.entry->file + " of bundle " + bundle.path();
    runtime_.reset(checked_.tensorrt->make_runtime());
    if (checked_.entry->carries_plugin || checked_.entry->version_compatible) runtime_->setEngineHostCodeAllowed(true);
    if (!checked_.plugins.empty()) checked_.tensorrt->load_plugins(checked_.plugins);
    engine_.reset(runtime_->deserializeCudaEngine(checked_.content.data(), checked_.content.size()));
    if (engine_ == nullptr) Listener::fail_to(task, DIBR_RUNTIME_REFUSED);
    checked_.content = Bytes();
    for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
      EngineTensor tensor;
      tensor.name = engine_->getIOTensorName(index);
      tensor.type = element_of(engine_->getTensorDataType(tensor.name.c_str()));
      tensor.shape = sizes_of(engine_->getTensorShape(tensor.name.c_str()));
      tensor.on_host = engine_->getTensorLocation(tensor.name.c_str()) == trt::TensorLocation::kHOST;
      const bool is_input = engine_->getTensorIOMode(tensor.name.c_str()) == trt::TensorIOMode::kINPUT;
      check_tensor(bundle, tensor, is_input ? inputs : outputs);
      (is_input ? engine_inputs_ : engine_outputs_).push_back(tensor);
    }
    if (engine_outputs_.size() != outputs.size()) refuse_interface(bundle);
    if (static_cast<std::size_t>(engine_->getNbOptimizationProfiles()) != std::max<std::size_t>(profiles_.size(), 1)) {
      refuse_interface(bundle);
    }
  }

  [[noreturn]] void refuse_interface(const Bundle& bundle) const {
    fail(DIBR_RUNTIME_REFUSED, "engine ", checked_.entry->file, " of bundle ", bundle.path(),
         " is not what the manifest describes: its inputs, outputs or profiles are others; build it again with ",
         rebuild_command(bundle));
  }

  // Inputs may be missing: what the model does not use, TensorRT drops.
  void check_tensor(const Bundle& bundle, const EngineTensor& tensor, const std::vector<TensorSpec>& specs) const {
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&](const TensorSpec& candidate) { return candidate.name == tensor.name; });
    bool fits = spec != specs.end() && spec->type == tensor.type && spec->shape.size() == tensor.shape.size();
    for (std::size_t axis = 0; fits && axis < tensor.shape.size(); ++axis) {
      fits = tensor.shape[axis] == -1 || spec->shape[axis] == -1 || tensor.shape[axis] == spec->shape[axis];
    }
    if (!fits) refuse_interface(bundle);
  }

  void add_context() {
    auto context = std::make_unique<Context>();
    context->execution.reset(engine_->createExecutionContext());
    if (context->execution == nullptr) Listener::fail_to("make an execution context");
    context->stream = device_.make_stream();
    for (std::size_t i = 0; i < engine_inputs_.size(); ++i) context->inputs.emplace_back(device_);
    for (std::size_t i = 0; i < engine_outputs_.size(); ++i) context->outputs.emplace_back(device_);
    context->host_values.resize(engine_inputs_.size() + engine_outputs_.size());
    free_.push_back(context.get());
    contexts_.push_back(std::move(context));
  }

  // Contexts first, then the engine, which must not outlive the runtime.
  void close() {
    for (const auto& context : contexts_) {
      context->execution.reset();
      context->inputs.clear();
      context->outputs.clear();
      device_.destroy(context->stream);
    }
    contexts_.clear();
    engine_.reset();
    runtime_.reset();
  }

  std::unique_ptr<dibr_result> run_in(Context& context, const std::vector<dibr_tensor>& given) {
    trt::IExecutionContext& execution = *context.execution;
    const auto tensor_of = [&](const std::string& name) -> const dibr_tensor& {
      return *std::find_if(given.begin(), given.end(), [&](const dibr_tensor& tensor) { return name == tensor.name; });
    };
    choose_profile_for(context, tensor_of);
    for (std::size_t i = 0; i < engine_inputs_.size(); ++i) {
      const EngineTensor& input = engine_inputs_[i];
      const dibr_tensor& tensor = tensor_of(input.name);
      void* address = nullptr;
      if (input.on_host) {
        std::vector<std::int64_t>& values = context.host_values[i];
        values.assign(tensor.bytes / sizeof(std::int64_t) + 1, 0);
        std::memcpy(values.data(), tensor.data, tensor.bytes);
        address = values.data();
      } else {
        const CUdeviceptr memory = context.inputs[i].at_least(tensor.bytes);
        if (tensor.bytes > 0) device_.copy_to_device(memory, tensor.data, tensor.bytes, context.stream);
        address = reinterpret_cast<void*>(memory);
        const trt::Dims dims = dims_of({tensor.shape, tensor.shape + tensor.rank});
        if (!execution.setInputShape(input.name.c_str(), dims)) Listener::fail_to("take the shape of " + input.name);
      }
      if (!execution.setTensorAddress(input.name.c_str(), address)) Listener::fail_to("take input " + input.name);
    }
    if (execution.inferShapes(0, nullptr) != 0) Listener::fail_to("take the inputs' shapes");
    std::vector<Output> computed = place_outputs(context);
    if (!execution.enqueueV3(context.stream)) Listener::fail_to("run the engine");
    return take_outputs(context, computed);
  }

  template <class TensorOf>
  void choose_profile_for(Context& context, const TensorOf& tensor_of) {
    std::map<std::string, std::vector<std::int64_t>> sizes;
    for (const EngineTensor& input : engine_inputs_) {
      const dibr_tensor& tensor = tensor_of(input.name);
      std::vector<std::int64_t>& stated = sizes[input.name];
      if (!input.on_host) {
        stated.assign(tensor.shape, tensor.shape + tensor.rank);
      } else if (input.type->element == DIBR_ELEMENT_INT64) {
        const auto* values = static_cast<const std::int64_t*>(tensor.data);
        stated.assign(values, values + tensor.bytes / sizeof(std::int64_t));
      } else {
        const auto* values = static_cast<const std::int32_t*>(tensor.data);
        stated.assign(values, values + tensor.bytes / sizeof(std::int32_t));
      }
    }
    const int profile = choose_profile(profiles_, sizes);
    if (context.execution->getOptimizationProfile() != profile &&
        !context.execution->setOptimizationProfileAsync(profile, context.stream)) {
      Listener::fail_to("choose a profile");
    }
  }

  std::vector<Output> place_outputs(Context& context) {
    std::vector<Output> placed;
    for (std::size_t i = 0; i < engine_outputs_.size(); ++i) {
      const EngineTensor& output = engine_outputs_[i];
      const std::vector<std::int64_t> shape = sizes_of(context.execution->getTensorShape(output.name.c_str()));
      if (std::any_of(shape.begin(), shape.end(), [](std::int64_t size) { return size < 0; })) {
        fail(DIBR_RUNTIME_FAILED, "output ", output.name,
             " has a shape that depends on the inputs' values: provider tensorrt takes none of these, cpu and cuda do");
      }
      const std::size_t bytes = tensor_bytes("output " + output.name, *output.type, shape.data(), shape.size());
      void* address = nullptr;
      if (output.on_host) {
        std::vector<std::int64_t>& values = context.host_values[engine_inputs_.size() + i];
        values.assign(bytes / sizeof(std::int64_t) + 1, 0);
        address = values.data();
      } else {
        address = reinterpret_cast<void*>(context.outputs[i].at_least(bytes));
      }
      if (!context.execution->setTensorAddress(output.name.c_str(), address)) {
        Listener::fail_to("take output " + output.name);
      }
      placed.push_back({shape, Bytes(bytes)});
    }
    return placed;
  }

  // Copies the outputs to the host and orders them as the model has them.
  std::unique_ptr<dibr_result> take_outputs(Context& context, std::vector<Output>& computed) {
    for (std::size_t i = 0; i < engine_outputs_.size(); ++i) {
      Bytes& content = computed[i].content;
      if (!engine_outputs_[i].on_host && !content.empty()) {
        const CUdeviceptr memory = context.outputs[i].at_least(content.size());
        device_.copy_to_host(content.data(), memory, content.size(), context.stream);
      }
    }
    device_.synchronize(context.stream);
    for (std::size_t i = 0; i < engine_outputs_.size(); ++i) {
      Bytes& content = computed[i].content;
      if (engine_outputs_[i].on_host && !content.empty()) {
        std::memcpy(content.data(), context.host_values[engine_inputs_.size() + i].data(), content.size());
      }
    }
    auto result = std::make_unique<HostResult>();
    for (const TensorSpec& spec : outputs) {
      const auto found = std::find_if(engine_outputs_.begin(), engine_outputs_.end(),
                                      [&](const EngineTensor& output) { return output.name == spec.name; });
      Output& output = computed[static_cast<std::size_t>(found - engine_outputs_.begin())];
      result->add(spec.name, spec.type->element, std::move(output.shape), std::move(output.content));
    }
    return result;
  }

  CudaDevice device_;
  CheckedEngine checked_;
  std::vector<std::map<std::string, Profile>> profiles_;
  std::unique_ptr<trt::IRuntime> runtime_;
  std::unique_ptr<trt::ICudaEngine> engine_;
  std::vector<EngineTensor> engine_inputs_, engine_outputs_;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::mutex mutex_;
  std::condition_variable context_is_free_;
  std::deque<Context*> free_;
};

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const Bundle& bundle, const Options& options) {
  return std::make_unique<TensorRtBackend>(bundle, options);
}

}  // namespace dibr::runtime
