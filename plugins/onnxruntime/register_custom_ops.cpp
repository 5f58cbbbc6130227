// RegisterCustomOps, the one symbol of this library: session options, or any host that opens custom-op libraries, call
// it.
#include <cstdio>
#include <string>
#include <vector>

#include "onnxruntime/custom_op.h"

namespace dibr::onnxruntime {
namespace {

constexpr const char* kDomain = "ai.dibr";

// ONNX Runtime before 1.28 dereferences absent inputs and outputs while it infers the shapes of custom ops. Ops that
// have optional arguments leave their shapes to the model's own annotations there.
constexpr int kFirstMinorWithSafeInference = 28;

int minor_version(const OrtApiBase& runtime) {
  int minor = 0;
  std::sscanf(runtime.GetVersionString(), "1.%d", &minor);
  return minor;
}

bool has_type(const OpDefinition& definition, Type type) {
  for (size_t index = 0; index < definition.inputs.size(); ++index) {
    if (definition.inputs[index].type == type) return true;
  }
  return false;
}

// What the storage types of an op may be together: each float32 or 16 bits beside float32, or float64 all.
std::vector<Dtypes> dtypes_of(const OpDefinition& definition) {
  const std::vector<dibr_dtype> one = {DIBR_FLOAT32}, stored = {DIBR_FLOAT32, DIBR_FLOAT16, DIBR_BFLOAT16};
  std::vector<Dtypes> all = {{DIBR_FLOAT64, DIBR_FLOAT64}};
  for (const dibr_dtype of_stored : has_type(definition, Type::kStored) ? stored : one) {
    for (const dibr_dtype of_texels : has_type(definition, Type::kTexel) ? stored : one) {
      all.push_back({of_stored, of_texels});
    }
  }
  return all;
}

// One op for each execution provider. Where the CUDA kernels run on the CPU, for tests, they take the CPU ops' place.
std::vector<dibr_device> devices() {
  if (dibr_has_device(DIBR_CUDA) == 0) return {DIBR_CPU};
  if (!in_gpu_memory(DIBR_CUDA)) return {DIBR_CUDA};
  return {DIBR_CPU, DIBR_CUDA};
}

bool has_optional(const Arguments& arguments) {
  for (size_t index = 0; index < arguments.size(); ++index) {
    if (arguments[index].optional) return true;
  }
  return false;
}

// ONNX Runtime keeps pointers to the ops for as long as a session lives, which may be until after the static objects of
// this library are destroyed: the domain and its ops are never freed.
OrtCustomOpDomain* create_domain(const OrtApiBase& runtime) {
  const bool safe_inference = minor_version(runtime) >= kFirstMinorWithSafeInference;
  OrtCustomOpDomain* domain = nullptr;
  Ort::ThrowOnError(Ort::GetApi().CreateCustomOpDomain(kDomain, &domain));
  for (const OpDefinition* definition : {&kRasterize, &kInterpolate, &kSoftMask, &kTexture, &kAntialias, &kRender}) {
    const bool infer_shapes =
        safe_inference || !(has_optional(definition->inputs) || has_optional(definition->outputs));
    for (const Dtypes& dtypes : dtypes_of(*definition)) {
      for (const dibr_device device : devices()) {
        Ort::ThrowOnError(
            Ort::GetApi().CustomOpDomain_Add(domain, new CustomOp(*definition, dtypes, device, infer_shapes)));
      }
    }
  }
  return domain;
}

OrtStatus* refuse_old_runtime(const OrtApiBase& runtime) {
  const std::string message = "dibr: this custom-op library needs ONNX Runtime 1." + std::to_string(kApiVersion) +
                              " or newer, but ONNX Runtime " + runtime.GetVersionString() + " loaded it";
  return runtime.GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
}

}  // namespace
}  // namespace dibr::onnxruntime

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* runtime) {
  using namespace dibr::onnxruntime;
  const OrtApi* api = runtime->GetApi(kApiVersion);
  if (api == nullptr) return refuse_old_runtime(*runtime);
  // Once: threads may open sessions at the same time, and what this sets is read by all of them.
  [[maybe_unused]] static const bool is_set = (Ort::InitApi(api), true);
  return guard([&] {
    static OrtCustomOpDomain* const domain = create_domain(*runtime);
    Ort::ThrowOnError(api->AddCustomOpDomain(options, domain));
  });
}
