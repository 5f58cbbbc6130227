#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {
namespace {

enum Input { kPositions, kFaces, kFaceRanges, kFaceValid, kImageSize };
enum Output { kFaceIndex, kBarycentrics, kDepth };

constexpr Argument kInputs[] = {{"positions", Type::kReal},
                                {"faces", Type::kInt32},
                                {"face_ranges", Type::kInt32, kOptional},
                                {"face_valid", Type::kInt32, kOptional},
                                {"image_size", Type::kInt64, kOptional, kOnHost}};
constexpr Argument kOutputs[] = {
    {"face_index", Type::kInt32}, {"barycentrics", Type::kReal}, {"depth", Type::kReal, kOptional}};

class Rasterize : public Kernel {
 public:
  explicit Rasterize(const Node& node)
      : height_(node.integer("height", 0, 0)),
        width_(node.integer("width", 0, 0)),
        perspective_correct_(node.boolean("perspective_correct", true)),
        cull_(node.choice<dibr_cull>("cull", {{"none", DIBR_CULL_NONE}, {"back", DIBR_CULL_BACK}})),
        depth_clip_(node.boolean("depth_clip", true)) {
    if (!node.has_input(kImageSize) && (height_ < 1 || width_ < 1)) {
      fail("Rasterize: attributes height and width must be at least 1 where the input image_size is absent, got " +
           std::to_string(height_) + " and " + std::to_string(width_));
    }
  }

  void compute(const Call& call) const override {
    Size batch{"B"}, vertices{"V"}, faces{"F"};
    dibr_rasterize_params params{};
    params.dtype = call.dtype();
    params.positions = call.input(kPositions, {batch, vertices, 4});
    params.face_indices = call.input<int32_t>(kFaces, {faces, 3});
    params.face_ranges = call.optional_input<int32_t>(kFaceRanges, {batch, 2});
    params.face_valid = call.optional_input<int32_t>(kFaceValid, {batch, faces});
    params.batch = batch.value;
    params.vertices = vertices.value;
    params.faces = faces.value;
    params.height = height_;
    params.width = width_;
    if (const int64_t* image_size = call.optional_input<int64_t>(kImageSize, {2})) {
      params.height = image_size[0];
      params.width = image_size[1];
    }
    params.perspective_correct = perspective_correct_;
    params.cull = cull_;
    params.depth_clip = depth_clip_;
    const Workspace workspace = call.workspace(params, dibr_rasterize_workspace_size);
    params.face_index = call.output<int32_t>(kFaceIndex, {params.batch, params.height, params.width});
    params.barycentrics = call.output(kBarycentrics, {params.batch, params.height, params.width, 3});
    params.depth = call.output(kDepth, {params.batch, params.height, params.width});
    call.run(dibr_rasterize, params, workspace);
  }

  static void infer_shapes(const ShapeInference& shapes) {
    const Dim batch = shapes.input(kPositions, 3, 0);
    const bool from_attributes = !shapes.has_input(kImageSize);
    const int64_t height_attribute = from_attributes ? shapes.integer("height", 0) : 0;
    const int64_t width_attribute = from_attributes ? shapes.integer("width", 0) : 0;
    const Dim height = height_attribute > 0 ? Dim(height_attribute) : Dim::unknown();
    const Dim width = width_attribute > 0 ? Dim(width_attribute) : Dim::unknown();
    const ONNXTensorElementDataType real = shapes.input_type(kPositions);
    shapes.set_output(kFaceIndex, {batch, height, width}, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
    shapes.set_output(kBarycentrics, {batch, height, width, 3}, real);
    shapes.set_output(kDepth, {batch, height, width}, real);
  }

 private:
  int64_t height_, width_;
  bool perspective_correct_;
  dibr_cull cull_;
  bool depth_clip_;
};

}  // namespace

constexpr OpDefinition kRasterize{
    "Rasterize", kInputs, kOutputs,
    [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Rasterize>(node); },
    Rasterize::infer_shapes};

}  // namespace dibr::onnxruntime
