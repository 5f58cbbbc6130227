// A face's edge functions as what they are, linear in the pixel's centre: for many pixels at once they tell where none
// can be covered.
#pragma once

#include <limits>

#include "core/rasterize.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Edge function k is a[k] px + b[k] py + c[k], times the face's sign, so that all three are positive inside; c has more
// on top than what rounding can do to it, here and where a pixel's is computed in T. Where one is below 0, no pixel is
// covered.
template <class N>
struct FaceLines {
  N a[3], b[3], c[3];
};

template <class N, class T>
FaceLines<N> face_lines(const Triangle<T>& t, int sign) {
  N x[3], y[3], w[3], reach[3];
  for (int k = 0; k < 3; ++k) {
    x[k] = N(sign) * N(t.x[k]);
    y[k] = t.y[k];
    w[k] = t.w[k];
    reach[k] = absolute(x[k]) + absolute(y[k]) + 2 * absolute(w[k]);
  }
  FaceLines<N> out;
  for (int k = 0; k < 3; ++k) {
    const int i = k == 2 ? 0 : k + 1, j = k == 0 ? 2 : k - 1;
    out.a[k] = N(sign) * (y[i] * w[j] - w[i] * y[j]);
    out.b[k] = w[i] * x[j] - x[i] * w[j];
    out.c[k] = x[i] * y[j] - y[i] * x[j] + 32 * N(std::numeric_limits<T>::epsilon()) * reach[i] * reach[j];
  }
  return out;
}

// Leaves out of what lies between *from and *to where value + slope v is negative. inverse is -1 / slope: infinite
// where the value is the same everywhere.
template <class V, class N>
DIBR_HD void keep_not_negative(V value, N inverse, V* from, V* to) {
  const V zero = value * V(inverse);  // NaN where there is nothing to leave out
  if (inverse < N(0)) *from = maximum(*from, zero);
  if (inverse > N(0)) *to = minimum(*to, zero);
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
