#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kPositions, kFaces, kFaceIndex, kFaceRanges };

constexpr Argument kInputs[] = {{"positions", Type::kReal},
                                {"faces", Type::kInt32},
                                {"face_index", Type::kInt32},
                                {"face_ranges", Type::kInt32, kOptional}};
constexpr Argument kOutputs[] = {{"mask", Type::kReal}};

class SoftMask : public Kernel {
 public:
  explicit SoftMask(const Node& node)
      : sigmainv_(node.real("sigmainv", 7000.0, false)),
        boxlen_(node.real("boxlen", 0.02, true)),
        knum_(node.integer("knum", 30, 1)) {}

  void compute(const Call& call) const override {
    Size batch{"B"}, vertices{"V"}, faces{"F"}, height{"H"}, width{"W"};
    dibr_soft_mask_params params{};
    params.dtype = call.dtype();
    params.positions = call.input(kPositions, {batch, vertices, 4});
    params.face_indices = call.input<int32_t>(kFaces, {faces, 3});
    params.face_index = call.input<int32_t>(kFaceIndex, {batch, height, width});
    params.face_ranges = call.optional_input<int32_t>(kFaceRanges, {batch, 2});
    params.batch = batch.value;
    params.vertices = vertices.value;
    params.faces = faces.value;
    params.height = height.value;
    params.width = width.value;
    params.sigmainv = sigmainv_;
    params.boxlen = boxlen_;
    params.knum = knum_;
    const Workspace workspace = call.workspace(params, dibr_soft_mask_workspace_size);
    params.mask = call.output(0, {params.batch, params.height, params.width});
    call.run(dibr_soft_mask, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    shapes.set_output(0,
                      {shapes.input(kFaceIndex, 3, 0), shapes.input(kFaceIndex, 3, 1), shapes.input(kFaceIndex, 3, 2)},
                      shapes.input_type(kPositions));
  }

 private:
  double sigmainv_;
  double boxlen_;
  int64_t knum_;
};

}  // namespace

constexpr OpDefinition kSoftMask{
    "SoftMask", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<SoftMask>(node); },
    SoftMask::infer_shapes};

}  // namespace dibr::onnxruntime
