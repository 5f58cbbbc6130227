#include "tensorrt_door/uses.h"

#include <random>

namespace dibr::test {
namespace {

size_t size_of(DataType type) { return type == DataType::kHALF || type == DataType::kBF16 ? 2 : 4; }

dibr_dtype dtype_of(DataType type) {
  return type == DataType::kHALF ? DIBR_FLOAT16 : type == DataType::kBF16 ? DIBR_BFLOAT16 : DIBR_FLOAT32;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
  int32_t integer(int64_t low, int64_t high) {
    return int32_t(std::uniform_int_distribution<int64_t>(low, high)(engine_));
  }
  Tensor reals(std::vector<int64_t> shape, float low, float high) {
    Tensor tensor(std::move(shape), DataType::kFLOAT);
    for (int64_t i = 0; i < tensor.count(); ++i) tensor.values<float>()[i] = real(low, high);
    return tensor;
  }
  // Values of a 16-bit type are drawn as bits: halves of exponents around 1, which is bfloat16 near 1 too.
  Tensor stored(std::vector<int64_t> shape, DataType type) {
    if (type == DataType::kFLOAT) return reals(std::move(shape), -1, 1);
    Tensor tensor(std::move(shape), type);
    for (int64_t i = 0; i < tensor.count(); ++i) {
      const int32_t magnitude = type == DataType::kHALF ? integer(0x3000, 0x3BFF) : integer(0x3E00, 0x3F7F);
      tensor.values<uint16_t>()[i] = uint16_t(magnitude | (integer(0, 1) << 15));
    }
    return tensor;
  }
  Tensor integers(std::vector<int64_t> shape, int64_t low, int64_t high) {
    Tensor tensor(std::move(shape), DataType::kINT32);
    for (int64_t i = 0; i < tensor.count(); ++i) tensor.values<int32_t>()[i] = integer(low, high);
    return tensor;
  }

 private:
  std::mt19937_64 engine_;
};

double field(const Usage& usage, const std::string& name, double fallback) {
  for (const FieldValue& value : usage.fields) {
    if (value.name != name) continue;
    if (value.type == PluginFieldType::kFLOAT32) return *reinterpret_cast<const float*>(value.bytes.data());
    return *reinterpret_cast<const int32_t*>(value.bytes.data());
  }
  return fallback;
}

int choice(const Usage& usage, const std::string& name, const std::vector<std::string>& choices, int fallback) {
  for (const FieldValue& value : usage.fields) {
    for (size_t i = 0; value.name == name && i < choices.size(); ++i) {
      if (value.bytes == choices[i]) return int(i);
    }
  }
  return fallback;
}

Tensor make_positions(Random& random, const ImageSizes& s) {
  Tensor positions = random.reals({s.batch, s.vertices, 4}, -1.2f, 1.2f);
  for (int64_t i = 3; i < positions.count(); i += 4) positions.values<float>()[i] = random.real(0.6f, 2.0f);
  return positions;
}

// (start, count) of each image: consecutive shares of the faces.
Tensor make_face_ranges(const ImageSizes& s) {
  Tensor ranges({s.batch, 2}, DataType::kINT32);
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t begin = s.faces * b / s.batch, end = s.faces * (b + 1) / s.batch;
    ranges.values<int32_t>()[2 * b] = int32_t(begin);
    ranges.values<int32_t>()[2 * b + 1] = int32_t(end - begin);
  }
  return ranges;
}

template <class Params>
void set_sizes(const ImageSizes& s, Params* params) {
  params->batch = s.batch;
  params->height = s.height;
  params->width = s.width;
}

template <class Params>
void set_mesh(const ImageSizes& s, Params* params) {
  set_sizes(s, params);
  params->vertices = s.vertices;
  params->faces = s.faces;
}

template <class Params>
void run_on_cpu(const Params& params, dibr_status (*workspace_size)(const Params*, dibr_device, uint64_t*),
                dibr_status (*op)(const Params*, const dibr_launch*)) {
  if (run(params, workspace_size, op, Threads{1}) != DIBR_OK) expect(false, dibr_last_error());
}

void rasterize(const Usage& usage, const ImageSizes& s, Use* use) {
  dibr_rasterize_params params{};
  set_mesh(s, &params);
  params.perspective_correct = int32_t(field(usage, "perspective_correct", 1));
  params.cull = dibr_cull(choice(usage, "cull", {"none", "back"}, 0));
  params.depth_clip = int32_t(field(usage, "depth_clip", 1));
  params.positions = use->inputs[0].bytes.data();
  params.face_indices = use->inputs[1].values<int32_t>();
  if (use->inputs.size() > 2) params.face_ranges = use->inputs[2].values<int32_t>();
  if (use->inputs.size() > 3) params.face_valid = use->inputs[3].values<int32_t>();
  use->outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width}, DataType::kINT32);
  use->outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width, 3}, DataType::kFLOAT);
  use->outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width}, DataType::kFLOAT);
  params.face_index = use->outputs[0].values<int32_t>();
  params.barycentrics = use->outputs[1].bytes.data();
  params.depth = use->outputs[2].bytes.data();
  run_on_cpu(params, dibr_rasterize_workspace_size, dibr_rasterize);
}

Use make_rasterize(const Usage& usage, const ImageSizes& s, Random& random) {
  Use use;
  use.inputs.push_back(make_positions(random, s));
  use.inputs.push_back(random.integers({s.faces, 3}, 0, s.vertices - 1));
  if (usage.optional_inputs > 0) use.inputs.push_back(make_face_ranges(s));
  if (usage.optional_inputs > 1) use.inputs.push_back(random.integers({s.batch, s.faces}, 0, 1));
  rasterize(usage, s, &use);
  return use;
}

Use make_interpolate(const Usage& usage, const ImageSizes& s, Random& random) {
  Use raster = make_rasterize({"Rasterize", {}}, s, random);
  Use use;
  use.inputs.push_back(random.stored({usage.shared ? 1 : s.batch, s.vertices, s.channels}, usage.real));
  use.inputs.push_back(std::move(raster.inputs[1]));
  use.inputs.push_back(std::move(raster.outputs[0]));
  use.inputs.push_back(std::move(raster.outputs[1]));
  use.outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width, s.channels}, usage.real);
  dibr_interpolate_params params{};
  set_mesh(s, &params);
  params.dtype = dtype_of(usage.real);
  params.attribute_batch = use.inputs[0].shape[0];
  params.channels = s.channels;
  params.attributes = use.inputs[0].bytes.data();
  params.face_indices = use.inputs[1].values<int32_t>();
  params.face_index = use.inputs[2].values<int32_t>();
  params.barycentrics = use.inputs[3].bytes.data();
  params.output = use.outputs[0].bytes.data();
  run_on_cpu(params, dibr_interpolate_workspace_size, dibr_interpolate);
  return use;
}

Use make_soft_mask(const Usage& usage, const ImageSizes& s, Random& random) {
  Use use = make_rasterize({"Rasterize", {}, DataType::kFLOAT, usage.optional_inputs}, s, random);
  Tensor face_index = std::move(use.outputs[0]);
  use.outputs.clear();
  use.inputs.insert(use.inputs.begin() + 2, std::move(face_index));
  use.outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width}, DataType::kFLOAT);
  dibr_soft_mask_params params{};
  set_mesh(s, &params);
  params.sigmainv = field(usage, "sigmainv", 7000);
  params.boxlen = field(usage, "boxlen", 0.02f);
  params.knum = int64_t(field(usage, "knum", 30));
  params.positions = use.inputs[0].bytes.data();
  params.face_indices = use.inputs[1].values<int32_t>();
  params.face_index = use.inputs[2].values<int32_t>();
  if (use.inputs.size() > 3) params.face_ranges = use.inputs[3].values<int32_t>();
  params.mask = use.outputs[0].bytes.data();
  run_on_cpu(params, dibr_soft_mask_workspace_size, dibr_soft_mask);
  return use;
}

Use make_antialias(const Usage& usage, const ImageSizes& s, Random& random) {
  Use raster = make_rasterize({"Rasterize", {}, DataType::kFLOAT, usage.optional_inputs}, s, random);
  Use use;
  use.inputs.push_back(random.stored({s.batch, s.height, s.width, s.channels}, usage.real));
  use.inputs.push_back(std::move(raster.inputs[0]));
  use.inputs.push_back(std::move(raster.inputs[1]));
  use.inputs.push_back(std::move(raster.outputs[0]));
  use.inputs.push_back(std::move(raster.outputs[1]));
  if (usage.optional_inputs > 0) use.inputs.push_back(std::move(raster.inputs[2]));
  use.outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width, s.channels}, usage.real);
  dibr_antialias_params params{};
  set_mesh(s, &params);
  params.dtype = dtype_of(usage.real);
  params.channels = s.channels;
  params.image = use.inputs[0].bytes.data();
  params.positions = use.inputs[1].bytes.data();
  params.face_indices = use.inputs[2].values<int32_t>();
  params.face_index = use.inputs[3].values<int32_t>();
  params.barycentrics = use.inputs[4].bytes.data();
  if (use.inputs.size() > 5) params.face_ranges = use.inputs[5].values<int32_t>();
  params.output = use.outputs[0].bytes.data();
  run_on_cpu(params, dibr_antialias_workspace_size, dibr_antialias);
  return use;
}

Use make_texture(const Usage& usage, const ImageSizes& s, Random& random) {
  Use use;
  use.inputs.push_back(
      random.stored({usage.shared ? 1 : s.batch, s.channels, s.texture_height, s.texture_width}, usage.real));
  use.inputs.push_back(random.reals({s.batch, s.height, s.width, 2}, -0.7f, 1.7f));
  if (usage.optional_inputs > 0) use.inputs.push_back(random.reals({s.batch, s.height, s.width}, -0.5f, 4.0f));
  use.outputs.emplace_back(std::vector<int64_t>{s.batch, s.height, s.width, s.channels}, usage.real);
  dibr_texture_params params{};
  set_sizes(s, &params);
  params.dtype = dtype_of(usage.real);
  params.texture_batch = use.inputs[0].shape[0];
  params.channels = s.channels;
  params.texture_height = s.texture_height;
  params.texture_width = s.texture_width;
  params.filter = dibr_filter(choice(usage, "filter", {"nearest", "bilinear", "trilinear"}, 1));
  params.wrap = dibr_wrap(choice(usage, "wrap", {"clamp", "repeat", "mirror"}, 0));
  params.texture = use.inputs[0].bytes.data();
  params.uv = use.inputs[1].bytes.data();
  if (use.inputs.size() > 2) params.mip_level = use.inputs[2].bytes.data();
  params.output = use.outputs[0].bytes.data();
  run_on_cpu(params, dibr_texture_workspace_size, dibr_texture);
  return use;
}

// All inputs in front of the optional face_ranges and face_valid, and of the outputs those that the field lists.
Use make_render(const Usage& usage, const ImageSizes& s, Random& random) {
  Use use;
  use.inputs.push_back(make_positions(random, s));
  use.inputs.push_back(random.integers({s.faces, 3}, 0, s.vertices - 1));
  const int64_t own_batch = usage.shared ? 1 : s.batch, own_vertices = s.vertices + 3;
  use.inputs.push_back(random.reals({own_batch, own_vertices, 2}, -0.7f, 1.7f));
  use.inputs.push_back(random.integers({s.faces, 3}, 0, own_vertices - 1));
  use.inputs.push_back(random.stored({own_batch, s.channels, s.texture_height, s.texture_width}, usage.texel));
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    use.inputs.push_back(random.stored({own_batch, own_vertices, s.channels + k}, usage.real));
    use.inputs.push_back(random.integers({s.faces, 3}, 0, own_vertices - 1));
  }
  if (usage.optional_inputs > 0) use.inputs.push_back(make_face_ranges(s));
  if (usage.optional_inputs > 1) use.inputs.push_back(random.integers({s.batch, s.faces}, 0, 1));

  dibr_render_params params{};
  set_mesh(s, &params);
  params.texture_dtype = dtype_of(usage.texel);
  params.attribute_dtype = dtype_of(usage.real);
  params.perspective_correct = int32_t(field(usage, "perspective_correct", 1));
  params.cull = dibr_cull(choice(usage, "cull", {"none", "back"}, 0));
  params.depth_clip = int32_t(field(usage, "depth_clip", 1));
  params.sigmainv = field(usage, "sigmainv", 7000);
  params.boxlen = field(usage, "boxlen", 0.02f);
  params.knum = int64_t(field(usage, "knum", 30));
  params.filter = dibr_filter(choice(usage, "filter", {"nearest", "bilinear"}, 1));
  params.wrap = dibr_wrap(choice(usage, "wrap", {"clamp", "repeat", "mirror"}, 0));
  params.positions = use.inputs[0].bytes.data();
  params.face_indices = use.inputs[1].values<int32_t>();
  const auto attributes = [&](size_t input) {
    const std::vector<int64_t>& shape = use.inputs[input].shape;
    return dibr_render_attributes{
        shape[0], shape[1], shape[2], use.inputs[input].bytes.data(), use.inputs[input + 1].values<int32_t>(), nullptr};
  };
  params.uv = attributes(2);
  params.texture_batch = own_batch;
  params.texture_channels = s.channels;
  params.texture_height = s.texture_height;
  params.texture_width = s.texture_width;
  params.texture = use.inputs[4].bytes.data();
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) params.attributes[k] = attributes(5 + 2 * size_t(k));
  if (usage.optional_inputs > 0) params.face_ranges = use.inputs[11].values<int32_t>();
  if (usage.optional_inputs > 1) params.face_valid = use.inputs[12].values<int32_t>();

  std::string listed = "face_index";
  for (const FieldValue& value : usage.fields) {
    if (value.name == "outputs") listed = value.bytes;
  }
  const auto output = [&](const std::string& name, uint32_t bit, std::vector<int64_t> channels,
                          DataType type) -> void* {
    if (("," + listed + ",").find("," + name + ",") == std::string::npos) return nullptr;
    params.outputs |= bit;
    std::vector<int64_t> shape = {s.batch, s.height, s.width};
    shape.insert(shape.end(), channels.begin(), channels.end());
    return use.outputs.emplace_back(shape, type).bytes.data();
  };
  use.outputs.reserve(6 + DIBR_RENDER_ATTRIBUTES);
  params.color = output("color", DIBR_RENDER_COLOR, {s.channels}, usage.texel);
  params.mask = output("mask", DIBR_RENDER_MASK, {}, DataType::kFLOAT);
  params.face_index = static_cast<int32_t*>(output("face_index", DIBR_RENDER_FACE_INDEX, {}, DataType::kINT32));
  params.depth = output("depth", DIBR_RENDER_DEPTH, {}, DataType::kFLOAT);
  params.barycentrics = output("barycentrics", DIBR_RENDER_BARYCENTRICS, {3}, DataType::kFLOAT);
  params.uv.output = output("uv", DIBR_RENDER_UV, {2}, DataType::kFLOAT);
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    params.attributes[k].output = output("interpolated_" + std::to_string(k),
                                         uint32_t(DIBR_RENDER_FIRST_ATTRIBUTES) << k, {s.channels + k}, usage.real);
  }
  run_on_cpu(params, dibr_render_workspace_size, dibr_render);
  return use;
}

}  // namespace

Tensor::Tensor(std::vector<int64_t> shape_, DataType type, unsigned char poison)
    : shape(std::move(shape_)), type(type), bytes(uint64_t(count()) * size_of(type), poison) {}

int64_t Tensor::count() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

nvinfer1::PluginTensorDesc Tensor::desc() const {
  nvinfer1::PluginTensorDesc desc{};
  desc.type = type;
  desc.format = nvinfer1::TensorFormat::kLINEAR;
  for (const int64_t size : shape) desc.dims.d[desc.dims.nbDims++] = size;
  return desc;
}

std::vector<nvinfer1::PluginTensorDesc> descs_of(const std::vector<Tensor>& tensors) {
  std::vector<nvinfer1::PluginTensorDesc> descs;
  for (const Tensor& tensor : tensors) descs.push_back(tensor.desc());
  return descs;
}

Use make_use(const Usage& usage, const ImageSizes& sizes, uint64_t seed) {
  Random random(seed);
  if (usage.op == "Rasterize") return make_rasterize(usage, sizes, random);
  if (usage.op == "Interpolate") return make_interpolate(usage, sizes, random);
  if (usage.op == "SoftMask") return make_soft_mask(usage, sizes, random);
  if (usage.op == "Antialias") return make_antialias(usage, sizes, random);
  if (usage.op == "Render") return make_render(usage, sizes, random);
  return make_texture(usage, sizes, random);
}

}  // namespace dibr::test
