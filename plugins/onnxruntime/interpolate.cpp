#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kAttributes, kFaces, kFaceIndex, kBarycentrics };

constexpr Argument kInputs[] = {{"attributes", Type::kStored},
                                {"faces", Type::kInt32},
                                {"face_index", Type::kInt32},
                                {"barycentrics", Type::kReal}};
constexpr Argument kOutputs[] = {{"output", Type::kStored}};

class Interpolate : public Kernel {
 public:
  explicit Interpolate(const Node&) {}

  void compute(const Call& call) const override {
    Size batch{"B"}, vertices{"V"}, faces{"F"}, height{"H"}, width{"W"}, channels{"D"}, attribute_batch{"A"};
    dibr_interpolate_params params{};
    params.dtype = call.dtype();
    params.face_index = call.input<int32_t>(kFaceIndex, {batch, height, width});
    params.barycentrics = call.input(kBarycentrics, {batch, height, width, 3});
    params.face_indices = call.input<int32_t>(kFaces, {faces, 3});
    params.attributes = call.input(kAttributes, {one_or(batch, attribute_batch), vertices, channels});
    params.batch = batch.value;
    params.attribute_batch = attribute_batch.value;
    params.vertices = vertices.value;
    params.faces = faces.value;
    params.height = height.value;
    params.width = width.value;
    params.channels = channels.value;
    const Workspace workspace = call.workspace(params, dibr_interpolate_workspace_size);
    params.output = call.output(0, {params.batch, params.height, params.width, params.channels});
    call.run(dibr_interpolate, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    shapes.set_output(0,
                      {shapes.input(kFaceIndex, 3, 0), shapes.input(kFaceIndex, 3, 1), shapes.input(kFaceIndex, 3, 2),
                       shapes.input(kAttributes, 3, 2)},
                      shapes.input_type(kAttributes));
  }
};

}  // namespace

constexpr OpDefinition kInterpolate{
    "Interpolate", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Interpolate>(node); },
    Interpolate::infer_shapes};

}  // namespace dibr::onnxruntime
