#include "tensorrt/definition.h"

namespace dibr::tensorrt {
namespace {

enum FieldIndex {
  kOutputsField,
  kHeight,
  kWidth,
  kPerspectiveCorrect,
  kCull,
  kDepthClip,
  kSigmainv,
  kBoxlen,
  kKnum,
  kFilter,
  kWrap
};
enum Input { kPositions, kFaces, kUvs, kUvFaces, kTextureInput, kFirstAttributes };
constexpr int kFaceRanges = kFirstAttributes + 2 * DIBR_RENDER_ATTRIBUTES, kFaceValid = kFaceRanges + 1;

constexpr const char* kCullChoices[] = {"none", "back"};
constexpr const char* kFilterChoices[] = {"nearest", "bilinear"};
constexpr const char* kWrapChoices[] = {"clamp", "repeat", "mirror"};
constexpr const char* kOutputChoices[] = {"color", "mask",           "face_index",     "depth",         "barycentrics",
                                          "uv",    "interpolated_0", "interpolated_1", "interpolated_2"};
constexpr Field kFields[] = {set_of("outputs", kOutputChoices, DIBR_RENDER_FACE_INDEX),
                             integer("height", 0),
                             integer("width", 0),
                             boolean("perspective_correct", true),
                             choice("cull", kCullChoices, DIBR_CULL_NONE),
                             boolean("depth_clip", true),
                             real("sigmainv", 7000.0f),
                             real("boxlen", 0.02f),
                             integer("knum", 30),
                             choice("filter", kFilterChoices, DIBR_FILTER_BILINEAR),
                             choice("wrap", kWrapChoices, DIBR_WRAP_CLAMP)};

// What no output needs may have any sizes.
constexpr Argument kInputs[] = {{"positions", Type::kFloat32, {B, V, 4}},
                                {"faces", Type::kInt32, {F, 3}},
                                {"uvs", Type::kFloat32, {At, Vt, 2}, kOptional},
                                {"uv_faces", Type::kInt32, {F, 3}, kOptional},
                                {"texture", Type::kTexel, {A, C, Ht, Wt}, kOptional},
                                {"attributes_0", Type::kReal, {A0, V0, D0}, kOptional},
                                {"attribute_faces_0", Type::kInt32, {F, 3}, kOptional},
                                {"attributes_1", Type::kReal, {A1, V1, D1}, kOptional},
                                {"attribute_faces_1", Type::kInt32, {F, 3}, kOptional},
                                {"attributes_2", Type::kReal, {A2, V2, D2}, kOptional},
                                {"attribute_faces_2", Type::kInt32, {F, 3}, kOptional},
                                {"face_ranges", Type::kInt32, {B, 2}, kOptional},
                                {"face_valid", Type::kInt32, {B, F}, kOptional}};
constexpr FieldSize kImageSize[] = {{H, kHeight}, {W, kWidth}};
// In the order of dibr_render_output; a plugin has those that its field lists.
constexpr Argument kOutputs[] = {
    {"color", Type::kTexel, {B, H, W, C}},          {"mask", Type::kFloat32, {B, H, W}},
    {"face_index", Type::kInt32, {B, H, W}},        {"depth", Type::kFloat32, {B, H, W}},
    {"barycentrics", Type::kFloat32, {B, H, W, 3}}, {"uv", Type::kFloat32, {B, H, W, 2}},
    {"interpolated_0", Type::kReal, {B, H, W, D0}}, {"interpolated_1", Type::kReal, {B, H, W, D1}},
    {"interpolated_2", Type::kReal, {B, H, W, D2}}};
constexpr int kOutputCount = sizeof kOutputs / sizeof *kOutputs;
constexpr Size kAttributeSizes[DIBR_RENDER_ATTRIBUTES][3] = {{A0, V0, D0}, {A1, V1, D1}, {A2, V2, D2}};

// The inputs up to the last that an output needs.
int needed_inputs(uint32_t output) {
  if (output >= DIBR_RENDER_FIRST_ATTRIBUTES) {
    int k = 0;
    while (output != uint32_t(DIBR_RENDER_FIRST_ATTRIBUTES) << k) ++k;
    return kFirstAttributes + 2 * k + 2;
  }
  return output == DIBR_RENDER_COLOR ? kTextureInput + 1 : output == DIBR_RENDER_UV ? kUvFaces + 1 : kFaces + 1;
}

void choose_arguments(const Values& fields, std::vector<Argument>* inputs, std::vector<Argument>* outputs) {
  const auto bits = static_cast<uint32_t>(fields[kOutputsField]);
  outputs->clear();
  for (int i = 0; i < kOutputCount; ++i) {
    if ((bits >> i & 1u) == 0) continue;
    outputs->push_back(kOutputs[i]);
    for (int input = 0; input < needed_inputs(1u << i); ++input) (*inputs)[size_t(input)].optional = false;
  }
}

dibr_render_attributes attributes(const Problem& problem, int input, int64_t batch, int64_t vertices,
                                  int64_t channels) {
  dibr_render_attributes a{};
  a.batch = batch;
  a.vertices = vertices;
  a.channels = channels;
  a.values = problem.input(input);
  a.face_indices = problem.input<int32_t>(input + 1);
  return a;
}

dibr_render_params make_params(const Problem& problem) {
  const Sizes& sizes = problem.sizes;
  dibr_render_params params{};
  params.dtype = DIBR_FLOAT32;
  params.texture_dtype = problem.texel_dtype;
  params.attribute_dtype = problem.dtype;
  params.outputs = static_cast<uint32_t>(problem.fields[kOutputsField]);
  params.batch = sizes[B];
  params.vertices = sizes[V];
  params.faces = sizes[F];
  params.height = sizes[H];
  params.width = sizes[W];
  params.perspective_correct = static_cast<int32_t>(problem.fields[kPerspectiveCorrect]);
  params.cull = static_cast<dibr_cull>(problem.fields[kCull]);
  params.depth_clip = static_cast<int32_t>(problem.fields[kDepthClip]);
  params.positions = problem.input(kPositions);
  params.face_indices = problem.input<int32_t>(kFaces);
  params.face_ranges = problem.input<int32_t>(kFaceRanges);
  params.face_valid = problem.input<int32_t>(kFaceValid);
  params.sigmainv = problem.fields[kSigmainv];
  params.boxlen = problem.fields[kBoxlen];
  params.knum = static_cast<int64_t>(problem.fields[kKnum]);
  params.uv = attributes(problem, kUvs, sizes[At], sizes[Vt], 2);
  params.texture_batch = sizes[A];
  params.texture_channels = sizes[C];
  params.texture_height = sizes[Ht];
  params.texture_width = sizes[Wt];
  params.filter = static_cast<dibr_filter>(problem.fields[kFilter]);
  params.wrap = static_cast<dibr_wrap>(problem.fields[kWrap]);
  params.texture = problem.input(kTextureInput);
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    const Size* of = kAttributeSizes[k];
    params.attributes[k] = attributes(problem, kFirstAttributes + 2 * k, sizes[of[0]], sizes[of[1]], sizes[of[2]]);
  }
  int written = 0;
  const auto output = [&](uint32_t name) { return (params.outputs & name) != 0 ? problem.output(written++) : nullptr; };
  params.color = output(DIBR_RENDER_COLOR);
  params.mask = output(DIBR_RENDER_MASK);
  params.face_index = static_cast<int32_t*>(output(DIBR_RENDER_FACE_INDEX));
  params.depth = output(DIBR_RENDER_DEPTH);
  params.barycentrics = output(DIBR_RENDER_BARYCENTRICS);
  params.uv.output = output(DIBR_RENDER_UV);
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    params.attributes[k].output = output(uint32_t(DIBR_RENDER_FIRST_ATTRIBUTES) << k);
  }
  return params;
}

}  // namespace

constexpr OpDefinition kRender{"Render",        kFields,
                               kInputs,         {"image_size", kImageSize},
                               kOutputs,        kCalls<make_params, dibr_render_workspace_size, dibr_render>,
                               choose_arguments};

}  // namespace dibr::tensorrt
