// Triangles in clip space, pixel centres, and which pixels a triangle can reach. Shared by Rasterize and SoftMask.
#pragma once

#include "core/platform.h"

namespace dibr {

// Vertex k of the face is (x[k], y[k], z[k], w[k]) in clip space.
template <class T>
struct Triangle {
  T x[3], y[3], z[3], w[3];
};

template <class T>
DIBR_HD Triangle<T> gather_triangle(const T* positions, const int32_t* vertices) {
  Triangle<T> t;
  for (int k = 0; k < 3; ++k) {
    const T* p = positions + int64_t(vertices[k]) * 4;
    t.x[k] = p[0];
    t.y[k] = p[1];
    t.z[k] = p[2];
    t.w[k] = p[3];
  }
  return t;
}

// NDC of the pixel centre: x to the right, y up, row 0 at the top.
template <class T>
DIBR_HD T pixel_x(int64_t column, int64_t width) {
  return T(2 * column + 1 - width) / T(width);
}
template <class T>
DIBR_HD T pixel_y(int64_t row, int64_t height) {
  return T(height - 2 * row - 1) / T(height);
}

// False when a coordinate is NaN, infinite or beyond Limits<T>::max_coordinate.
template <class T>
DIBR_HD bool is_finite(const Triangle<T>& t) {
  bool finite = true;
  for (int k = 0; k < 3; ++k) {
    finite = finite && absolute(t.x[k]) <= Limits<T>::max_coordinate && absolute(t.y[k]) <= Limits<T>::max_coordinate &&
             absolute(t.z[k]) <= Limits<T>::max_coordinate && absolute(t.w[k]) <= Limits<T>::max_coordinate;
  }
  return finite;
}

// Determinant of the three (x, y, w) columns: 2 * (NDC area) * w0 w1 w2, positive for a counter-clockwise face. It
// keeps its meaning when some w <= 0. Always in double, and relative to the vertex of largest |w|, so that a repeated
// vertex gives exactly 0.
template <class T>
DIBR_HD double clip_determinant(const Triangle<T>& t) {
  const T w0 = absolute(t.w[0]), w1 = absolute(t.w[1]), w2 = absolute(t.w[2]);
  const int pivot = w2 > w0 && w2 > w1 ? 2 : (w1 > w0 ? 1 : 0);
  // Selects instead of indices: on a GPU an array that is indexed lives in memory.
  const auto from_pivot = [pivot](const T* v, int k) {
    const int i = (pivot + k) % 3;
    return double(i == 0 ? v[0] : (i == 1 ? v[1] : v[2]));
  };
  const double x = from_pivot(t.x, 0), y = from_pivot(t.y, 0), w = from_pivot(t.w, 0);
  if (w == 0.0) return 0.0;
  const double ax = from_pivot(t.x, 1) * w - x * from_pivot(t.w, 1);
  const double ay = from_pivot(t.y, 1) * w - y * from_pivot(t.w, 1);
  const double bx = from_pivot(t.x, 2) * w - x * from_pivot(t.w, 2);
  const double by = from_pivot(t.y, 2) * w - y * from_pivot(t.w, 2);
  return (ax * by - ay * bx) / w;
}

// Inclusive ranges of columns and rows; empty when x0 > x1.
struct PixelBox {
  int32_t x0, y0, x1, y1;
};

DIBR_HD PixelBox empty_box() { return {1, 1, 0, 0}; }
DIBR_HD bool is_empty(const PixelBox& box) { return box.x0 > box.x1 || box.y0 > box.y1; }

// A rectangle in NDC that grows around points.
struct NdcBox {
  double x0 = 1e300, y0 = 1e300, x1 = -1e300, y1 = -1e300;
  DIBR_HD void include(double x, double y) {
    x0 = minimum(x0, x);
    x1 = maximum(x1, x);
    y0 = minimum(y0, y);
    y1 = maximum(y1, y);
  }
};

// Where a point lies in columns and rows; centre i is at i. N is double, or a pack of them.
template <class N>
DIBR_HD N column_of(N x, N width) {
  return ((x + N(1.0)) * width - N(1.0)) * N(0.5);
}
template <class N>
DIBR_HD N row_of(N y, N height) {
  return ((N(1.0) - y) * height - N(1.0)) * N(0.5);
}

// The first and last pixel that something from here on, or up to here, can reach: those within a thousandth of a pixel
// count, so that rounding may add candidates, never lose one.
constexpr double kPixelMargin = 1e-3;
DIBR_HD double first_pixel(double position) { return std::ceil(position - kPixelMargin); }
DIBR_HD double last_pixel(double position) { return std::floor(position + kPixelMargin); }

// The pixels whose centres lie in the rectangle.
DIBR_HD PixelBox pixels_in(const NdcBox& ndc, int64_t width, int64_t height) {
  const double w = double(width), h = double(height);
  const double x0 = first_pixel(column_of(ndc.x0, w)), x1 = last_pixel(column_of(ndc.x1, w));
  const double y0 = first_pixel(row_of(ndc.y1, h)), y1 = last_pixel(row_of(ndc.y0, h));
  if (!(x0 <= x1 && y0 <= y1 && x1 >= 0.0 && y1 >= 0.0 && x0 < w && y0 < h)) return empty_box();
  return {int32_t(maximum(x0, 0.0)), int32_t(maximum(y0, 0.0)), int32_t(minimum(x1, w - 1.0)),
          int32_t(minimum(y1, h - 1.0))};
}

}  // namespace dibr
