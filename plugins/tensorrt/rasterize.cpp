#include "tensorrt/definition.h"

namespace dibr::tensorrt {
namespace {

enum FieldIndex { kHeight, kWidth, kPerspectiveCorrect, kCull, kDepthClip };
enum Input { kPositions, kFaces, kFaceRanges, kFaceValid };
enum Output { kFaceIndex, kBarycentrics, kDepth };

constexpr const char* kCullChoices[] = {"none", "back"};
constexpr Field kFields[] = {integer("height", 0), integer("width", 0), boolean("perspective_correct", true),
                             choice("cull", kCullChoices, DIBR_CULL_NONE), boolean("depth_clip", true)};

constexpr Argument kInputs[] = {{"positions", Type::kFloat32, {B, V, 4}},
                                {"faces", Type::kInt32, {F, 3}},
                                {"face_ranges", Type::kInt32, {B, 2}, kOptional},
                                {"face_valid", Type::kInt32, {B, F}, kOptional}};
constexpr FieldSize kImageSize[] = {{H, kHeight}, {W, kWidth}};
constexpr Argument kOutputs[] = {{"face_index", Type::kInt32, {B, H, W}},
                                 {"barycentrics", Type::kFloat32, {B, H, W, 3}},
                                 {"depth", Type::kFloat32, {B, H, W}}};

dibr_rasterize_params make_params(const Problem& problem) {
  dibr_rasterize_params params{};
  params.dtype = DIBR_FLOAT32;
  params.batch = problem.sizes[B];
  params.vertices = problem.sizes[V];
  params.faces = problem.sizes[F];
  params.height = problem.sizes[H];
  params.width = problem.sizes[W];
  params.perspective_correct = static_cast<int32_t>(problem.fields[kPerspectiveCorrect]);
  params.cull = static_cast<dibr_cull>(problem.fields[kCull]);
  params.depth_clip = static_cast<int32_t>(problem.fields[kDepthClip]);
  params.positions = problem.input(kPositions);
  params.face_indices = problem.input<int32_t>(kFaces);
  params.face_ranges = problem.input<int32_t>(kFaceRanges);
  params.face_valid = problem.input<int32_t>(kFaceValid);
  params.face_index = problem.output<int32_t>(kFaceIndex);
  params.barycentrics = problem.output(kBarycentrics);
  params.depth = problem.output(kDepth);
  return params;
}

}  // namespace

constexpr OpDefinition kRasterize{"Rasterize", kFields,
                                  kInputs,     {"image_size", kImageSize},
                                  kOutputs,    kCalls<make_params, dibr_rasterize_workspace_size, dibr_rasterize>};

}  // namespace dibr::tensorrt
