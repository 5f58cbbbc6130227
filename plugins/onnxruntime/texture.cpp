#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kTexture, kUv, kMipLevel };

constexpr Argument kInputs[] = {{"texture", Type::kStored}, {"uv", Type::kReal}, {"mip_level", Type::kReal, kOptional}};
constexpr Argument kOutputs[] = {{"output", Type::kStored}};

class Texture : public Kernel {
 public:
  explicit Texture(const Node& node)
      : filter_(node.choice<dibr_filter>("filter", {{"bilinear", DIBR_FILTER_BILINEAR},
                                                    {"nearest", DIBR_FILTER_NEAREST},
                                                    {"trilinear", DIBR_FILTER_TRILINEAR}})),
        wrap_(node.choice<dibr_wrap>(
            "wrap", {{"clamp", DIBR_WRAP_CLAMP}, {"repeat", DIBR_WRAP_REPEAT}, {"mirror", DIBR_WRAP_MIRROR}})) {
    if (filter_ == DIBR_FILTER_TRILINEAR && !node.has_input(kMipLevel)) {
      fail(std::string(node.op()) + ": input mip_level must be given with filter \"trilinear\", got none");
    }
  }

  void compute(const Call& call) const override {
    Size batch{"B"}, channels{"C"}, texture_height{"Ht"}, texture_width{"Wt"}, height{"H"}, width{"W"},
        texture_batch{"A"};
    dibr_texture_params params{};
    params.dtype = call.dtype();
    params.uv = call.input(kUv, {batch, height, width, 2});
    params.mip_level = call.optional_input(kMipLevel, {batch, height, width});
    params.texture = call.input(kTexture, {one_or(batch, texture_batch), channels, texture_height, texture_width});
    params.batch = batch.value;
    params.texture_batch = texture_batch.value;
    params.channels = channels.value;
    params.texture_height = texture_height.value;
    params.texture_width = texture_width.value;
    params.height = height.value;
    params.width = width.value;
    params.filter = filter_;
    params.wrap = wrap_;
    const Workspace workspace = call.workspace(params, dibr_texture_workspace_size);
    params.output = call.output(0, {params.batch, params.height, params.width, params.channels});
    call.run(dibr_texture, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    shapes.set_output(
        0, {shapes.input(kUv, 4, 0), shapes.input(kUv, 4, 1), shapes.input(kUv, 4, 2), shapes.input(kTexture, 4, 1)},
        shapes.input_type(kTexture));
  }

 private:
  dibr_filter filter_;
  dibr_wrap wrap_;
};

}  // namespace

constexpr OpDefinition kTexture{
    "Texture", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Texture>(node); }, Texture::infer_shapes};

}  // namespace dibr::onnxruntime
