#include "torch/ops.h"

namespace dibr::torch_door {
namespace {

// Reads what forward and backward have in common. The batch size is face_index's: attributes may be shared.
template <class Params>
void read_inputs(Call& call, Params& params, const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                 const Tensor& barycentrics) {
  Size A{"A"}, B{"B"}, V{"V"}, D{"D"}, F{"F"}, H{"H"}, W{"W"};
  params.dtype = call.dtype();
  params.attributes = call.real("attributes", attributes, {A, V, D});
  params.face_indices = call.int32("faces", faces, {F, 3});
  params.face_index = call.int32("face_index", face_index, {B, H, W});
  params.barycentrics = call.real_not_half("barycentrics", barycentrics, {B, H, W, 3});
  params.batch = B.value;
  params.attribute_batch = A.value;
  params.vertices = V.value;
  params.faces = F.value;
  params.height = H.value;
  params.width = W.value;
  params.channels = D.value;
}

// Empty where they are not needed.
template <class Params>
Tensor new_attributes(const Call& call, const Params& params, bool needed) {
  return needed ? call.new_real({params.attribute_batch, params.vertices, params.channels}) : call.new_real({0});
}

}  // namespace

Tensor interpolate(const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                   const Tensor& barycentrics) {
  Call call("interpolate", "attributes", attributes, Dtypes::kRealOrHalf);
  dibr_interpolate_params params{};
  read_inputs(call, params, attributes, faces, face_index, barycentrics);
  call.prepare(params, dibr_interpolate_workspace_size);
  Tensor output = call.new_real({params.batch, params.height, params.width, params.channels});
  params.output = output.mutable_data_ptr();
  call.launch(params, dibr_interpolate);
  return output;
}

std::tuple<Tensor, Tensor> interpolate_backward(const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                                                const Tensor& barycentrics, const Tensor& grad_output,
                                                bool needs_attributes, bool needs_barycentrics, bool deterministic) {
  Call call("interpolate_backward", "attributes", attributes);
  dibr_interpolate_backward_params params{};
  params.deterministic = deterministic;
  read_inputs(call, params, attributes, faces, face_index, barycentrics);
  params.grad_output =
      call.real("grad_output", grad_output, {params.batch, params.height, params.width, params.channels});
  call.prepare(params, dibr_interpolate_backward_workspace_size);
  Tensor grad_attributes = new_attributes(call, params, needs_attributes);
  Tensor grad_barycentrics =
      needs_barycentrics ? call.new_real({params.batch, params.height, params.width, 3}) : call.new_real({0});
  params.grad_attributes = needs_attributes ? grad_attributes.mutable_data_ptr() : nullptr;
  params.grad_barycentrics = needs_barycentrics ? grad_barycentrics.mutable_data_ptr() : nullptr;
  call.launch(params, dibr_interpolate_backward);
  return {grad_attributes, grad_barycentrics};
}

// The positions are what gradients go to; the output does not depend on them.
Tensor interpolate_raster(const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                          const Tensor& barycentrics, const Tensor&, const Tensor&, bool) {
  return interpolate(attributes, faces, face_index, barycentrics);
}

std::tuple<Tensor, Tensor> interpolate_raster_backward(const Tensor& attributes, const Tensor& faces,
                                                       const Tensor& face_index, const Tensor& barycentrics,
                                                       const Tensor& positions, const Tensor& raster_faces,
                                                       const Tensor& grad_output, bool perspective_correct,
                                                       bool needs_attributes, bool deterministic) {
  Call call("interpolate_raster_backward", "attributes", attributes);
  dibr_interpolate_raster_backward_params params{};
  params.deterministic = deterministic;
  params.perspective_correct = perspective_correct;
  read_inputs(call, params, attributes, faces, face_index, barycentrics);
  Size R{"R"};
  params.positions = call.real("positions", positions, {params.batch, R, 4});
  params.raster_face_indices = call.int32("raster_faces", raster_faces, {params.faces, 3});
  params.raster_vertices = R.value;
  params.grad_output =
      call.real("grad_output", grad_output, {params.batch, params.height, params.width, params.channels});
  call.prepare(params, dibr_interpolate_raster_backward_workspace_size);
  Tensor grad_attributes = new_attributes(call, params, needs_attributes);
  Tensor grad_positions = call.new_real({params.batch, R.value, 4});
  params.grad_attributes = needs_attributes ? grad_attributes.mutable_data_ptr() : nullptr;
  params.grad_positions = grad_positions.mutable_data_ptr();
  call.launch(params, dibr_interpolate_raster_backward);
  return {grad_attributes, grad_positions};
}

}  // namespace dibr::torch_door
