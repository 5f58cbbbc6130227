#include "tensorrt/definition.h"
#include "tensorrt/report.h"

namespace dibr::tensorrt {
namespace {

enum FieldIndex { kFilter, kWrap };
enum Input { kTextureInput, kUv, kMipLevel };

constexpr const char* kFilterChoices[] = {"nearest", "bilinear", "trilinear"};
constexpr const char* kWrapChoices[] = {"clamp", "repeat", "mirror"};
constexpr Field kFields[] = {choice("filter", kFilterChoices, DIBR_FILTER_BILINEAR),
                             choice("wrap", kWrapChoices, DIBR_WRAP_CLAMP)};

// A is B, or 1 where the batch shares its texture.
constexpr Argument kInputs[] = {{"texture", Type::kReal, {A, C, Ht, Wt}},
                                {"uv", Type::kFloat32, {B, H, W, 2}},
                                {"mip_level", Type::kFloat32, {B, H, W}, kOptional}};
constexpr Argument kOutputs[] = {{"output", Type::kReal, {B, H, W, C}}};

dibr_texture_params make_params(const Problem& problem) {
  dibr_texture_params params{};
  // Where fields alone are checked there are no inputs yet.
  if (problem.fields[kFilter] == DIBR_FILTER_TRILINEAR && problem.input_count == kMipLevel) {
    fail("Texture: input mip_level must be given with filter \"trilinear\", got none");
  }
  params.dtype = problem.dtype;
  params.batch = problem.sizes[B];
  params.texture_batch = problem.sizes[A];
  params.channels = problem.sizes[C];
  params.texture_height = problem.sizes[Ht];
  params.texture_width = problem.sizes[Wt];
  params.height = problem.sizes[H];
  params.width = problem.sizes[W];
  params.filter = static_cast<dibr_filter>(problem.fields[kFilter]);
  params.wrap = static_cast<dibr_wrap>(problem.fields[kWrap]);
  params.texture = problem.input(kTextureInput);
  params.uv = problem.input(kUv);
  params.mip_level = problem.input(kMipLevel);
  params.output = problem.output(0);
  return params;
}

}  // namespace

constexpr OpDefinition kTexture{"Texture", kFields,  kInputs,
                                {},        kOutputs, kCalls<make_params, dibr_texture_workspace_size, dibr_texture>};

}  // namespace dibr::tensorrt
