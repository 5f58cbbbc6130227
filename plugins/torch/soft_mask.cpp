#include "torch/ops.h"

namespace dibr::torch_door {
namespace {

// Reads what forward and backward have in common.
template <class Params>
void read_inputs(Call& call, Params& params, const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                 const OptionalTensor& face_ranges, double sigmainv, double boxlen, int64_t knum) {
  Size B{"B"}, V{"V"}, F{"F"}, H{"H"}, W{"W"};
  params.dtype = call.dtype();
  params.positions = call.real("positions", positions, {B, V, 4});
  params.face_indices = call.int32("faces", faces, {F, 3});
  params.face_index = call.int32("face_index", face_index, {B, H, W});
  params.face_ranges = call.int32("face_ranges", face_ranges, {B, 2});
  params.batch = B.value;
  params.vertices = V.value;
  params.faces = F.value;
  params.height = H.value;
  params.width = W.value;
  params.sigmainv = sigmainv;
  params.boxlen = boxlen;
  params.knum = knum;
}

// The bytes of `kept`, where it is given: they must be as many as soft_mask_keeping returns for these arguments.
const void* read_kept(Call& call, const dibr_soft_mask_backward_params& of, const OptionalTensor& kept) {
  dibr_soft_mask_params params{};
  params.dtype = of.dtype;
  params.batch = of.batch;
  params.vertices = of.vertices;
  params.faces = of.faces;
  params.height = of.height;
  params.width = of.width;
  params.sigmainv = of.sigmainv;
  params.boxlen = of.boxlen;
  params.knum = of.knum;
  params.keep = 1;
  const int64_t bytes = call.workspace_size(params, dibr_soft_mask_workspace_size);
  return call.bytes("kept", kept, {bytes});
}

Tensor masked(Call& call, dibr_soft_mask_params& params) {
  call.prepare(params, dibr_soft_mask_workspace_size);
  Tensor mask = call.new_real({params.batch, params.height, params.width});
  params.mask = mask.mutable_data_ptr();
  call.launch(params, dibr_soft_mask);
  return mask;
}

}  // namespace

Tensor soft_mask(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                 const OptionalTensor& face_ranges, double sigmainv, double boxlen, int64_t knum) {
  Call call("soft_mask", "positions", positions);
  dibr_soft_mask_params params{};
  read_inputs(call, params, positions, faces, face_index, face_ranges, sigmainv, boxlen, knum);
  return masked(call, params);
}

std::tuple<Tensor, Tensor> soft_mask_keeping(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                                             const OptionalTensor& face_ranges, double sigmainv, double boxlen,
                                             int64_t knum) {
  Call call("soft_mask_keeping", "positions", positions);
  dibr_soft_mask_params params{};
  read_inputs(call, params, positions, faces, face_index, face_ranges, sigmainv, boxlen, knum);
  params.keep = 1;
  Tensor mask = masked(call, params);
  return {mask, call.workspace()};
}

Tensor soft_mask_backward(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                          const OptionalTensor& face_ranges, const Tensor& grad_mask, double sigmainv, double boxlen,
                          int64_t knum, bool deterministic, const OptionalTensor& kept) {
  Call call("soft_mask_backward", "positions", positions);
  dibr_soft_mask_backward_params params{};
  params.deterministic = deterministic;
  read_inputs(call, params, positions, faces, face_index, face_ranges, sigmainv, boxlen, knum);
  params.grad_mask = call.real("grad_mask", grad_mask, {params.batch, params.height, params.width});
  params.kept = kept ? read_kept(call, params, kept) : nullptr;
  call.prepare(params, dibr_soft_mask_backward_workspace_size);
  Tensor grad_positions = call.new_real({params.batch, params.vertices, 4});
  params.grad_positions = grad_positions.mutable_data_ptr();
  call.launch(params, dibr_soft_mask_backward);
  return grad_positions;
}

}  // namespace dibr::torch_door
