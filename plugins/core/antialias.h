// Antialias: blends colours across silhouette edges by the share of the pixel beyond them (Laine et al. 2020, section
// 3.5). docs/conventions.md states the whole rule; in short, for two adjacent pixels that show different faces:
//
//     P is the nearer pixel, Q the other, e_k the edge functions of a face (core/rasterize.h), positive inside
//     s = min_k e_k(P) / (e_k(P) - e_k(Q)) over the edges with e_k(Q) < 0: where the segment PQ leaves the face
//     the segment is followed from face to face across shared edges, until no face continues the surface
//     a = s - 1/2;   a (image_P - image_Q) is added to Q where a > 0, else to P
//
// provided that this last edge runs across the pair rather than along it.
#pragma once

#include "core/half.h"
#include "core/rasterize.h"

namespace dibr {

// Half-edge 3 f + k is the edge of face f opposite its vertex k, from vertex k + 1 to vertex k + 2.
DIBR_HD int edge_begin(int k) { return k == 2 ? 0 : k + 1; }
DIBR_HD int edge_end(int k) { return k == 0 ? 2 : k - 1; }

// Finds the faces that have an edge: half-edges of one hash are chained, in any order.
struct EdgeMap {
  int64_t buckets;
  int32_t* heads;  // [buckets] first half-edge of the chain, -1 where there is none
  int32_t* next;   // [3 F] the half-edge after this one, -1 at the end

  // The same for (a, b) and (b, a).
  DIBR_HD int64_t bucket(int32_t a, int32_t b) const {
    uint64_t key = uint64_t(uint32_t(a < b ? a : b)) << 32 | uint32_t(a < b ? b : a);
    key *= 0x9e3779b97f4a7c15u;
    key ^= key >> 32;
    key *= 0xd6e8feb86659fd93u;
    return int64_t((key >> 32) * uint64_t(buckets) >> 32);
  }
};

// A face with a repeated vertex has no area in any image, so its edges are in no chain.
DIBR_HD bool has_edges(const int32_t* face) { return face[0] != face[1] && face[1] != face[2] && face[2] != face[0]; }

// What Antialias sees of one image.
template <class T>
struct OutlineView {
  const T* positions;     // [V, 4]
  int64_t vertices;       // V
  const int32_t* faces;   // [F, 3]
  int64_t first, last;    // the image's faces
  const int32_t* shown;   // [H, W] face_index
  const T* barycentrics;  // [H, W, 3]
  int64_t height, width;
  EdgeMap edges;
};

// +1 front, -1 back, 0 for a face that is absent from the screen.
template <class T>
DIBR_HD int visible_sign(const Triangle<T>& t) {
  return is_finite(t) ? face_sign(t, false) : 0;
}

// z / w of a face at a pixel, as Rasterize computes it, so that faces of one constant depth tie.
template <class T>
DIBR_HD T depth_at(const Triangle<T>& t, const T* b) {
  const DepthPlane<T> plane = depth_plane(t);
  const Edges<T> weights = {{b[0], b[1], b[2]}};
  return plane.base + weighted_sum(weights, plane.slope) / weighted_sum(weights, t.w);
}

// The face that a pixel shows, or -1 on background, outside of the image's faces and where a vertex does not exist.
template <class T>
DIBR_HD int32_t shown_face(const OutlineView<T>& view, int64_t pixel) {
  const int32_t face = view.shown[pixel];
  if (face < view.first || face >= view.last) return -1;
  bool exists = true;
  for (int k = 0; k < 3; ++k) {
    const int32_t vertex = view.faces[3 * int64_t(face) + k];
    exists = exists && vertex >= 0 && vertex < view.vertices;
  }
  return exists ? face : -1;
}

// Depth of a face at a pixel that shows it; infinite where nothing is there that could have an outline.
template <class T>
DIBR_HD T shown_depth(const OutlineView<T>& view, int64_t pixel, int32_t face) {
  const T infinity = T(INFINITY);
  if (face < 0) return infinity;
  const Triangle<T> t = gather_triangle(view.positions, view.faces + 3 * int64_t(face));
  if (visible_sign(t) == 0) return infinity;
  const T depth = depth_at(t, view.barycentrics + 3 * pixel);
  return depth - depth == T(0) ? depth : infinity;
}

// Where the outline of one pixel's face crosses the segment to its neighbour.
template <class T>
struct Crossing {
  int32_t face;         // -1 where nothing crosses
  int corner;           // the edge lies opposite this vertex
  bool second_is_near;  // of the pair, whose first pixel is the left or upper one
  T e_near, e_far;      // the edge function at the two centres, of opposite signs

  // From the pixel that shows the face (0) to the other (1).
  DIBR_HD T position() const { return e_near / (e_near - e_far); }

  // b, with b (image_first - image_second) added to the second pixel where b > 0, else to the first.
  DIBR_HD T blend() const { return second_is_near ? T(0.5) - position() : position() - T(0.5); }
};

// The blend of a pair that is left alone: neither above nor below zero.
template <class T>
DIBR_HD T no_blend() {
  return T(NAN);
}
template <class T>
DIBR_HD bool is_blend(T b) {
  return b == b;
}

// The ends of an edge of a face.
template <class T>
struct EdgeEnds {
  T x[2], y[2], w[2];
};

template <class T>
DIBR_HD EdgeEnds<T> edge_ends(const Triangle<T>& t, int corner) {
  // Selects instead of indices: on a GPU an array that is indexed lives in memory.
  const auto begin = [corner](const T* v) { return corner == 0 ? v[1] : (corner == 1 ? v[2] : v[0]); };
  const auto end = [corner](const T* v) { return corner == 0 ? v[2] : (corner == 1 ? v[0] : v[1]); };
  return {{begin(t.x), end(t.x)}, {begin(t.y), end(t.y)}, {begin(t.w), end(t.w)}};
}

// Whether an edge is at least as steep on the screen as it is flat, in pixels. Exactly the same for both directions.
template <class T>
DIBR_HD bool is_steep(const EdgeEnds<T>& e, int64_t height, int64_t width) {
  const T rise = e.y[0] * e.w[1] - e.y[1] * e.w[0], run = e.x[0] * e.w[1] - e.x[1] * e.w[0];
  return absolute(rise) * T(height) >= absolute(run) * T(width);
}

// +1 where two half-edges run the same way between the same vertices, -1 where they run in opposite ways, else 0.
DIBR_HD int common_edge(const int32_t* v, int corner, const int32_t* u, int other_corner) {
  const int32_t a = v[edge_begin(corner)], b = v[edge_end(corner)];
  const int32_t c = u[edge_begin(other_corner)], d = u[edge_end(other_corner)];
  return a == c && b == d ? 1 : (a == d && b == c ? -1 : 0);
}

// Whether a face that shares an edge with one of the given sign lies on the other side of it. Running along the edge in
// the opposite way turns the side over, so this does not depend on how the two faces are wound.
template <class T>
DIBR_HD bool lies_across(const OutlineView<T>& view, int32_t other, int common, int sign) {
  return visible_sign(gather_triangle(view.positions, view.faces + 3 * int64_t(other))) == -common * sign;
}

// The face that continues the surface across half-edge (face, corner), -1 where the edge is a silhouette. Of several
// faces `preferred`, which may be -1, and else the lowest index.
template <class T>
DIBR_HD int32_t face_across(const OutlineView<T>& view, int32_t face, int corner, int sign, int32_t preferred) {
  const int32_t* v = view.faces + 3 * int64_t(face);
  if (preferred >= 0) {
    const int32_t* u = view.faces + 3 * int64_t(preferred);
    const int common = common_edge(v, corner, u, 0) + common_edge(v, corner, u, 1) + common_edge(v, corner, u, 2);
    if (common != 0 && lies_across(view, preferred, common, sign)) return preferred;
  }
  int32_t lowest = -1;
  int32_t half_edge = view.edges.heads[view.edges.bucket(v[edge_begin(corner)], v[edge_end(corner)])];
  while (half_edge >= 0) {
    const int32_t other = half_edge / 3;
    if (other >= view.first && other < view.last && other != face && (lowest < 0 || other < lowest)) {
      const int common = common_edge(v, corner, view.faces + 3 * int64_t(other), half_edge % 3);
      if (common != 0 && lies_across(view, other, common, sign)) lowest = other;
    }
    half_edge = view.edges.next[half_edge];
  }
  return lowest;
}

// A pixel's row and column.
struct PixelPlace {
  int64_t row, column;
};

template <class T>
DIBR_HD Edges<T> edges_at_pixel(const OutlineView<T>& view, const Triangle<T>& t, const PixelPlace& place) {
  return edges_at(t, pixel_x<T>(place.column, view.width), pixel_y<T>(place.row, view.height));
}

// Finds the edge by which the segment from `near` to `far` leaves a face; false where it ends in the face, or misses
// it. It starts in the face, or has entered it across an edge.
template <class T>
DIBR_HD bool leaves_face(const OutlineView<T>& view, const Triangle<T>& t, int sign, const PixelPlace& near,
                         const PixelPlace& far, bool starts, Crossing<T>* out) {
  const Edges<T> at_near = edges_at_pixel(view, t, near), at_far = edges_at_pixel(view, t, far);
  T leaves_at = T(2);
  bool meets = true;
  for (int k = 0; k < 3; ++k) {
    const T e_near = T(sign) * at_near.e[k], e_far = T(sign) * at_far.e[k];
    const bool decreases = e_far < T(0);
    meets = meets && (starts ? e_near >= T(0) : e_near > T(0) || !decreases);
    if (!decreases || !meets) continue;
    const T s = e_near / (e_near - e_far);
    if (s < leaves_at) {
      leaves_at = s;
      out->corner = k;
      out->e_near = at_near.e[k];
      out->e_far = at_far.e[k];
    }
  }
  return meets && leaves_at <= T(1);
}

// The most faces that are followed between two centres.
constexpr int kLongestWalk = 32;

// The pair of a pixel and the one to its right (horizontal) or below it.
template <class T>
DIBR_HD Crossing<T> crossing_of_pair(const OutlineView<T>& view, const PixelPlace& first, bool horizontal) {
  Crossing<T> crossing = {-1, 0, false, T(0), T(0)};
  const PixelPlace second = {first.row + (horizontal ? 0 : 1), first.column + (horizontal ? 1 : 0)};
  if (second.row >= view.height || second.column >= view.width) return crossing;
  const int64_t i = first.row * view.width + first.column, j = second.row * view.width + second.column;
  if (view.shown[i] == view.shown[j]) return crossing;
  const int32_t first_face = shown_face(view, i), second_face = shown_face(view, j);
  const T first_depth = shown_depth(view, i, first_face), second_depth = shown_depth(view, j, second_face);
  crossing.second_is_near = second_depth < first_depth || (second_depth == first_depth && second_face < first_face);
  if (!((crossing.second_is_near ? second_depth : first_depth) < T(INFINITY))) return crossing;

  const PixelPlace& near = crossing.second_is_near ? second : first;
  const PixelPlace& far = crossing.second_is_near ? first : second;
  const int32_t far_face = crossing.second_is_near ? first_face : second_face;
  int32_t face = crossing.second_is_near ? second_face : first_face;
  for (int step = 0; step < kLongestWalk; ++step) {
    const Triangle<T> t = gather_triangle(view.positions, view.faces + 3 * int64_t(face));
    const int sign = face_sign(t, false);
    if (!leaves_face(view, t, sign, near, far, step == 0, &crossing)) return crossing;
    const int32_t across = face_across(view, face, crossing.corner, sign, far_face);
    if (across < 0) {
      if (is_steep(edge_ends(t, crossing.corner), view.height, view.width) == horizontal) crossing.face = face;
      return crossing;
    }
    if (across == far_face) return crossing;
    face = across;
  }
  return crossing;
}

template <class T>
DIBR_HD T blend_of_pair(const OutlineView<T>& view, const PixelPlace& first, bool horizontal) {
  const Crossing<T> crossing = crossing_of_pair(view, first, horizontal);
  return crossing.face < 0 ? no_blend<T>() : crossing.blend();
}

// Gradient with respect to (x, y, w) of the crossing edge's two ends.
template <class T>
struct EdgeGradient {
  T begin[3], end[3];
};

// Adds the gradient of weight * e at one pixel centre, e = x'_0 y'_1 - y'_0 x'_1 of the ends of the edge.
template <class T>
DIBR_HD void accumulate_edge_gradient(const EdgeEnds<T>& e, T px, T py, T weight, EdgeGradient<T>* out) {
  const T begin_x = weight * (e.y[1] - py * e.w[1]), begin_y = -weight * (e.x[1] - px * e.w[1]);
  const T end_x = -weight * (e.y[0] - py * e.w[0]), end_y = weight * (e.x[0] - px * e.w[0]);
  out->begin[0] += begin_x;
  out->begin[1] += begin_y;
  out->begin[2] -= px * begin_x + py * begin_y;
  out->end[0] += end_x;
  out->end[1] += end_y;
  out->end[2] -= px * end_x + py * end_y;
}

// grad_blend is the gradient with respect to crossing.blend().
template <class T>
DIBR_HD EdgeGradient<T> crossing_gradient(const OutlineView<T>& view, const PixelPlace& first, bool horizontal,
                                          const Crossing<T>& crossing, T grad_blend) {
  const PixelPlace second = {first.row + (horizontal ? 0 : 1), first.column + (horizontal ? 1 : 0)};
  const PixelPlace& near = crossing.second_is_near ? second : first;
  const PixelPlace& far = crossing.second_is_near ? first : second;
  const EdgeEnds<T> ends =
      edge_ends(gather_triangle(view.positions, view.faces + 3 * int64_t(crossing.face)), crossing.corner);
  const T grad_position = crossing.second_is_near ? -grad_blend : grad_blend;
  // s = e_near / (e_near - e_far): ds / de_near = (1 - s) / (e_near - e_far), ds / de_far = s / (e_near - e_far).
  const T difference = crossing.e_near - crossing.e_far, s = crossing.position();
  EdgeGradient<T> gradient = {};
  accumulate_edge_gradient(ends, pixel_x<T>(near.column, view.width), pixel_y<T>(near.row, view.height),
                           grad_position * (T(1) - s) / difference, &gradient);
  accumulate_edge_gradient(ends, pixel_x<T>(far.column, view.width), pixel_y<T>(far.row, view.height),
                           grad_position * s / difference, &gradient);
  return gradient;
}

// The blends of a pixel's four pairs, no_blend where there is none. In the pairs to the left and above it is second.
template <class T>
struct PixelBlends {
  T left, right, above, below;
};

// blends holds (right, below) of every pixel of an image.
template <class T>
DIBR_HD PixelBlends<T> blends_at(const T* blends, int64_t row, int64_t column, int64_t width) {
  const T* here = blends + 2 * (row * width + column);
  return {column > 0 ? here[-2] : no_blend<T>(), here[0], row > 0 ? here[1 - 2 * width] : no_blend<T>(), here[1]};
}

// One channel of a pixel; neighbours are `stride` (right) and `row_stride` (below) away. A blend reads no neighbour
// that does not exist.
template <class T, class S>
DIBR_HD T antialiased(const PixelBlends<T>& b, const S* image, int64_t stride, int64_t row_stride) {
  const T own = load(*image);
  T sum = own;
  if (b.left > T(0)) sum += b.left * (load(image[-stride]) - own);
  if (b.right < T(0)) sum += b.right * (own - load(image[stride]));
  if (b.above > T(0)) sum += b.above * (load(image[-row_stride]) - own);
  if (b.below < T(0)) sum += b.below * (own - load(image[row_stride]));
  return sum;
}

// The gradient of that channel, from those of the outputs.
template <class T>
DIBR_HD T antialiased_gradient(const PixelBlends<T>& b, const T* grad, int64_t stride, int64_t row_stride) {
  const T own = *grad;
  T sum = own;
  if (is_blend(b.left)) sum -= b.left * (b.left > T(0) ? own : grad[-stride]);
  if (is_blend(b.right)) sum += b.right * (b.right > T(0) ? grad[stride] : own);
  if (is_blend(b.above)) sum -= b.above * (b.above > T(0) ? own : grad[-row_stride]);
  if (is_blend(b.below)) sum += b.below * (b.below > T(0) ? grad[row_stride] : own);
  return sum;
}

// The gradient of a pair's blend. first points at the first channel of the first pixel, the second is `offset` away.
template <class T>
DIBR_HD T blend_gradient(T blend, const T* image, const T* grad_output, int64_t offset, int64_t channels) {
  const T* grad = blend > T(0) ? grad_output + offset : grad_output;
  T sum = T(0);
  for (int64_t c = 0; c < channels; ++c) sum += grad[c] * (image[c] - image[offset + c]);
  return sum;
}

}  // namespace dibr
