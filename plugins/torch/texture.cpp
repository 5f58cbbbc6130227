#include "torch/ops.h"

namespace dibr::torch_door {
namespace {

// Reads what forward and backward have in common. The batch size is uv's: the texture may be shared.
template <class Params>
void read_inputs(Call& call, Params& params, const Tensor& texture, const Tensor& uv, const OptionalTensor& mip_level,
                 int64_t filter, int64_t wrap) {
  Size A{"A"}, B{"B"}, C{"C"}, Ht{"Ht"}, Wt{"Wt"}, H{"H"}, W{"W"};
  params.dtype = call.dtype();
  params.texture = call.real("texture", texture, {A, C, Ht, Wt});
  params.uv = call.real_not_half("uv", uv, {B, H, W, 2});
  params.mip_level = call.real_not_half("mip_level", mip_level, {B, H, W});
  params.batch = B.value;
  params.texture_batch = A.value;
  params.channels = C.value;
  params.texture_height = Ht.value;
  params.texture_width = Wt.value;
  params.height = H.value;
  params.width = W.value;
  params.filter = call.choice<dibr_filter>("filter", filter, 3);
  params.wrap = call.choice<dibr_wrap>("wrap", wrap, 3);
}

}  // namespace

Tensor texture(const Tensor& texture, const Tensor& uv, const OptionalTensor& mip_level, int64_t filter, int64_t wrap) {
  Call call("texture", "texture", texture, Dtypes::kRealOrHalf);
  dibr_texture_params params{};
  read_inputs(call, params, texture, uv, mip_level, filter, wrap);
  call.prepare(params, dibr_texture_workspace_size);
  Tensor output = call.new_real({params.batch, params.height, params.width, params.channels});
  params.output = output.mutable_data_ptr();
  call.launch(params, dibr_texture);
  return output;
}

// The gradient of an absent mip level is empty.
std::tuple<Tensor, Tensor, Tensor> texture_backward(const Tensor& texture, const Tensor& uv,
                                                    const OptionalTensor& mip_level, const Tensor& grad_output,
                                                    int64_t filter, int64_t wrap, bool deterministic) {
  Call call("texture_backward", "texture", texture);
  dibr_texture_backward_params params{};
  params.deterministic = deterministic;
  read_inputs(call, params, texture, uv, mip_level, filter, wrap);
  params.grad_output =
      call.real("grad_output", grad_output, {params.batch, params.height, params.width, params.channels});
  call.prepare(params, dibr_texture_backward_workspace_size);
  Tensor grad_texture =
      call.new_real({params.texture_batch, params.channels, params.texture_height, params.texture_width});
  Tensor grad_uv = call.new_real({params.batch, params.height, params.width, 2});
  params.grad_texture = grad_texture.mutable_data_ptr();
  params.grad_uv = grad_uv.mutable_data_ptr();
  Tensor grad_mip_level = mip_level ? call.new_real({params.batch, params.height, params.width}) : call.new_real({0});
  if (mip_level) params.grad_mip_level = grad_mip_level.mutable_data_ptr();
  call.launch(params, dibr_texture_backward);
  return {grad_texture, grad_uv, grad_mip_level};
}

}  // namespace dibr::torch_door
