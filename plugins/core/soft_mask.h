// SoftMask: the probability that a pixel outside a mesh belongs to it (Chen et al. 2019, section 3.1):
//
//     p_k = exp(-sigmainv * d_k^2),   mask = 1 - prod_k (1 - p_k)
//
// where d_k is the distance in NDC from the pixel centre to the boundary of face k. As in the reference implementation
// only the first knum faces take part whose bounding box, enlarged by boxlen, contains the centre.
#pragma once

#include "core/triangle.h"

namespace dibr {

template <class T>
struct SoftMaskRules {
  T sigmainv, boxlen;
  int64_t knum;
};

// A face in NDC with its enlarged, half-open box.
template <class T>
struct MaskFace {
  T x[3], y[3];
  T x0, x1, y0, y1;
};

// False for a face that takes no part: non-finite, a vertex with w <= 0, or one in front of the near plane.
template <class T>
DIBR_HD bool project_mask_face(const Triangle<T>& t, T boxlen, MaskFace<T>* out) {
  if (!is_finite(t)) return false;
  bool takes_part = true;
  for (int k = 0; k < 3; ++k) {
    takes_part = takes_part && t.w[k] > T(0) && t.z[k] >= -t.w[k];
    out->x[k] = t.x[k] / t.w[k];
    out->y[k] = t.y[k] / t.w[k];
    takes_part =
        takes_part && absolute(out->x[k]) <= Limits<T>::max_depth && absolute(out->y[k]) <= Limits<T>::max_depth;
  }
  if (!takes_part) return false;
  out->x0 = minimum(minimum(out->x[0], out->x[1]), out->x[2]) - boxlen;
  out->x1 = maximum(maximum(out->x[0], out->x[1]), out->x[2]) + boxlen;
  out->y0 = minimum(minimum(out->y[0], out->y[1]), out->y[2]) - boxlen;
  out->y1 = maximum(maximum(out->y[0], out->y[1]), out->y[2]) + boxlen;
  return true;
}

// The pixels whose centres the enlarged box can contain.
template <class T>
DIBR_HD PixelBox mask_box(const Triangle<T>& t, T boxlen, int64_t width, int64_t height) {
  MaskFace<T> face;
  if (!project_mask_face(t, boxlen, &face)) return empty_box();
  NdcBox box;
  box.include(double(face.x0), double(face.y0));
  box.include(double(face.x1), double(face.y1));
  return pixels_in(box, width, height);
}

// The point of a triangle's boundary that is nearest to p: (1 - t) * vertex a + t * vertex b.
template <class T>
struct BoundaryPoint {
  int a, b;
  T t;
  T dx, dy;  // p minus the point
  T distance2;
};

template <class T>
DIBR_HD BoundaryPoint<T> nearest_boundary_point(const T* x, const T* y, T px, T py) {
  BoundaryPoint<T> best = {};
  for (int a = 0; a < 3; ++a) {
    const int b = a == 2 ? 0 : a + 1;
    const T ex = x[b] - x[a], ey = y[b] - y[a];
    const T vx = px - x[a], vy = py - y[a];
    const T length2 = ex * ex + ey * ey;
    T t = length2 > T(0) ? (vx * ex + vy * ey) / length2 : T(0);
    t = minimum(maximum(t, T(0)), T(1));
    const T dx = t < T(1) ? vx - t * ex : px - x[b];
    const T dy = t < T(1) ? vy - t * ey : py - y[b];
    const T distance2 = dx * dx + dy * dy;
    if (a == 0 || distance2 < best.distance2) best = {a, b, t, dx, dy, distance2};
  }
  return best;
}

// Gradient of the mask with respect to the clip-space vertices a and b of one face. grad_distance2 is the gradient with
// respect to d_k^2; the nearest point is stationary along its edge, so only its end points move it.
template <class T>
DIBR_HD void mask_vertex_gradient(const MaskFace<T>& face, const BoundaryPoint<T>& point, int vertex, T w,
                                  T grad_distance2, T* out) {
  const T share = vertex == point.a ? T(1) - point.t : point.t;
  const T grad_x = T(-2) * grad_distance2 * share * point.dx / w;
  const T grad_y = T(-2) * grad_distance2 * share * point.dy / w;
  out[0] += grad_x;
  out[1] += grad_y;
  out[3] -= grad_x * face.x[vertex] + grad_y * face.y[vertex];
}

}  // namespace dibr
