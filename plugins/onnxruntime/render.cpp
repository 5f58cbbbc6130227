#include <string_view>

#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kPositions, kFaces, kUvs, kUvFaces, kTexture, kFirstAttributes };
constexpr size_t kFaceRanges = kFirstAttributes + 2 * DIBR_RENDER_ATTRIBUTES, kFaceValid = kFaceRanges + 1,
                 kImageSize = kFaceValid + 1;

constexpr Argument kInputs[] = {{"positions", Type::kReal},
                                {"faces", Type::kInt32},
                                {"uvs", Type::kReal, kOptional},
                                {"uv_faces", Type::kInt32, kOptional},
                                {"texture", Type::kTexel, kOptional},
                                {"attributes_0", Type::kStored, kOptional},
                                {"attribute_faces_0", Type::kInt32, kOptional},
                                {"attributes_1", Type::kStored, kOptional},
                                {"attribute_faces_1", Type::kInt32, kOptional},
                                {"attributes_2", Type::kStored, kOptional},
                                {"attribute_faces_2", Type::kInt32, kOptional},
                                {"face_ranges", Type::kInt32, kOptional},
                                {"face_valid", Type::kInt32, kOptional},
                                {"image_size", Type::kInt64, kOptional, kOnHost}};
constexpr Argument kOutputs[] = {
    {"color", Type::kTexel, kOptional},           {"mask", Type::kReal, kOptional},
    {"face_index", Type::kInt32, kOptional},      {"depth", Type::kReal, kOptional},
    {"barycentrics", Type::kReal, kOptional},     {"uv", Type::kReal, kOptional},
    {"interpolated_0", Type::kStored, kOptional}, {"interpolated_1", Type::kStored, kOptional},
    {"interpolated_2", Type::kStored, kOptional}};
constexpr int kOutputCount = sizeof kOutputs / sizeof *kOutputs;

constexpr const char* kDefaultOutputs = "face_index";

// Bits of the names in a list with commas. Fails with one sentence where one is unknown.
uint32_t parse_outputs(std::string_view list) {
  uint32_t bits = 0;
  for (std::string_view rest = list; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(name.size() < rest.size() ? name.size() + 1 : rest.size());
    uint32_t bit = 0;
    for (int i = 0; i < kOutputCount; ++i) {
      if (name == kOutputs[i].name) bit = 1u << i;
    }
    if (bit == 0 || (bits & bit) != 0) {
      fail("Render: attribute outputs must list outputs, each once, with commas between them, got \"" +
           std::string(list) + '"');
    }
    bits |= bit;
  }
  if (bits == 0) fail("Render: attribute outputs must list at least one output, got \"\"");
  return bits;
}

class Render : public Kernel {
 public:
  explicit Render(const Node& node)
      : outputs_(parse_outputs(node.text("outputs", kDefaultOutputs))),
        height_(node.integer("height", 0, 0)),
        width_(node.integer("width", 0, 0)),
        perspective_correct_(node.boolean("perspective_correct", true)),
        cull_(node.choice<dibr_cull>("cull", {{"none", DIBR_CULL_NONE}, {"back", DIBR_CULL_BACK}})),
        depth_clip_(node.boolean("depth_clip", true)),
        filter_(
            node.choice<dibr_filter>("filter", {{"bilinear", DIBR_FILTER_BILINEAR}, {"nearest", DIBR_FILTER_NEAREST}})),
        wrap_(node.choice<dibr_wrap>(
            "wrap", {{"clamp", DIBR_WRAP_CLAMP}, {"repeat", DIBR_WRAP_REPEAT}, {"mirror", DIBR_WRAP_MIRROR}})),
        sigmainv_(node.real("sigmainv", 7000.0, false)),
        boxlen_(node.real("boxlen", 0.02, true)),
        knum_(node.integer("knum", 30, 1)) {
    if (!node.has_input(kImageSize) && (height_ < 1 || width_ < 1)) {
      fail("Render: attributes height and width must be at least 1 where the input image_size is absent, got " +
           std::to_string(height_) + " and " + std::to_string(width_));
    }
    for (size_t input = kUvs; input < kFaceRanges; ++input) {
      if (needs(input) && !node.has_input(input)) {
        fail(std::string("Render: ") + kInputs[input].name + " must be given for the attribute outputs, but is absent");
      }
    }
  }

  void compute(const Call& call) const override {
    Size batch{"B"}, vertices{"V"}, faces{"F"};
    dibr_render_params params{};
    params.dtype = call.real_dtype();
    params.texture_dtype = call.texel_dtype();
    params.attribute_dtype = call.dtype();
    params.outputs = outputs_;
    params.positions = call.input(kPositions, {batch, vertices, 4});
    params.face_indices = call.input<int32_t>(kFaces, {faces, 3});
    params.face_ranges = call.optional_input<int32_t>(kFaceRanges, {batch, 2});
    params.face_valid = call.optional_input<int32_t>(kFaceValid, {batch, faces});
    params.batch = batch.value;
    params.vertices = vertices.value;
    params.faces = faces.value;
    params.height = height_;
    params.width = width_;
    if (const int64_t* image_size = call.optional_input<int64_t>(kImageSize, {2})) {
      params.height = image_size[0];
      params.width = image_size[1];
    }
    params.perspective_correct = perspective_correct_;
    params.cull = cull_;
    params.depth_clip = depth_clip_;
    params.filter = filter_;
    params.wrap = wrap_;
    params.sigmainv = sigmainv_;
    params.boxlen = boxlen_;
    params.knum = knum_;
    if (needs(kUvs)) read_attributes(call, kUvs, batch, faces, &params.uv);
    if (needs(kTexture)) read_texture(call, batch, &params);
    for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
      const size_t input = kFirstAttributes + 2 * size_t(k);
      if (needs(input)) read_attributes(call, input, batch, faces, &params.attributes[k]);
    }
    const Workspace workspace = call.workspace(params, dibr_render_workspace_size);
    allocate_outputs(call, &params);
    call.run(dibr_render, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    const std::string listed = shapes.text("outputs");
    const uint32_t outputs = parse_outputs(listed.empty() ? kDefaultOutputs : listed.c_str());
    const Dim batch = shapes.input(kPositions, 3, 0);
    const bool from_attributes = !shapes.has_input(kImageSize);
    const int64_t height_attribute = from_attributes ? shapes.integer("height", 0) : 0;
    const int64_t width_attribute = from_attributes ? shapes.integer("width", 0) : 0;
    const Dim height = height_attribute > 0 ? Dim(height_attribute) : Dim::unknown();
    const Dim width = width_attribute > 0 ? Dim(width_attribute) : Dim::unknown();
    const ONNXTensorElementDataType real = shapes.input_type(kPositions);
    for (int i = 0; i < kOutputCount; ++i) {
      const uint32_t output = 1u << i;
      if ((outputs & output) == 0) continue;
      std::vector<Dim> shape = {batch, height, width};
      ONNXTensorElementDataType type = real;
      if (output == DIBR_RENDER_FACE_INDEX) type = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
      if (output == DIBR_RENDER_BARYCENTRICS) shape.emplace_back(3);
      if (output == DIBR_RENDER_UV) shape.emplace_back(2);
      if (output == DIBR_RENDER_COLOR) {
        shape.push_back(shapes.input(kTexture, 4, 1));
        type = shapes.input_type(kTexture);
      }
      if (output >= DIBR_RENDER_FIRST_ATTRIBUTES) {
        const size_t input = kFirstAttributes + 2 * size_t(i - kOutputCount + DIBR_RENDER_ATTRIBUTES);
        shape.push_back(shapes.input(input, 3, 2));
        type = shapes.input_type(input);
      }
      shapes.set_output(size_t(i), shape, type);
    }
  }

 private:
  bool writes(uint32_t outputs) const { return (outputs_ & outputs) != 0; }

  // Whether an output is made of an input; others stand in their places where a later input is there.
  bool needs(size_t input) const {
    if (input == kUvs || input == kUvFaces) return writes(DIBR_RENDER_COLOR | DIBR_RENDER_UV);
    if (input == kTexture) return writes(DIBR_RENDER_COLOR);
    return writes(DIBR_RENDER_FIRST_ATTRIBUTES << (input - kFirstAttributes) / 2);
  }

  static void read_attributes(const Call& call, size_t input, Size& batch, Size& faces, dibr_render_attributes* out) {
    Size own_batch{"A"}, vertices{"V"}, channels{"D"};
    out->values = call.input(input, {one_or(batch, own_batch), vertices, channels});
    out->face_indices = call.input<int32_t>(input + 1, {faces, 3});
    out->batch = own_batch.value;
    out->vertices = vertices.value;
    out->channels = channels.value;
  }

  static void read_texture(const Call& call, Size& batch, dibr_render_params* params) {
    Size texture_batch{"A"}, channels{"C"}, height{"Ht"}, width{"Wt"};
    params->texture = call.input(kTexture, {one_or(batch, texture_batch), channels, height, width});
    params->texture_batch = texture_batch.value;
    params->texture_channels = channels.value;
    params->texture_height = height.value;
    params->texture_width = width.value;
  }

  void allocate_outputs(const Call& call, dibr_render_params* params) const {
    const auto output = [&](int index, int64_t channels) -> void* {
      if (!writes(1u << index)) return nullptr;
      std::vector<int64_t> shape = {params->batch, params->height, params->width};
      if (channels >= 0) shape.push_back(channels);
      return call.output(size_t(index), shape);
    };
    constexpr int64_t kNoChannels = -1;
    params->color = output(0, params->texture_channels);
    params->mask = output(1, kNoChannels);
    params->face_index = static_cast<int32_t*>(output(2, kNoChannels));
    params->depth = output(3, kNoChannels);
    params->barycentrics = output(4, 3);
    params->uv.output = output(5, 2);
    for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
      params->attributes[k].output = output(6 + k, params->attributes[k].channels);
    }
  }

  uint32_t outputs_;
  int64_t height_, width_;
  bool perspective_correct_;
  dibr_cull cull_;
  bool depth_clip_;
  dibr_filter filter_;
  dibr_wrap wrap_;
  double sigmainv_, boxlen_;
  int64_t knum_;
};

}  // namespace

constexpr OpDefinition kRender{
    "Render", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Render>(node); }, Render::infer_shapes};

}  // namespace dibr::onnxruntime
