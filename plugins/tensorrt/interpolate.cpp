#include "tensorrt/definition.h"

namespace dibr::tensorrt {
namespace {

enum Input { kAttributes, kFaces, kFaceIndex, kBarycentrics };

// A is B, or 1 where the batch shares its attributes.
constexpr Argument kInputs[] = {{"attributes", Type::kReal, {A, V, D}},
                                {"faces", Type::kInt32, {F, 3}},
                                {"face_index", Type::kInt32, {B, H, W}},
                                {"barycentrics", Type::kFloat32, {B, H, W, 3}}};
constexpr Argument kOutputs[] = {{"output", Type::kReal, {B, H, W, D}}};

dibr_interpolate_params make_params(const Problem& problem) {
  dibr_interpolate_params params{};
  params.dtype = problem.dtype;
  params.batch = problem.sizes[B];
  params.attribute_batch = problem.sizes[A];
  params.vertices = problem.sizes[V];
  params.faces = problem.sizes[F];
  params.height = problem.sizes[H];
  params.width = problem.sizes[W];
  params.channels = problem.sizes[D];
  params.attributes = problem.input(kAttributes);
  params.face_indices = problem.input<int32_t>(kFaces);
  params.face_index = problem.input<int32_t>(kFaceIndex);
  params.barycentrics = problem.input(kBarycentrics);
  params.output = problem.output(0);
  return params;
}

}  // namespace

constexpr OpDefinition kInterpolate{
    "Interpolate", {}, kInputs, {}, kOutputs, kCalls<make_params, dibr_interpolate_workspace_size, dibr_interpolate>};

}  // namespace dibr::tensorrt
