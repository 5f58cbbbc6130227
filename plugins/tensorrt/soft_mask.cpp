#include "tensorrt/definition.h"

namespace dibr::tensorrt {
namespace {

enum FieldIndex { kSigmainv, kBoxlen, kKnum };
enum Input { kPositions, kFaces, kFaceIndex, kFaceRanges };

constexpr Field kFields[] = {real("sigmainv", 7000.0f), real("boxlen", 0.02f), integer("knum", 30)};

constexpr Argument kInputs[] = {{"positions", Type::kFloat32, {B, V, 4}},
                                {"faces", Type::kInt32, {F, 3}},
                                {"face_index", Type::kInt32, {B, H, W}},
                                {"face_ranges", Type::kInt32, {B, 2}, kOptional}};
constexpr Argument kOutputs[] = {{"mask", Type::kFloat32, {B, H, W}}};

dibr_soft_mask_params make_params(const Problem& problem) {
  dibr_soft_mask_params params{};
  params.dtype = DIBR_FLOAT32;
  params.batch = problem.sizes[B];
  params.vertices = problem.sizes[V];
  params.faces = problem.sizes[F];
  params.height = problem.sizes[H];
  params.width = problem.sizes[W];
  params.sigmainv = problem.fields[kSigmainv];
  params.boxlen = problem.fields[kBoxlen];
  params.knum = static_cast<int64_t>(problem.fields[kKnum]);
  params.positions = problem.input(kPositions);
  params.face_indices = problem.input<int32_t>(kFaces);
  params.face_ranges = problem.input<int32_t>(kFaceRanges);
  params.face_index = problem.input<int32_t>(kFaceIndex);
  params.mask = problem.output(0);
  return params;
}

}  // namespace

constexpr OpDefinition kSoftMask{
    "SoftMask", kFields, kInputs, {}, kOutputs, kCalls<make_params, dibr_soft_mask_workspace_size, dibr_soft_mask>};

}  // namespace dibr::tensorrt
