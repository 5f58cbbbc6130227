// Interpolate: an attribute at a pixel is the barycentric mean of its face's vertices (Chen et al. 2019, equation 1).
#pragma once

#include "core/half.h"

namespace dibr {

// S is what the attributes are stored in.
template <class T, class S>
DIBR_HD T interpolated(const T* b, S a0, S a1, S a2) {
  return b[0] * load(a0) + b[1] * load(a1) + b[2] * load(a2);
}

}  // namespace dibr
