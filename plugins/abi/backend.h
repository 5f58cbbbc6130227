// What a backend provides for each op. The ABI has checked the parameters before any of these runs.
#pragma once

#include "abi/arena.h"
#include "dibr/dibr.h"

namespace dibr {

#define DIBR_DECLARE_BACKEND_OP(name)                                \
  dibr_status name##_workspace(const dibr_##name##_params&, Arena&); \
  dibr_status name(const dibr_##name##_params&, const dibr_launch&);

#define DIBR_DECLARE_BACKEND                           \
  DIBR_DECLARE_BACKEND_OP(rasterize)                   \
  DIBR_DECLARE_BACKEND_OP(rasterize_backward)          \
  DIBR_DECLARE_BACKEND_OP(interpolate)                 \
  DIBR_DECLARE_BACKEND_OP(interpolate_backward)        \
  DIBR_DECLARE_BACKEND_OP(interpolate_raster_backward) \
  DIBR_DECLARE_BACKEND_OP(soft_mask)                   \
  DIBR_DECLARE_BACKEND_OP(soft_mask_backward)          \
  DIBR_DECLARE_BACKEND_OP(texture)                     \
  DIBR_DECLARE_BACKEND_OP(texture_backward)            \
  DIBR_DECLARE_BACKEND_OP(antialias)                   \
  DIBR_DECLARE_BACKEND_OP(antialias_backward)          \
  DIBR_DECLARE_BACKEND_OP(render)

namespace cpu {
DIBR_DECLARE_BACKEND
}
namespace cuda {
DIBR_DECLARE_BACKEND
}

}  // namespace dibr
