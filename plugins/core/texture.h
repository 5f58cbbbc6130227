// Texture: the four texels around a uv coordinate and their weights. v = 0 is the top row, texel centres lie at
// (i + 0.5) / n, and wrap applies to texel indices, so the surface is piecewise bilinear across every border.
#pragma once

#include "core/half.h"
#include "dibr/dibr.h"

namespace dibr {

// Two neighbouring texels along one axis and how far the sample lies from the first to the second. I, here and below,
// is the integer that texels are counted in: int32_t holds every texture's.
template <class T, class I = int64_t>
struct Taps {
  I first, second;
  T fraction;
};

template <class I>
DIBR_HD I wrap_index(I i, I n, dibr_wrap wrap) {
  if (wrap == DIBR_WRAP_CLAMP) return minimum(maximum(i, I(0)), I(n - 1));
  if (wrap == DIBR_WRAP_REPEAT) return i < 0 ? i + n : (i >= n ? i - n : i);
  const I period = 2 * n, j = i < 0 ? i + period : (i >= period ? i - period : i);
  return j < n ? j : period - 1 - j;
}
// The same without branches, so that the compiler makes vectors of a loop over many.
DIBR_HD int32_t wrap_index(int32_t i, int32_t n, dibr_wrap wrap) {
  if (wrap == DIBR_WRAP_CLAMP) return minimum(maximum(i, 0), n - 1);
  const int32_t period = wrap == DIBR_WRAP_REPEAT ? n : 2 * n;
  const int32_t j = i + select(i < 0, period, 0) - select(i >= period, period, 0);
  return wrap == DIBR_WRAP_REPEAT ? j : minimum(j, period - 1 - j);
}

// Brings a coordinate to where n texels and int64 hold it, without changing which texels it means.
template <class T>
DIBR_HD T reduce_coordinate(T u, dibr_wrap wrap) {
  if (wrap == DIBR_WRAP_CLAMP) return minimum(maximum(u, T(-1)), T(2));
  if (wrap == DIBR_WRAP_REPEAT) return u - rounded_down(u);
  return u - T(2) * rounded_down(u / T(2));
}

// Taps for coordinate u (0..1 spans the axis of n texels). For nearest both taps are the texel that holds it.
template <class T, class I>
DIBR_HD Taps<T, I> texture_taps(T u, I n, dibr_filter filter, dibr_wrap wrap) {
  const bool bilinear = filter == DIBR_FILTER_BILINEAR;
  const T x = reduce_coordinate(u, wrap) * T(n) - (bilinear ? T(0.5) : T(0));
  const T cell = rounded_down(x);
  const I i = I(cell);
  return {wrap_index(i, n, wrap), wrap_index(bilinear ? I(i + 1) : i, n, wrap), bilinear ? x - cell : T(0)};
}

template <class T>
DIBR_HD bool is_finite_uv(T u, T v) {
  return u - u == T(0) && v - v == T(0);
}

// The 2 x 2 texels of one sample: offsets into a [Ht, Wt] plane, weights in the same order (top-left first).
template <class T, class I = int64_t>
struct Footprint {
  Taps<T, I> x, y;
  I offset[4];
  T weight[4];
};

template <class T, class I>
DIBR_HD Footprint<T, I> texture_footprint(T u, T v, I height, I width, dibr_filter filter, dibr_wrap wrap) {
  Footprint<T, I> f;
  f.x = texture_taps(u, width, filter, wrap);
  f.y = texture_taps(v, height, filter, wrap);
  f.offset[0] = f.y.first * width + f.x.first;
  f.offset[1] = f.y.first * width + f.x.second;
  f.offset[2] = f.y.second * width + f.x.first;
  f.offset[3] = f.y.second * width + f.x.second;
  f.weight[0] = (T(1) - f.y.fraction) * (T(1) - f.x.fraction);
  f.weight[1] = (T(1) - f.y.fraction) * f.x.fraction;
  f.weight[2] = f.y.fraction * (T(1) - f.x.fraction);
  f.weight[3] = f.y.fraction * f.x.fraction;
  return f;
}

// S is what the texture is stored in.
template <class T, class S>
DIBR_HD T sample_plane(const Footprint<T>& f, const S* plane) {
  return f.weight[0] * load(plane[f.offset[0]]) + f.weight[1] * load(plane[f.offset[1]]) +
         f.weight[2] * load(plane[f.offset[2]]) + f.weight[3] * load(plane[f.offset[3]]);
}

// Gradient of sample_plane with respect to the texel coordinates (x, y); times (Wt, Ht) it is the one to (u, v).
template <class T>
DIBR_HD void plane_gradient(const Footprint<T>& f, const T* plane, T* grad_x, T* grad_y) {
  const T top_left = plane[f.offset[0]], top_right = plane[f.offset[1]];
  const T bottom_left = plane[f.offset[2]], bottom_right = plane[f.offset[3]];
  *grad_x = (T(1) - f.y.fraction) * (top_right - top_left) + f.y.fraction * (bottom_right - bottom_left);
  *grad_y = (T(1) - f.x.fraction) * (bottom_left - top_left) + f.x.fraction * (bottom_right - top_right);
}

}  // namespace dibr
