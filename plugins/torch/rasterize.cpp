#include "torch/ops.h"

namespace dibr::torch_door {

std::tuple<Tensor, Tensor, Tensor> rasterize(const Tensor& positions, const Tensor& faces,
                                             const OptionalTensor& face_ranges, const OptionalTensor& face_valid,
                                             int64_t height, int64_t width, bool perspective_correct, int64_t cull,
                                             bool depth_clip) {
  Size B{"B"}, V{"V"}, F{"F"};
  Call call("rasterize", "positions", positions);
  dibr_rasterize_params params{};
  params.dtype = call.dtype();
  params.positions = call.real("positions", positions, {B, V, 4});
  params.face_indices = call.int32("faces", faces, {F, 3});
  params.face_ranges = call.int32("face_ranges", face_ranges, {B, 2});
  params.face_valid = call.int32("face_valid", face_valid, {B, F});
  params.batch = B.value;
  params.vertices = V.value;
  params.faces = F.value;
  params.height = height;
  params.width = width;
  params.perspective_correct = perspective_correct;
  params.cull = call.choice<dibr_cull>("cull", cull, 2);
  params.depth_clip = depth_clip;
  call.prepare(params, dibr_rasterize_workspace_size);
  Tensor face_index = call.new_int32({B.value, height, width});
  Tensor barycentrics = call.new_real({B.value, height, width, 3});
  Tensor depth = call.new_real({B.value, height, width});
  params.face_index = static_cast<int32_t*>(face_index.mutable_data_ptr());
  params.barycentrics = barycentrics.mutable_data_ptr();
  params.depth = depth.mutable_data_ptr();
  call.launch(params, dibr_rasterize);
  return {face_index, barycentrics, depth};
}

Tensor rasterize_backward(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                          const OptionalTensor& barycentrics, const OptionalTensor& grad_barycentrics,
                          const OptionalTensor& grad_depth, bool perspective_correct, bool deterministic) {
  Size B{"B"}, V{"V"}, F{"F"}, H{"H"}, W{"W"};
  Call call("rasterize_backward", "positions", positions);
  dibr_rasterize_backward_params params{};
  params.dtype = call.dtype();
  params.deterministic = deterministic;
  params.positions = call.real("positions", positions, {B, V, 4});
  params.face_indices = call.int32("faces", faces, {F, 3});
  params.face_index = call.int32("face_index", face_index, {B, H, W});
  params.barycentrics = call.real("barycentrics", barycentrics, {B, H, W, 3});
  params.grad_barycentrics = call.real("grad_barycentrics", grad_barycentrics, {B, H, W, 3});
  params.grad_depth = call.real("grad_depth", grad_depth, {B, H, W});
  params.batch = B.value;
  params.vertices = V.value;
  params.faces = F.value;
  params.height = H.value;
  params.width = W.value;
  params.perspective_correct = perspective_correct;
  call.prepare(params, dibr_rasterize_backward_workspace_size);
  Tensor grad_positions = call.new_real({B.value, V.value, 4});
  params.grad_positions = grad_positions.mutable_data_ptr();
  call.launch(params, dibr_rasterize_backward);
  return grad_positions;
}

}  // namespace dibr::torch_door
