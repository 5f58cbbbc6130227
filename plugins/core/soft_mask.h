// SoftMask: the probability that a pixel outside a mesh belongs to it (Chen et al. 2019, section 3.1):
//
//     p_k = exp(-sigmainv * d_k^2),   mask = 1 - prod_k (1 - p_k)
//
// where d_k is the distance in NDC from the pixel centre to the boundary of face k. As in the reference implementation
// only the first knum faces take part whose bounding box, enlarged by boxlen, contains the centre.
//
// S below is the type of one number; N is S, or a pack of them, which compare to a mask.
#pragma once

#include <cstring>

#include "core/triangle.h"

namespace dibr {

template <class S>
struct SoftMaskRules {
  S sigmainv, boxlen;
  S exponent;  // p = 2^(exponent * d^2)
  int64_t knum;

  DIBR_HD SoftMaskRules(double sigmainv_, double boxlen_, int64_t knum_)
      : sigmainv(S(sigmainv_)), boxlen(S(boxlen_)), exponent(S(-1.4426950408889634 * sigmainv_)), knum(knum_) {}
};

// A face in NDC: its vertices, the edge from each to the next, 1 / (the edge's length)^2, and its enlarged, half-open
// box. An edge too short for that quotient has 0 there, and counts as its first vertex.
template <class S>
struct MaskFace {
  S x[3], y[3];
  S edge_x[3], edge_y[3], inverse[3];
  S x0, x1, y0, y1;
};

// A vertex in NDC. False where no face around it takes part: non-finite, w <= 0, or in front of the near plane. Then
// what it writes is of no use.
template <class S, class N>
DIBR_HD auto project_mask_vertex(N x, N y, N z, N w, N* ndc_x, N* ndc_y) {
  const N coordinate = N(Limits<S>::max_coordinate), depth = N(Limits<S>::max_depth);
  *ndc_x = x / w;
  *ndc_y = y / w;
  return (N(0) < w) & (-w <= z) & (absolute(x) <= coordinate) & (absolute(y) <= coordinate) &
         (absolute(z) <= coordinate) & (w <= coordinate) & (absolute(*ndc_x) <= depth) & (absolute(*ndc_y) <= depth);
}

// The edge from one vertex to the next, (x1, y1), and 1 / (its length)^2.
template <class S, class N>
DIBR_HD void set_mask_edge(N x0, N y0, N x1, N y1, N* edge_x, N* edge_y, N* inverse) {
  *edge_x = x1 - x0;
  *edge_y = y1 - y0;
  const N length2 = *edge_x * *edge_x + *edge_y * *edge_y;
  *inverse = select(N(Limits<S>::min_length2) < length2, N(1) / length2, N(0));
}

// The least and the greatest of a box's x or y.
template <class S, class N>
DIBR_HD void set_mask_range(N a, N b, N c, S boxlen, N* least, N* greatest) {
  *least = minimum(minimum(a, b), c) - N(boxlen);
  *greatest = maximum(maximum(a, b), c) + N(boxlen);
}

// False for a face that takes no part, which is one with such a vertex.
template <class S>
DIBR_HD bool project_mask_face(const Triangle<S>& t, S boxlen, MaskFace<S>* out) {
  bool takes_part = true;
  for (int k = 0; k < 3; ++k) {
    takes_part = takes_part & project_mask_vertex<S>(t.x[k], t.y[k], t.z[k], t.w[k], &out->x[k], &out->y[k]);
  }
  for (int k = 0; k < 3; ++k) {
    const int next = k == 2 ? 0 : k + 1;
    set_mask_edge<S>(out->x[k], out->y[k], out->x[next], out->y[next], &out->edge_x[k], &out->edge_y[k],
                     &out->inverse[k]);
  }
  set_mask_range(out->x[0], out->x[1], out->x[2], boxlen, &out->x0, &out->x1);
  set_mask_range(out->y[0], out->y[1], out->y[2], boxlen, &out->y0, &out->y1);
  return takes_part;
}

// The pixels whose centres the enlarged box can contain.
template <class S>
DIBR_HD PixelBox mask_box(const Triangle<S>& t, S boxlen, int64_t width, int64_t height) {
  MaskFace<S> face;
  if (!project_mask_face(t, boxlen, &face)) return empty_box();
  NdcBox box;
  box.include(double(face.x0), double(face.y0));
  box.include(double(face.x1), double(face.y1));
  return pixels_in(box, width, height);
}

// How far along an edge the point is that is nearest to a place, (vx, vy) from where the edge starts: 0 <= t. The far
// end is left to the next edge, which starts there: p minus that vertex is exact, while a point that is found from the
// near end of a long edge is not. So where t >= 1 that is no point of the edge.
template <class N>
DIBR_HD N place_along_edge(N edge_x, N edge_y, N inverse, N vx, N vy) {
  return maximum(fused(vx, edge_x, vy * edge_y) * inverse, N(0));
}

// The edge of a triangle that has the point nearest to p: that from vertex 2 to 0 if its flag is set, else that from 1
// to 2, else that from 0 to 1. Where no flag is, that point is vertex 0.
template <class N>
struct NearestEdge {
  using Flag = decltype(N(0) < N(0));
  Flag is[3];
  N distance2;  // of the point
};

template <class N, class S>
DIBR_HD NearestEdge<N> nearest_edge(const MaskFace<S>& face, N px, N py) {
  NearestEdge<N> best;
  for (int k = 0; k < 3; ++k) {
    const N edge_x = N(face.edge_x[k]), edge_y = N(face.edge_y[k]);
    const N vx = px - N(face.x[k]), vy = py - N(face.y[k]);
    const N t = place_along_edge(edge_x, edge_y, N(face.inverse[k]), vx, vy);
    const N dx = less_product(vx, t, edge_x), dy = less_product(vy, t, edge_y);
    const N distance2 = fused(dx, dx, dy * dy);
    if (k == 0) best.distance2 = fused(vx, vx, vy * vy);
    const auto on_edge = t < N(1);
    best.is[k] = on_edge & (distance2 < best.distance2);
    best.distance2 = select(on_edge, minimum(best.distance2, distance2), best.distance2);
  }
  return best;
}

// The point of a triangle's boundary that is nearest to p.
template <class N>
struct BoundaryPoint {
  typename NearestEdge<N>::Flag on_edge1, on_edge2;  // as in NearestEdge
  N t;                                               // along the edge, 0 <= t < 1
  N dx, dy;                                          // p minus the point
  N distance2;

  BoundaryPoint() = default;
  // `edge` has the flags of nearest_edge.
  template <class S>
  DIBR_HD BoundaryPoint(const MaskFace<S>& face, const typename NearestEdge<N>::Flag* edge, N px, N py)
      : on_edge1(edge[1]), on_edge2(edge[2]) {
    const auto of_edge = [&](const S* of) { return select(edge[2], N(of[2]), select(edge[1], N(of[1]), N(of[0]))); };
    const N edge_x = of_edge(face.edge_x), edge_y = of_edge(face.edge_y);
    const N vx = px - of_edge(face.x), vy = py - of_edge(face.y);
    t = select(edge[0] | edge[1] | edge[2], place_along_edge(edge_x, edge_y, of_edge(face.inverse), vx, vy), N(0));
    dx = less_product(vx, t, edge_x);
    dy = less_product(vy, t, edge_y);
    distance2 = fused(dx, dx, dy * dy);
  }

  // What the vertices weigh in the point.
  DIBR_HD void shares(N* out) const {
    const N rest = N(1) - t, none = N(0);
    out[0] = select(on_edge2, t, select(on_edge1, none, rest));
    out[1] = select(on_edge2, none, select(on_edge1, rest, t));
    out[2] = select(on_edge2, rest, select(on_edge1, t, none));
  }
};

// 2^f for |f| <= 1/2, and what 2^x needs besides: `rounder` + x, rounded to T, ends in the bits of (x rounded to an
// integer) + (the exponent's bias), which a shift by the mantissa's bits makes a number of; `lowest` gives 0. The
// polynomials, summed in pairs that do not wait for each other, have the least largest relative error with 2^0 = 1
// (Remez): 2.1e-9 and 3.9e-18.
template <class S>
struct Power2;
template <>
struct Power2<float> {
  static constexpr float rounder = 12582912.0f + 127.0f, lowest = -127.0f;
  template <class N>
  static DIBR_HD N of_fraction(N f) {
    const N f2 = f * f;
    const N a = fused(N(2.40226477e-1f), f, N(6.93147203e-1f));
    const N b = fused(N(9.61845231e-3f), f, N(5.55033252e-2f));
    const N c = fused(N(1.5350149e-4f), f, N(1.33989038e-3f));
    return fused(f, fused(f2, fused(f2, c, b), a), N(1.0f));
  }
};
template <>
struct Power2<double> {
  static constexpr double rounder = 6755399441055744.0 + 1023.0, lowest = -1023.0;
  template <class N>
  static DIBR_HD N of_fraction(N f) {
    const N f2 = f * f, f4 = f2 * f2;
    const N a = fused(N(0.24022650695910133), f, N(0.6931471805599453));
    const N b = fused(N(0.009618129107593201), f, N(0.05550410866481977));
    const N c = fused(N(0.00015403530458161274), f, N(0.0013333558146822844));
    const N d = fused(N(1.3215434801063136e-06), f, N(1.525273346057619e-05));
    const N e = fused(N(7.073860173377994e-09), f, N(1.0178209572520673e-07));
    const N low = fused(f2, b, a), middle = fused(f2, d, c), high = fused(f2, N(4.4336275298970914e-10), e);
    return fused(f, fused(f4, fused(f4, high, middle), low), N(1.0));
  }
};

DIBR_HD float exponent_from_low_bits(float a) {
  uint32_t bits;
  std::memcpy(&bits, &a, sizeof bits);
  bits <<= 23;
  std::memcpy(&a, &bits, sizeof bits);
  return a;
}
DIBR_HD double exponent_from_low_bits(double a) {
  uint64_t bits;
  std::memcpy(&bits, &a, sizeof bits);
  bits <<= 52;
  std::memcpy(&a, &bits, sizeof bits);
  return a;
}

// p of a face at distance d. As a power of two it needs no reduction of its argument by a multiple of ln 2: that is off
// by at most (1 + |ln p|) * 2 units in the last place. Below the least normal number it is 0.
template <class S, class N>
DIBR_HD N mask_probability(const SoftMaskRules<S>& rules, N distance2) {
  const N x = maximum(distance2 * N(rules.exponent), N(Power2<S>::lowest));
  const N rounded = x + N(Power2<S>::rounder);
  const N f = x - (rounded - N(Power2<S>::rounder));
  return Power2<S>::of_fraction(f) * exponent_from_low_bits(rounded);
}

// The gradient of d^2 with respect to the NDC position of vertex k is -2 * (its share) * (dx, dy): the nearest point is
// stationary along its edge, so only the end points move it. grad_x, grad_y is the gradient of the mask with respect to
// that position, (x, y); this adds to the gradient with respect to the vertex in clip space.
template <class S>
DIBR_HD void mask_vertex_gradient(S grad_x, S grad_y, S x, S y, S w, S* out) {
  out[0] += grad_x / w;
  out[1] += grad_y / w;
  out[3] -= (grad_x * x + grad_y * y) / w;
}

}  // namespace dibr
