#include <stdexcept>
#include <string>

#include "torch/ops.h"

namespace dibr::torch_door {
namespace {

constexpr const char* kAttributes[] = {"attributes[0]", "attributes[1]", "attributes[2]"};
constexpr const char* kAttributeFaces[] = {"attribute_faces[0]", "attribute_faces[1]", "attribute_faces[2]"};

// What the attributes are called in messages, and their own sizes.
struct Group {
  const char *values, *faces;
  Size A{"A"}, V{"V"}, D{"D"};
};

void read_group(Call& call, dibr_render_attributes& out, Group& group, const void* values, const Tensor& faces,
                Size& F) {
  out.values = values;
  out.face_indices = call.int32(group.faces, faces, {F, 3});
  out.batch = group.A.value;
  out.vertices = group.V.value;
  out.channels = group.D.value;
}

}  // namespace

std::vector<Tensor> render(const Tensor& positions, const Tensor& faces, const OptionalTensor& face_ranges,
                           const OptionalTensor& face_valid, const OptionalTensor& uvs, const OptionalTensor& uv_faces,
                           const OptionalTensor& texture, const std::vector<Tensor>& attributes,
                           const std::vector<Tensor>& attribute_faces, int64_t height, int64_t width,
                           bool perspective_correct, int64_t cull, bool depth_clip, double sigmainv, double boxlen,
                           int64_t knum, int64_t filter, int64_t wrap, int64_t outputs) {
  Size B{"B"}, V{"V"}, F{"F"};
  Call call("render", "positions", positions);
  dibr_render_params params{};
  params.dtype = call.dtype();
  params.texture_dtype = params.attribute_dtype = params.dtype;
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
  params.sigmainv = sigmainv;
  params.boxlen = boxlen;
  params.knum = knum;
  params.filter = call.choice<dibr_filter>("filter", filter, 2);
  params.wrap = call.choice<dibr_wrap>("wrap", wrap, 3);
  params.outputs = static_cast<uint32_t>(outputs);
  if (uvs && uv_faces) {
    Group group{"uvs", "uv_faces"};
    const void* values = call.real("uvs", uvs, {group.A, group.V, group.D});
    read_group(call, params.uv, group, values, *uv_faces, F);
  }
  if (texture) {
    Size A{"A"}, C{"C"}, Ht{"Ht"}, Wt{"Wt"};
    params.texture = call.stored("texture", *texture, {A, C, Ht, Wt}, &params.texture_dtype);
    params.texture_batch = A.value;
    params.texture_channels = C.value;
    params.texture_height = Ht.value;
    params.texture_width = Wt.value;
  }
  for (size_t k = 0; k < attributes.size() && k < attribute_faces.size() && k < DIBR_RENDER_ATTRIBUTES; ++k) {
    Group group{kAttributes[k], kAttributeFaces[k]};
    dibr_dtype dtype;
    const void* values = call.stored(group.values, attributes[k], {group.A, group.V, group.D}, &dtype);
    if (k > 0 && dtype != params.attribute_dtype) {
      throw std::runtime_error("render: " + std::string(group.values) + " must have the dtype of attributes[0]");
    }
    params.attribute_dtype = dtype;
    read_group(call, params.attributes[k], group, values, attribute_faces[k], F);
  }
  call.prepare(params, dibr_render_workspace_size);

  const int64_t b = B.value;
  std::vector<Tensor> results;
  // Memory of an output that is asked for, else NULL.
  const auto output = [&](uint32_t name, const auto& make) -> void* {
    return (params.outputs & name) != 0 ? results.emplace_back(make()).mutable_data_ptr() : nullptr;
  };
  params.color = output(DIBR_RENDER_COLOR, [&] {
    return call.new_stored(params.texture_dtype, {b, height, width, params.texture_channels});
  });
  params.mask = output(DIBR_RENDER_MASK, [&] { return call.new_real({b, height, width}); });
  params.face_index =
      static_cast<int32_t*>(output(DIBR_RENDER_FACE_INDEX, [&] { return call.new_int32({b, height, width}); }));
  params.depth = output(DIBR_RENDER_DEPTH, [&] { return call.new_real({b, height, width}); });
  params.barycentrics = output(DIBR_RENDER_BARYCENTRICS, [&] { return call.new_real({b, height, width, 3}); });
  params.uv.output = output(DIBR_RENDER_UV, [&] { return call.new_real({b, height, width, 2}); });
  for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
    dibr_render_attributes& a = params.attributes[k];
    a.output = output(DIBR_RENDER_FIRST_ATTRIBUTES << k,
                      [&] { return call.new_stored(params.attribute_dtype, {b, height, width, a.channels}); });
  }
  call.launch(params, dibr_render);
  return results;
}

}  // namespace dibr::torch_door
