#include "session.h"

#include <algorithm>
#include <optional>

#include "failure.h"
#include "libraries.h"
#include "onnx_header.h"

namespace dibr::runtime {
namespace {

OnnxModel bare_model(const std::string& path) {
  OnnxModel model;
  model.path = path;
  model.content = InputFile(path, "model " + path).read_all();
  const OnnxHeader header = parse_onnx_header(model.content, "model " + path);
  model.has_our_ops = header.has_our_ops();
  if (model.has_our_ops) check_schema_version(path, header.schema_version());
  return model;
}

// An ONNX file of the bundle, once it is what the manifest says.
OnnxModel checked_model(const Bundle& bundle, const std::string& file) {
  const Manifest& manifest = bundle.manifest();
  check_schema_version(bundle.path(), manifest.schema_version);
  OnnxModel model;
  model.path = bundle.path() + "/" + file;
  model.content = bundle.read(file);
  model.manifest = &manifest;
  model.bundle = bundle.path();
  const OnnxHeader header = parse_onnx_header(model.content, "model " + model.path);
  model.has_our_ops = header.has_our_ops();
  check_schema_version(model.path, header.schema_version());
  return model;
}

// Fails unless stated and actual name the same tensors; then takes over what only the manifest knows.
void compare(const Bundle& bundle, const std::vector<TensorSpec>& stated, std::vector<TensorSpec>& actual) {
  bool agrees = stated.size() == actual.size();
  for (std::size_t index = 0; agrees && index < stated.size(); ++index) {
    agrees = stated[index].agrees_with(actual[index]);
    if (agrees) actual[index].meaning = stated[index].meaning;
  }
  if (!agrees) {
    fail(DIBR_RUNTIME_REFUSED, "bundle ", bundle.path(), ": the inputs and outputs of ", bundle.manifest().model,
         " are not those that its manifest names: export the bundle again");
  }
}

std::vector<std::vector<const char*>> axes_of(const std::vector<TensorSpec>& specs) {
  std::vector<std::vector<const char*>> result;
  for (const TensorSpec& spec : specs) {
    auto& axes = result.emplace_back();
    for (const std::string& axis : spec.axes) axes.push_back(axis.c_str());
  }
  return result;
}

// A session as it is opened.
struct Opening {
  const std::string& path;
  const Options& options;
  std::shared_ptr<const Bundle> bundle;  // none of a bare file
  std::optional<OnnxModel> model;        // read when it is first needed

  std::unique_ptr<Backend> open(const std::string& provider) {
    if (provider == "tensorrt") {
      if (!bundle) {
        fail(
            DIBR_RUNTIME_ABSENT, "model ", path,
            " is no bundle, and provider tensorrt needs an engine: make a bundle with one by `dibr export --tensorrt`");
      }
      check_schema_version(path, bundle->manifest().schema_version);
      return open_tensorrt(*bundle, options);
    }
    if (!model) model = bundle ? checked_model(*bundle, bundle->manifest().model) : bare_model(path);
    std::unique_ptr<Backend> backend = open_onnxruntime(*model, provider, options);
    if (bundle) {
      compare(*bundle, bundle->manifest().inputs, backend->inputs);
      compare(*bundle, bundle->manifest().outputs, backend->outputs);
    }
    return backend;
  }
};

}  // namespace
}  // namespace dibr::runtime

dibr_session::dibr_session(const std::string& path, const dibr::runtime::Options& options)
    : path_(path), options_(options) {
  namespace runtime = dibr::runtime;
  runtime::Opening opening{path, options, nullptr, std::nullopt};
  if (runtime::is_bundle(path)) opening.bundle = std::make_shared<const runtime::Bundle>(path);
  if (options.provider == "auto") {
    std::vector<std::string> candidates;
    if (opening.bundle && !opening.bundle->manifest().engines.empty()) candidates.emplace_back("tensorrt");
    if (runtime::onnxruntime_offers_cuda(options)) candidates.emplace_back("cuda");
    for (const std::string& candidate : candidates) {
      try {
        backend = opening.open(candidate);
        provider = candidate;
        break;
      } catch (const runtime::Failure& failure) {
        notes += runtime::sentence("provider ", candidate, " is passed over: ", failure.what(), "\n");
      }
    }
  }
  if (backend == nullptr) {
    provider = options.provider == "auto" ? "cpu" : options.provider;
    backend = opening.open(provider);
  }
  if (opening.bundle && opening.bundle->manifest().preprocess) {
    const std::string& file = *opening.bundle->manifest().preprocess;
    runtime::OnnxModel& graph = preprocess_model_.emplace();
    graph.path = path + "/" + file;
    graph.content = opening.bundle->read(file);
  }
  if (opening.bundle && opening.bundle->manifest().renderer) with_renderer_ = opening.bundle;
  input_axes = runtime::axes_of(backend->inputs);
  output_axes = runtime::axes_of(backend->outputs);
}

dibr_session::dibr_session(const dibr::runtime::OnnxModel& model, const dibr::runtime::Options& options)
    : provider("cpu"), backend(dibr::runtime::open_onnxruntime(model, provider, options)), path_(model.path) {
  input_axes = dibr::runtime::axes_of(backend->inputs);
  output_axes = dibr::runtime::axes_of(backend->outputs);
}

std::unique_ptr<dibr_session> dibr_session::open_renderer() const {
  namespace runtime = dibr::runtime;
  if (with_renderer_ == nullptr) {
    runtime::fail(DIBR_RUNTIME_ABSENT, "model ", path_,
                  " has no renderer of its own: a bundle that `dibr export --checkpoint` writes does");
  }
  const std::string& file = *with_renderer_->manifest().renderer;
  return std::make_unique<dibr_session>(runtime::checked_model(*with_renderer_, file), options_);
}

dibr::runtime::Backend& dibr_session::preprocessor() const {
  namespace runtime = dibr::runtime;
  if (!preprocess_model_) {
    runtime::fail(DIBR_RUNTIME_ABSENT, "model ", path_,
                  " is no bundle that says how pictures become its input: give it its inputs themselves");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (preprocessor_ == nullptr) {
    std::unique_ptr<runtime::Backend> opened = runtime::open_onnxruntime(*preprocess_model_, "cpu", options_);
    const auto is_input = [&](const runtime::TensorSpec& spec) { return spec.name == opened->outputs[0].name; };
    const bool fits = opened->inputs.size() == 1 && opened->inputs[0].type->element == DIBR_ELEMENT_UINT8 &&
                      opened->inputs[0].shape.size() == 3 && opened->outputs.size() == 1 &&
                      std::any_of(backend->inputs.begin(), backend->inputs.end(), is_input);
    if (!fits) {
      runtime::fail(DIBR_RUNTIME_REFUSED, "model ", preprocess_model_->path,
                    " is no graph from uint8 pixels [height, width, channels] to an input of the bundle's model");
    }
    preprocessor_ = std::move(opened);
  }
  return *preprocessor_;
}
