#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kImage, kPositions, kFaces, kFaceIndex, kBarycentrics, kFaceRanges };

constexpr Argument kInputs[] = {{"image", Type::kStored},      {"positions", Type::kReal},
                                {"faces", Type::kInt32},       {"face_index", Type::kInt32},
                                {"barycentrics", Type::kReal}, {"face_ranges", Type::kInt32, kOptional}};
constexpr Argument kOutputs[] = {{"output", Type::kStored}};

class Antialias : public Kernel {
 public:
  explicit Antialias(const Node&) {}

  void compute(const Call& call) const override {
    Size batch{"B"}, vertices{"V"}, faces{"F"}, height{"H"}, width{"W"}, channels{"C"};
    dibr_antialias_params params{};
    params.dtype = call.dtype();
    params.image = call.input(kImage, {batch, height, width, channels});
    params.positions = call.input(kPositions, {batch, vertices, 4});
    params.face_indices = call.input<int32_t>(kFaces, {faces, 3});
    params.face_index = call.input<int32_t>(kFaceIndex, {batch, height, width});
    params.barycentrics = call.input(kBarycentrics, {batch, height, width, 3});
    params.face_ranges = call.optional_input<int32_t>(kFaceRanges, {batch, 2});
    params.batch = batch.value;
    params.vertices = vertices.value;
    params.faces = faces.value;
    params.height = height.value;
    params.width = width.value;
    params.channels = channels.value;
    const Workspace workspace = call.workspace(params, dibr_antialias_workspace_size);
    params.output = call.output(0, {params.batch, params.height, params.width, params.channels});
    call.run(dibr_antialias, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    shapes.set_output(0,
                      {shapes.input(kImage, 4, 0), shapes.input(kImage, 4, 1), shapes.input(kImage, 4, 2),
                       shapes.input(kImage, 4, 3)},
                      shapes.input_type(kImage));
  }
};

}  // namespace

constexpr OpDefinition kAntialias{
    "Antialias", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Antialias>(node); },
    Antialias::infer_shapes};

}  // namespace dibr::onnxruntime
