#include "tensorrt/definition.h"

namespace dibr::tensorrt {
namespace {

enum Input { kImage, kPositions, kFaces, kFaceIndex, kBarycentrics, kFaceRanges };

constexpr Argument kInputs[] = {{"image", Type::kReal, {B, H, W, C}},
                                {"positions", Type::kFloat32, {B, V, 4}},
                                {"faces", Type::kInt32, {F, 3}},
                                {"face_index", Type::kInt32, {B, H, W}},
                                {"barycentrics", Type::kFloat32, {B, H, W, 3}},
                                {"face_ranges", Type::kInt32, {B, 2}, kOptional}};
constexpr Argument kOutputs[] = {{"output", Type::kReal, {B, H, W, C}}};

dibr_antialias_params make_params(const Problem& problem) {
  dibr_antialias_params params{};
  params.dtype = problem.dtype;
  params.batch = problem.sizes[B];
  params.vertices = problem.sizes[V];
  params.faces = problem.sizes[F];
  params.height = problem.sizes[H];
  params.width = problem.sizes[W];
  params.channels = problem.sizes[C];
  params.image = problem.input(kImage);
  params.positions = problem.input(kPositions);
  params.face_indices = problem.input<int32_t>(kFaces);
  params.face_ranges = problem.input<int32_t>(kFaceRanges);
  params.face_index = problem.input<int32_t>(kFaceIndex);
  params.barycentrics = problem.input(kBarycentrics);
  params.output = problem.output(0);
  return params;
}

}  // namespace

constexpr OpDefinition kAntialias{
    "Antialias", {}, kInputs, {}, kOutputs, kCalls<make_params, dibr_antialias_workspace_size, dibr_antialias>};

}  // namespace dibr::tensorrt
