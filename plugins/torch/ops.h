// The torch ops, as register.cpp registers them. Arguments and shapes are those of dibr_deploy/ops.py; faces,
// face_ranges, face_valid and face_index are int32, enumerations are the integers of dibr.h.
#pragma once

#include <tuple>

#include "torch/call.h"

namespace dibr::torch_door {

std::tuple<Tensor, Tensor, Tensor> rasterize(const Tensor& positions, const Tensor& faces,
                                             const OptionalTensor& face_ranges, const OptionalTensor& face_valid,
                                             int64_t height, int64_t width, bool perspective_correct, int64_t cull,
                                             bool depth_clip);
Tensor rasterize_backward(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                          const OptionalTensor& barycentrics, const OptionalTensor& grad_barycentrics,
                          const OptionalTensor& grad_depth, bool perspective_correct, bool deterministic);

Tensor interpolate(const Tensor& attributes, const Tensor& faces, const Tensor& face_index, const Tensor& barycentrics);
std::tuple<Tensor, Tensor> interpolate_backward(const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                                                const Tensor& barycentrics, const Tensor& grad_output,
                                                bool needs_attributes, bool needs_barycentrics, bool deterministic);
Tensor interpolate_raster(const Tensor& attributes, const Tensor& faces, const Tensor& face_index,
                          const Tensor& barycentrics, const Tensor& positions, const Tensor& raster_faces,
                          bool perspective_correct);
std::tuple<Tensor, Tensor> interpolate_raster_backward(const Tensor& attributes, const Tensor& faces,
                                                       const Tensor& face_index, const Tensor& barycentrics,
                                                       const Tensor& positions, const Tensor& raster_faces,
                                                       const Tensor& grad_output, bool perspective_correct,
                                                       bool needs_attributes, bool deterministic);

Tensor soft_mask(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                 const OptionalTensor& face_ranges, double sigmainv, double boxlen, int64_t knum);
// The mask, and for soft_mask_backward of the very same arguments what need not be found again: bytes, of use on the
// CPU.
std::tuple<Tensor, Tensor> soft_mask_keeping(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                                             const OptionalTensor& face_ranges, double sigmainv, double boxlen,
                                             int64_t knum);
Tensor soft_mask_backward(const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                          const OptionalTensor& face_ranges, const Tensor& grad_mask, double sigmainv, double boxlen,
                          int64_t knum, bool deterministic, const OptionalTensor& kept);

Tensor texture(const Tensor& texture, const Tensor& uv, const OptionalTensor& mip_level, int64_t filter, int64_t wrap);
std::tuple<Tensor, Tensor, Tensor> texture_backward(const Tensor& texture, const Tensor& uv,
                                                    const OptionalTensor& mip_level, const Tensor& grad_output,
                                                    int64_t filter, int64_t wrap, bool deterministic);

Tensor antialias(const Tensor& image, const Tensor& positions, const Tensor& faces, const Tensor& face_index,
                 const Tensor& barycentrics, const OptionalTensor& face_ranges);
std::tuple<Tensor, Tensor> antialias_backward(const Tensor& image, const Tensor& positions, const Tensor& faces,
                                              const Tensor& face_index, const Tensor& barycentrics,
                                              const OptionalTensor& face_ranges, const Tensor& grad_output,
                                              bool deterministic);

// Returns what `outputs` names (dibr_render_output), in the order of its bits; every one of `attributes` is among them.
std::vector<Tensor> render(const Tensor& positions, const Tensor& faces, const OptionalTensor& face_ranges,
                           const OptionalTensor& face_valid, const OptionalTensor& uvs, const OptionalTensor& uv_faces,
                           const OptionalTensor& texture, const std::vector<Tensor>& attributes,
                           const std::vector<Tensor>& attribute_faces, int64_t height, int64_t width,
                           bool perspective_correct, int64_t cull, bool depth_clip, double sigmainv, double boxlen,
                           int64_t knum, int64_t filter, int64_t wrap, int64_t outputs);

}  // namespace dibr::torch_door
