// Registers the ops with torch through its stable ABI. dibr_deploy/ops.py adds shapes (fake kernels) and autograd.
#include <torch/csrc/stable/library.h>

#include "torch/ops.h"

namespace door = dibr::torch_door;

STABLE_TORCH_LIBRARY(dibr, library) {
  library.def(
      "rasterize(Tensor positions, Tensor faces, Tensor? face_ranges, Tensor? face_valid, SymInt height, "
      "SymInt width, bool perspective_correct, int cull, bool depth_clip) "
      "-> (Tensor face_index, Tensor barycentrics, Tensor depth)");
  library.def(
      "rasterize_backward(Tensor positions, Tensor faces, Tensor face_index, Tensor? barycentrics, "
      "Tensor? grad_barycentrics, Tensor? grad_depth, bool perspective_correct, bool deterministic=False) -> Tensor");
  library.def("interpolate(Tensor attributes, Tensor faces, Tensor face_index, Tensor barycentrics) -> Tensor");
  library.def(
      "interpolate_backward(Tensor attributes, Tensor faces, Tensor face_index, Tensor barycentrics, "
      "Tensor grad_output, bool needs_attributes=True, bool needs_barycentrics=True, bool deterministic=False) "
      "-> (Tensor grad_attributes, Tensor grad_barycentrics)");
  library.def(
      "interpolate_raster(Tensor attributes, Tensor faces, Tensor face_index, Tensor barycentrics, Tensor positions, "
      "Tensor raster_faces, bool perspective_correct) -> Tensor");
  library.def(
      "interpolate_raster_backward(Tensor attributes, Tensor faces, Tensor face_index, Tensor barycentrics, "
      "Tensor positions, Tensor raster_faces, Tensor grad_output, bool perspective_correct, "
      "bool needs_attributes=True, bool deterministic=False) -> (Tensor grad_attributes, Tensor grad_positions)");
  library.def(
      "soft_mask(Tensor positions, Tensor faces, Tensor face_index, Tensor? face_ranges, float sigmainv, "
      "float boxlen, int knum) -> Tensor");
  library.def(
      "soft_mask_keeping(Tensor positions, Tensor faces, Tensor face_index, Tensor? face_ranges, float sigmainv, "
      "float boxlen, int knum) -> (Tensor mask, Tensor kept)");
  library.def(
      "soft_mask_backward(Tensor positions, Tensor faces, Tensor face_index, Tensor? face_ranges, "
      "Tensor grad_mask, float sigmainv, float boxlen, int knum, bool deterministic=False, Tensor? kept=None) "
      "-> Tensor");
  library.def("texture(Tensor texture, Tensor uv, Tensor? mip_level, int filter, int wrap) -> Tensor");
  library.def(
      "texture_backward(Tensor texture, Tensor uv, Tensor? mip_level, Tensor grad_output, int filter, int wrap, "
      "bool deterministic=False) "
      "-> (Tensor grad_texture, Tensor grad_uv, Tensor grad_mip_level)");
  library.def(
      "antialias(Tensor image, Tensor positions, Tensor faces, Tensor face_index, Tensor barycentrics, "
      "Tensor? face_ranges) -> Tensor");
  library.def(
      "antialias_backward(Tensor image, Tensor positions, Tensor faces, Tensor face_index, Tensor barycentrics, "
      "Tensor? face_ranges, Tensor grad_output, bool deterministic=False) "
      "-> (Tensor grad_image, Tensor grad_positions)");
  library.def(
      "render(Tensor positions, Tensor faces, Tensor? face_ranges, Tensor? face_valid, Tensor? uvs, Tensor? uv_faces, "
      "Tensor? texture, Tensor[] attributes, Tensor[] attribute_faces, SymInt height, SymInt width, "
      "bool perspective_correct, int cull, bool depth_clip, float sigmainv, float boxlen, int knum, int filter, "
      "int wrap, int outputs) -> Tensor[]");
}

// One adapter serves every device: a call goes where its first tensor lies.
template <class Library>
void implement_ops(Library& library) {
  library.impl("rasterize", TORCH_BOX(&door::rasterize));
  library.impl("rasterize_backward", TORCH_BOX(&door::rasterize_backward));
  library.impl("interpolate", TORCH_BOX(&door::interpolate));
  library.impl("interpolate_backward", TORCH_BOX(&door::interpolate_backward));
  library.impl("interpolate_raster", TORCH_BOX(&door::interpolate_raster));
  library.impl("interpolate_raster_backward", TORCH_BOX(&door::interpolate_raster_backward));
  library.impl("soft_mask", TORCH_BOX(&door::soft_mask));
  library.impl("soft_mask_keeping", TORCH_BOX(&door::soft_mask_keeping));
  library.impl("soft_mask_backward", TORCH_BOX(&door::soft_mask_backward));
  library.impl("texture", TORCH_BOX(&door::texture));
  library.impl("texture_backward", TORCH_BOX(&door::texture_backward));
  library.impl("antialias", TORCH_BOX(&door::antialias));
  library.impl("antialias_backward", TORCH_BOX(&door::antialias_backward));
  library.impl("render", TORCH_BOX(&door::render));
}

STABLE_TORCH_LIBRARY_IMPL(dibr, CPU, library) { implement_ops(library); }

STABLE_TORCH_LIBRARY_IMPL(dibr, CUDA, library) { implement_ops(library); }
