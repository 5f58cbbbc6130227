// Rasterize: which pixels a face covers, how deep it is there, and the barycentric coordinates with their gradient.
//
// Everything follows from the three edge functions of the homogeneous triangle (Olano and Greer 1997). With the
// vertices moved so that the pixel centre p is the origin, (x'_k, y'_k) = (x_k - p_x w_k, y_k - p_y w_k), they are
//
//     e_0 = x'_1 y'_2 - y'_1 x'_2        (and cyclically e_1, e_2)
//
// and e_k = w_i w_j * 2 * (area of the sub-triangle opposite vertex k). Ratios of these areas are the weights of Chen
// et al. 2019, equation 2:
//
//     perspective-correct  b_k = e_k / (e_0 + e_1 + e_2)
//     screen space         b_k = e_k w_k / (e_0 w_0 + e_1 w_1 + e_2 w_2)
//     depth z/w            = (e_0 z_0 + e_1 z_1 + e_2 z_2) / (e_0 w_0 + e_1 w_1 + e_2 w_2)     (see DepthPlane)
//
// No vertex is divided by its w, so a face that reaches behind the camera needs no other formula: its visible part is
// where all e_k share the determinant's sign, and the near plane is the depth test z/w >= -1 of that very pixel.
// Barycentrics thus refer to the original face. An edge function is one difference of two products: swapping its end
// points negates it exactly (contraction is off), so two faces agree about their shared edge.
#pragma once

#include "core/triangle.h"

namespace dibr {

struct RasterRules {
  bool perspective_correct;
  bool cull_back;
  bool depth_clip;
};

// +1 front, -1 back, 0 for a face that is never drawn (no area, or culled).
template <class T>
DIBR_HD int face_sign(const Triangle<T>& t, bool cull_back) {
  const double determinant = clip_determinant(t);
  if (!(absolute(determinant) > Limits<T>::min_determinant)) return 0;
  if (determinant > 0.0) return 1;
  return cull_back ? 0 : -1;
}

// The pixels that the visible part of a face can cover; empty for a face that is never drawn.
template <class T>
DIBR_HD PixelBox raster_box(const Triangle<T>& t, const RasterRules& rules, int64_t width, int64_t height) {
  if (!is_finite(t) || face_sign(t, rules.cull_back) == 0) return empty_box();
  const PixelBox whole = {0, 0, int32_t(width - 1), int32_t(height - 1)};
  double near[3];
  int inside = 0, in_front = 0;
  for (int k = 0; k < 3; ++k) {
    near[k] = rules.depth_clip ? double(t.z[k]) + double(t.w[k]) : double(t.w[k]);
    inside += near[k] >= 0.0;
    in_front += t.w[k] > T(0);
  }
  if (inside == 0) return empty_box();
  if (inside < 3 && !rules.depth_clip) return whole;
  NdcBox box;
  if (in_front == 3 && inside == 3) {
    for (int k = 0; k < 3; ++k) box.include(double(t.x[k]) / double(t.w[k]), double(t.y[k]) / double(t.w[k]));
    return pixels_in(box, width, height);
  }
  for (int k = 0; k < 3; ++k) {
    const int next = k == 2 ? 0 : k + 1;
    double x = t.x[k], y = t.y[k], w = t.w[k];
    if (near[k] >= 0.0) {
      if (!(w > 0.0)) return whole;
      box.include(x / w, y / w);
    }
    if ((near[k] >= 0.0) == (near[next] >= 0.0)) continue;
    const double s = near[k] / (near[k] - near[next]);
    x += s * (double(t.x[next]) - x);
    y += s * (double(t.y[next]) - y);
    const double crossing_w = w + s * (double(t.w[next]) - w);
    // Where cancellation leaves w with few digits the crossing point is not to be trusted.
    if (!(crossing_w > 1e-6 * (absolute(w) + absolute(double(t.w[next]))))) return whole;
    box.include(x / crossing_w, y / crossing_w);
  }
  return pixels_in(box, width, height);
}

template <class T>
struct Edges {
  T e[3];
};

// (x', y') are the vertices relative to the pixel centre; see the head of this file.
template <class T>
DIBR_HD Edges<T> edge_functions(T x0, T x1, T x2, T y0, T y1, T y2) {
  return {{x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1}};
}

template <class T>
DIBR_HD Edges<T> edges_at(const Triangle<T>& t, T px, T py) {
  return edge_functions<T>(t.x[0] - px * t.w[0], t.x[1] - px * t.w[1], t.x[2] - px * t.w[2], t.y[0] - py * t.w[0],
                           t.y[1] - py * t.w[1], t.y[2] - py * t.w[2]);
}

template <class T>
DIBR_HD T weighted_sum(const Edges<T>& edges, const T* values) {
  return edges.e[0] * values[0] + edges.e[1] * values[1] + edges.e[2] * values[2];
}

// Depth over a face: base + sum_k e_k slope[k] / sum_k e_k w_k. Where every w > 0 the base is the depth of vertex 0, so
// that a face of constant depth has exactly that depth at every pixel, and two of them tie.
template <class T>
struct DepthPlane {
  T base, slope[3];
};

template <class T>
DIBR_HD DepthPlane<T> depth_plane(const Triangle<T>& t) {
  if (!(t.w[0] > T(0) && t.w[1] > T(0) && t.w[2] > T(0))) return {T(0), {t.z[0], t.z[1], t.z[2]}};
  const T base = t.z[0] / t.w[0];
  return {base, {T(0), (t.z[1] / t.w[1] - base) * t.w[1], (t.z[2] / t.w[2] - base) * t.w[2]}};
}

// Barycentrics of a covered pixel, from edge functions of either orientation.
template <class T>
DIBR_HD void barycentrics(const Triangle<T>& t, const Edges<T>& edges, bool perspective_correct, T* out) {
  T u[3];
  for (int k = 0; k < 3; ++k) u[k] = perspective_correct ? edges.e[k] : edges.e[k] * t.w[k];
  const T total = u[0] + u[1] + u[2];
  for (int k = 0; k < 3; ++k) out[k] = u[k] / total;
}

// Gradient with respect to one face's vertices: 3 x (x, y, z, w).
template <class T>
struct TriangleGradient {
  T v[3][4];
};

// Adds one pixel's share of the gradient: the quotient rule through the areas, then through the perspective division.
// grad_b is the gradient with respect to the barycentrics, grad_depth with respect to z/w.
template <class T>
DIBR_HD void accumulate_raster_gradient(const Triangle<T>& t, T px, T py, bool perspective_correct, const T* grad_b,
                                        T grad_depth, TriangleGradient<T>* out) {
  T x[3], y[3], grad_e[3];
  for (int k = 0; k < 3; ++k) {
    x[k] = t.x[k] - px * t.w[k];
    y[k] = t.y[k] - py * t.w[k];
  }
  const Edges<T> edges = edge_functions(x[0], x[1], x[2], y[0], y[1], y[2]);
  T b[3];
  barycentrics(t, edges, perspective_correct, b);
  const T mean = grad_b[0] * b[0] + grad_b[1] * b[1] + grad_b[2] * b[2];
  const T sum_w = weighted_sum(edges, t.w);
  const T depth = weighted_sum(edges, t.z) / sum_w;
  const T sum_u = perspective_correct ? edges.e[0] + edges.e[1] + edges.e[2] : sum_w;
  for (int k = 0; k < 3; ++k) {
    const T grad_u = (grad_b[k] - mean) / sum_u;
    const T grad_n = grad_depth / sum_w;
    grad_e[k] = (perspective_correct ? grad_u : grad_u * t.w[k]) + grad_n * (t.z[k] - depth * t.w[k]);
    out->v[k][2] += grad_n * edges.e[k];
    out->v[k][3] += (perspective_correct ? T(0) : grad_u * edges.e[k]) - grad_n * depth * edges.e[k];
  }
  for (int k = 0; k < 3; ++k) {
    const int i = k == 2 ? 0 : k + 1, j = k == 0 ? 2 : k - 1;
    const T grad_x = grad_e[j] * y[i] - grad_e[i] * y[j];
    const T grad_y = grad_e[i] * x[j] - grad_e[j] * x[i];
    out->v[k][0] += grad_x;
    out->v[k][1] += grad_y;
    out->v[k][3] -= px * grad_x + py * grad_y;
  }
}

// What a face's gradient follows from: sums over the pixels that show it, with g the gradient with respect to the
// barycentrics b and d that with respect to depth.
template <class T>
struct RasterSums {
  T weight[3][3];  // [k][m]: sum of (g_k - g_0 b_0 - g_1 b_1 - g_2 b_2) b_m
  T depth[3];      // perspective-correct: sum of d b_m / (b_0 w_0 + b_1 w_1 + b_2 w_2), else of d b_m
};

// The same gradient as the sum of accumulate_raster_gradient over the pixels. With P the matrix whose columns are the
// vertices' (x, y, w), and u = P^-1 (p_x, p_y, 1), b is u / (u_0 + u_1 + u_2), in screen space b_k = w_k u_k, and depth
// is z_0 u_0 + z_1 u_1 + z_2 u_2. Since du = -P^-1 dP u, the gradient with respect to P is -P^-T A, where A_km is the
// sum of h_k u_m and h the gradient with respect to u; the pixels' positions are not needed.
// In screen space every w must be above 0. (px, py) is a point near the face: with the vertices moved so that it is the
// origin a small face keeps its digits.
template <class T>
DIBR_HD TriangleGradient<T> raster_gradient(const Triangle<T>& t, T px, T py, bool perspective_correct,
                                            const RasterSums<T>& sums) {
  TriangleGradient<T> out = {};
  double x[3], y[3], w[3];
  for (int k = 0; k < 3; ++k) {
    w[k] = t.w[k];
    x[k] = double(t.x[k]) - double(px) * w[k];
    y[k] = double(t.y[k]) - double(py) * w[k];
  }
  // The rows of P's adjugate, and of its columns' cross products.
  double row_x[3], row_y[3], row_w[3];
  for (int k = 0; k < 3; ++k) {
    const int i = k == 2 ? 0 : k + 1, j = k == 0 ? 2 : k - 1;
    row_x[k] = y[i] * w[j] - w[i] * y[j];
    row_y[k] = w[i] * x[j] - x[i] * w[j];
    row_w[k] = x[i] * y[j] - y[i] * x[j];
  }
  const double determinant = row_w[0] * w[0] + row_w[1] * w[1] + row_w[2] * w[2];
  if (!(absolute(determinant) > Limits<T>::min_determinant)) return out;
  const double scale = -1.0 / determinant;
  double a[3][3], share[3];  // A_km, and the vertices' part in depth
  for (int m = 0; m < 3; ++m) share[m] = perspective_correct ? double(sums.depth[m]) : sums.depth[m] / w[m];
  for (int k = 0; k < 3; ++k) {
    for (int m = 0; m < 3; ++m) {
      const double weight = sums.weight[k][m];
      a[k][m] = (perspective_correct ? weight : weight * w[k] / w[m]) + t.z[k] * share[m];
    }
  }
  for (int m = 0; m < 3; ++m) {
    const double of_x = scale * (a[0][m] * row_x[0] + a[1][m] * row_x[1] + a[2][m] * row_x[2]);
    const double of_y = scale * (a[0][m] * row_y[0] + a[1][m] * row_y[1] + a[2][m] * row_y[2]);
    const double of_w = scale * (a[0][m] * row_w[0] + a[1][m] * row_w[1] + a[2][m] * row_w[2]);
    const double of_screen = perspective_correct ? 0.0 : sums.weight[m][m] / w[m];
    out.v[m][0] = T(of_x);
    out.v[m][1] = T(of_y);
    out.v[m][2] = T(share[m]);
    out.v[m][3] = T(of_w - px * of_x - py * of_y + of_screen);
  }
  return out;
}

}  // namespace dibr
