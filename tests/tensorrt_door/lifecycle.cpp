// Build, serialise, deserialise, attach to two contexts, and run with sizes that change within a profile.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "tensorrt_door/plugins.h"
#include "tensorrt_door/uses.h"

namespace dibr::test {
namespace {

using nvinfer1::DynamicPluginTensorDesc;

constexpr unsigned char kPoison = 0x5A;  // not that of the expected outputs: what nobody writes differs
constexpr float kTolerance = 1e-5f;
// The kernels' shim aborts at work on another stream, and at allocations and waits.
constexpr const char* kStreamHandle = "4096";
const auto kStream = reinterpret_cast<cudaStream_t>(uintptr_t(4096));

const std::vector<ImageSizes> kProfile = {
    {1, 3, 1, 1, 1, 1, 1, 1}, {2, 20, 30, 17, 33, 3, 5, 9}, {3, 40, 70, 64, 40, 4, 16, 8}};
const std::vector<ImageSizes> kWithin = {{1, 3, 1, 1, 1, 1, 1, 1},     {3, 40, 70, 64, 40, 4, 16, 8},
                                         {2, 4, 0, 16, 16, 2, 3, 3},   {2, 20, 30, 17, 33, 3, 5, 9},
                                         {0, 20, 30, 17, 33, 3, 5, 9}, {3, 40, 70, 1, 40, 1, 1, 8}};

std::vector<DynamicPluginTensorDesc> profile_of(const std::vector<Tensor>& min, const std::vector<Tensor>& opt,
                                                const std::vector<Tensor>& max) {
  std::vector<DynamicPluginTensorDesc> descs(max.size());
  for (size_t i = 0; i < max.size(); ++i) {
    DynamicPluginTensorDesc& d = descs[i];
    d.desc = opt[i].desc();
    d.min = min[i].desc().dims;
    d.opt = d.desc.dims;
    d.max = max[i].desc().dims;
    for (int axis = 0; axis < d.desc.dims.nbDims; ++axis) {
      if (d.min.d[axis] != d.max.d[axis]) d.desc.dims.d[axis] = -1;
    }
  }
  return descs;
}

float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const float mantissa = float(bits & 1023) / 1024;
  const float magnitude = exponent == 0 ? std::ldexp(mantissa, -14) : std::ldexp(1 + mantissa, exponent - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

float bfloat16_value(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

float value_at(Tensor& tensor, int64_t i) {
  if (tensor.type == DataType::kHALF) return half_value(tensor.values<uint16_t>()[i]);
  if (tensor.type == DataType::kBF16) return bfloat16_value(tensor.values<uint16_t>()[i]);
  return tensor.values<float>()[i];
}

// Integers are equal, reals differ by rounding at most: one unit in the last place of a 16-bit type.
void expect_equal(Tensor& actual, Tensor& expected, const std::string& what) {
  const float step = actual.type == DataType::kHALF ? 0x1p-10f : actual.type == DataType::kBF16 ? 0x1p-7f : kTolerance;
  for (int64_t i = 0; i < expected.count(); ++i) {
    const bool equal = actual.type == DataType::kINT32 ? actual.values<int32_t>()[i] == expected.values<int32_t>()[i]
                                                       : std::abs(value_at(actual, i) - value_at(expected, i)) <=
                                                             step * std::max(1.0f, std::abs(value_at(expected, i)));
    if (!equal) {
      expect(false, what + " differs from the CPU backend at element " + std::to_string(i));
      return;
    }
  }
  expect(true, what);
}

// One execution context, with a workspace for the largest sizes.
class Attached {
 public:
  Attached(const Plugin& plugin, size_t workspace_bytes)
      : plugin_(plugin.runtime().attachToContext(&context_)), workspace_(workspace_bytes, kPoison) {}

  // The clone knows what the plugin knew.
  void continue_in_clone() { plugin_ = plugin_.clone(); }

  void run(const Usage& usage, const ImageSizes& sizes, uint64_t seed, bool new_shapes = true) {
    Use use = make_use(usage, sizes, seed);
    std::vector<Tensor> outputs;
    std::vector<const void*> in;
    std::vector<void*> out;
    for (const Tensor& input : use.inputs) in.push_back(input.bytes.data());
    for (const Tensor& output : use.outputs) outputs.emplace_back(output.shape, output.type, kPoison);
    for (const Tensor& output : outputs) out.push_back(output.bytes.data());
    const auto input_descs = descs_of(use.inputs), output_descs = descs_of(outputs);
    if (workspace_.size() > 0) std::memset(workspace_.data(), kPoison, workspace_.size());
    if (new_shapes) {
      const int32_t changed = plugin_.runtime().onShapeChange(input_descs.data(), int32_t(in.size()),
                                                              output_descs.data(), int32_t(out.size()));
      expect(changed == 0, usage.op + ".onShapeChange: " + last_error());
    }
    const int32_t enqueued = plugin_.runtime().enqueue(input_descs.data(), output_descs.data(), in.data(), out.data(),
                                                       workspace_.data(), kStream);
    expect(enqueued == 0, usage.op + ".enqueue: " + last_error());
    for (size_t i = 0; i < outputs.size(); ++i) {
      expect_equal(outputs[i], use.outputs[i], usage.op + " output " + std::to_string(i));
    }
  }

  // A failure is recorded with this context.
  void refuse(const Usage& usage, const ImageSizes& sizes) {
    Use use = make_use(usage, sizes, 1);
    auto inputs = descs_of(use.inputs);
    const auto outputs = descs_of(use.outputs);
    inputs[1].dims.d[inputs[1].dims.nbDims - 1] += 1;
    const size_t before = context_.recorder.errors.size();
    const int32_t changed =
        plugin_.runtime().onShapeChange(inputs.data(), int32_t(inputs.size()), outputs.data(), int32_t(outputs.size()));
    expect(changed != 0, usage.op + ".onShapeChange refuses a wrong shape");
    std::vector<const void*> in(inputs.size(), workspace_.data());
    std::vector<void*> out(outputs.size(), workspace_.data());
    const int32_t enqueued =
        plugin_.runtime().enqueue(inputs.data(), outputs.data(), in.data(), out.data(), workspace_.data(), kStream);
    expect(enqueued != 0, usage.op + ".enqueue refuses a wrong shape");
    expect(context_.recorder.errors.size() == before + 2, usage.op + ": both refusals are recorded with the context");
    expect(last_error().find("must have shape [") != std::string::npos, usage.op + ": " + last_error());
  }

  size_t error_count() const { return context_.recorder.errors.size(); }

 private:
  std::string last_error() const {
    return context_.recorder.errors.empty() ? "no error" : context_.recorder.errors.back();
  }

  Context context_;
  Plugin plugin_;
  Bytes workspace_;
};

size_t workspace_of(const Plugin& plugin, const std::vector<DynamicPluginTensorDesc>& in,
                    const std::vector<DynamicPluginTensorDesc>& out) {
  return plugin.build().getWorkspaceSize(in.data(), int32_t(in.size()), out.data(), int32_t(out.size()));
}

size_t configure(const Plugin& plugin, const Usage& usage, const std::string& log) {
  const Use min = make_use(usage, kProfile[0], 1), opt = make_use(usage, kProfile[1], 1),
            max = make_use(usage, kProfile[2], 1);
  const auto in = profile_of(min.inputs, opt.inputs, max.inputs);
  const auto out = profile_of(min.outputs, opt.outputs, max.outputs);
  const int32_t configured =
      plugin.build().configurePlugin(in.data(), int32_t(in.size()), out.data(), int32_t(out.size()));
  expect(configured == 0, usage.op + ".configurePlugin: " + log);
  const size_t largest = workspace_of(plugin, in, out);
  for (const ImageSizes& sizes : kWithin) {
    const Use use = make_use(usage, sizes, 1);
    const auto exact_in = profile_of(use.inputs, use.inputs, use.inputs);
    const auto exact_out = profile_of(use.outputs, use.outputs, use.outputs);
    expect(workspace_of(plugin, exact_in, exact_out) <= largest, usage.op + ": the largest workspace is enough");
  }
  return largest;
}

void live(const Plugins& plugins, const Usage& usage) {
  const Plugin built = plugins.create(usage.op, usage.fields);
  if (!expect(bool(built), usage.op + ".createPlugin: " + plugins.log.last)) return;
  const size_t workspace_bytes = configure(built.clone(), usage, plugins.log.last);

  const FieldValues written = written_fields(built);
  const Plugin loaded = plugins.create(usage.op, written, TensorRTPhase::kRUNTIME);
  if (!expect(bool(loaded), usage.op + " from an engine: " + plugins.log.last)) return;
  expect(written_fields(loaded) == written, usage.op + ": what was read is what was written");
  expect(std::string(loaded.build().getTimingCacheID()) == built.build().getTimingCacheID(),
         usage.op + ": the timing cache knows the plugin again");

  Attached first(loaded, workspace_bytes), second(loaded.clone(), workspace_bytes);
  uint64_t seed = 1;
  for (const ImageSizes& sizes : kWithin) {
    ++seed;
    first.run(usage, sizes, seed);
    second.run(usage, kWithin[seed % kWithin.size()], seed);
  }
  const size_t before = second.error_count();
  first.refuse(usage, kProfile[1]);
  expect(second.error_count() == before, usage.op + ": an error stays with its context");
  first.run(usage, kProfile[2], seed);
  first.continue_in_clone();
  first.run(usage, kProfile[2], seed, false);
}

// The scenes are worth comparing: neither empty nor full.
void expect_partial_coverage() {
  Use use = make_use({"Rasterize", {}}, kProfile[2], 1);
  const int32_t* face_index = use.outputs[0].values<int32_t>();
  const int64_t pixels = use.outputs[0].count();
  const auto covered = std::count_if(face_index, face_index + pixels, [](int32_t face) { return face >= 0; });
  expect(covered > pixels / 5 && covered < pixels * 4 / 5, std::to_string(covered) + " pixels are covered");
}

void expect_no_run_before_shapes(const Plugins& plugins) {
  const Usage usage{"Texture", {}};
  const Plugin plugin = plugins.create(usage.op, usage.fields);
  Use use = make_use(usage, kProfile[1], 1);
  const auto in = descs_of(use.inputs), out = descs_of(use.outputs);
  const void* inputs[] = {use.inputs[0].bytes.data(), use.inputs[1].bytes.data()};
  void* outputs[] = {use.outputs[0].bytes.data()};
  expect(plugin.runtime().enqueue(in.data(), out.data(), inputs, outputs, nullptr, nullptr) != 0,
         "enqueue before onShapeChange is refused");
}

// The engine is told while it is built, and not when it runs.
void expect_no_trilinear_without_mip_level(const Plugins& plugins) {
  const Usage usage{"Texture", {text_field("filter", "trilinear")}};
  const Plugin plugin = plugins.create(usage.op, usage.fields);
  const Use use = make_use({"Texture", {}}, kProfile[1], 1);
  std::vector<nvinfer1::DynamicPluginTensorDesc> descs;
  for (const std::vector<Tensor>* tensors : {&use.inputs, &use.outputs}) {
    for (const Tensor& tensor : *tensors) {
      const nvinfer1::PluginTensorDesc desc = tensor.desc();
      descs.push_back({desc, desc.dims, desc.dims, desc.dims});
    }
  }
  expect(plugin.build().configurePlugin(descs.data(), 2, descs.data() + 2, 1) != 0 &&
             plugins.log.last.find("mip_level must be given") != std::string::npos,
         "trilinear without a mip level is refused: " + plugins.log.last);
}

}  // namespace

void test_lifecycle(const Plugins& plugins) {
  setenv("CUDA_ON_HOST_STREAM", kStreamHandle, 1);
  for (const int optional : {0, 1, 2}) {
    live(plugins, {"Rasterize", {}, DataType::kFLOAT, optional});
  }
  for (const FieldValue& field :
       {int32_field("perspective_correct", 0), text_field("cull", "back"), int32_field("depth_clip", 0)}) {
    live(plugins, {"Rasterize", {field}, DataType::kFLOAT, 2});
  }
  live(plugins, {"SoftMask", {}, DataType::kFLOAT, 0});
  live(plugins, {"SoftMask",
                 {float_field("sigmainv", 100.0f), float_field("boxlen", 0.3f), int32_field("knum", 4)},
                 DataType::kFLOAT,
                 1});
  for (const DataType real : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    for (const int optional : {0, 1}) live(plugins, {"Antialias", {}, real, optional});
    for (const bool shared : {false, true}) {
      live(plugins, {"Interpolate", {}, real, 0, shared});
      for (const std::string filter : {"nearest", "bilinear", "trilinear"}) {
        for (const char* wrap : {"clamp", "repeat", "mirror"}) {
          const int mip_level = filter == "trilinear" ? 1 : 0;
          live(plugins, {"Texture", {text_field("filter", filter), text_field("wrap", wrap)}, real, mip_level, shared});
        }
      }
    }
  }
  for (const char* filter : {"nearest", "bilinear"}) {  // which leave the mip level alone
    live(plugins, {"Texture", {text_field("filter", filter)}, DataType::kFLOAT, 1});
  }
  const std::string all_outputs =
      "color,mask,face_index,depth,barycentrics,uv,interpolated_0,interpolated_1,interpolated_2";
  for (const int optional : {0, 1, 2}) {
    live(plugins, {"Render", {text_field("outputs", all_outputs)}, DataType::kFLOAT, optional, optional == 1});
  }
  for (const char* outputs : {"mask", "color", "uv,mask", "interpolated_1", "face_index,interpolated_0,depth"}) {
    live(plugins, {"Render", {text_field("outputs", outputs), text_field("wrap", "mirror")}});
  }
  live(plugins, {"Render",
                 {text_field("outputs", all_outputs), int32_field("perspective_correct", 0), text_field("cull", "back"),
                  text_field("filter", "nearest"), float_field("sigmainv", 100.0f), float_field("boxlen", 0.3f)},
                 DataType::kHALF,
                 2,
                 false,
                 DataType::kBF16});
  expect_no_run_before_shapes(plugins);
  expect_no_trilinear_without_mip_level(plugins);
  expect_partial_coverage();
}

}  // namespace dibr::test
