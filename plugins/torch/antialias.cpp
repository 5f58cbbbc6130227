#include "torch/ops.h"

namespace dibr::torch_door {
namespace {

// Reads what forward and backward have in common.
template <class Params>
void read_inputs(Call& call, Params& params, const Tensor& image, const Tensor& positions, const Tensor& faces,
                 const Tensor& face_index, const Tensor& barycentrics, const OptionalTensor& face_ranges) {
  Size B{"B"}, V{"V"}, F{"F"}, H{"H"}, W{"W"}, C{"C"};
  params.dtype = call.dtype();
  params.image = call.real("image", image, {B, H, W, C});
  params.positions = call.real_not_half("positions", positions, {B, V, 4});
  params.face_indices = call.int32("faces", faces, {F, 3});
  params.face_index = call.int32("face_index", face_index, {B, H, W});
  params.barycentrics = call.real_not_half("barycentrics", barycentrics, {B, H, W, 3});
  params.face_ranges = call.int32("face_ranges", face_ranges, {B, 2});
  params.batch = B.value;
  params.vertices = V.value;
  params.faces = F.value;
  params.height = H.value;
  params.width = W.value;
  params.channels = C.value;
}

}  // namespace

Tensor antialias(const Tensor& image, const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                 const Tensor& barycentrics, const OptionalTensor& face_ranges) {
  Call call("antialias", "image", image, Dtypes::kRealOrHalf);
  dibr_antialias_params params{};
  read_inputs(call, params, image, positions, faces, face_index, barycentrics, face_ranges);
  call.prepare(params, dibr_antialias_workspace_size);
  Tensor output = call.new_real({params.batch, params.height, params.width, params.channels});
  params.output = output.mutable_data_ptr();
  call.launch(params, dibr_antialias);
  return output;
}

std::tuple<Tensor, Tensor> antialias_backward(const Tensor& image, const Tensor& positions, const Tensor& faces,
                                              const Tensor& face_index, const Tensor& barycentrics,
                                              const OptionalTensor& face_ranges, const Tensor& grad_output,
                                              bool deterministic) {
  Call call("antialias_backward", "image", image);
  dibr_antialias_backward_params params{};
  params.deterministic = deterministic;
  read_inputs(call, params, image, positions, faces, face_index, barycentrics, face_ranges);
  params.grad_output =
      call.real("grad_output", grad_output, {params.batch, params.height, params.width, params.channels});
  call.prepare(params, dibr_antialias_backward_workspace_size);
  Tensor grad_image = call.new_real({params.batch, params.height, params.width, params.channels});
  Tensor grad_positions = call.new_real({params.batch, params.vertices, 4});
  params.grad_image = grad_image.mutable_data_ptr();
  params.grad_positions = grad_positions.mutable_data_ptr();
  call.launch(params, dibr_antialias_backward);
  return {grad_image, grad_positions};
}

}  // namespace dibr::torch_door
