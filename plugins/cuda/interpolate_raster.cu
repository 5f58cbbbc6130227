// The gradient of Interpolate over a raster on CUDA: those of Interpolate and Rasterize, one after the other.
#include <algorithm>

#include "abi/backend.h"
#include "abi/dispatch.h"

namespace dibr::cuda {
namespace {

using Params = dibr_interpolate_raster_backward_params;

dibr_interpolate_backward_params of_interpolate(const Params& p, void* grad_barycentrics) {
  dibr_interpolate_backward_params out{};
  out.dtype = p.dtype;
  out.deterministic = p.deterministic;
  out.batch = p.batch;
  out.attribute_batch = p.attribute_batch;
  out.vertices = p.vertices;
  out.faces = p.faces;
  out.height = p.height;
  out.width = p.width;
  out.channels = p.channels;
  out.attributes = p.attributes;
  out.face_indices = p.face_indices;
  out.face_index = p.face_index;
  out.barycentrics = p.barycentrics;
  out.grad_output = p.grad_output;
  out.grad_attributes = p.grad_attributes;
  out.grad_barycentrics = grad_barycentrics;
  return out;
}

dibr_rasterize_backward_params of_rasterize(const Params& p, const void* grad_barycentrics) {
  dibr_rasterize_backward_params out{};
  out.dtype = p.dtype;
  out.deterministic = p.deterministic;
  out.batch = p.batch;
  out.vertices = p.raster_vertices;
  out.faces = p.faces;
  out.height = p.height;
  out.width = p.width;
  out.perspective_correct = p.perspective_correct;
  out.positions = p.positions;
  out.face_indices = p.raster_face_indices;
  out.face_index = p.face_index;
  out.barycentrics = p.barycentrics;
  out.grad_barycentrics = grad_barycentrics;
  out.grad_positions = p.grad_positions;
  return out;
}

struct Workspace {
  void* grad_barycentrics;
  char* shared;  // by the two, one after the other
};

dibr_status take(const Params& p, Arena& arena, Workspace* out) {
  dispatch(p.dtype,
           [&](auto t) { out->grad_barycentrics = arena.take<decltype(t)>(p.batch * p.height * p.width * 3); });
  Arena first, second;
  if (const dibr_status status = interpolate_backward_workspace(of_interpolate(p, nullptr), first)) return status;
  if (const dibr_status status = rasterize_backward_workspace(of_rasterize(p, nullptr), second)) return status;
  out->shared = arena.take<char>(int64_t(std::max(first.used(), second.used())));
  return DIBR_OK;
}

}  // namespace

dibr_status interpolate_raster_backward_workspace(const Params& p, Arena& arena) {
  Workspace workspace;
  return take(p, arena, &workspace);
}
dibr_status interpolate_raster_backward(const Params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  Workspace workspace;
  if (const dibr_status status = take(p, arena, &workspace)) return status;
  dibr_launch inner = launch;
  inner.workspace = workspace.shared;
  if (const dibr_status status = interpolate_backward(of_interpolate(p, workspace.grad_barycentrics), inner)) {
    return status;
  }
  return rasterize_backward(of_rasterize(p, workspace.grad_barycentrics), inner);
}

}  // namespace dibr::cuda
