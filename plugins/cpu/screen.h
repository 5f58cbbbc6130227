// Vertices on the screen, each computed once for all faces around it: what a face's box and direction follow from.
#pragma once

#include <algorithm>
#include <limits>

#include "abi/arena.h"
#include "core/rasterize.h"
#include "cpu/bins.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// A face is the slow case, to be looked at with raster_box, where a vertex of it is not finite, in front of the near
// plane, far outside of the image, or has w below kLeastW: then column is NaN.
struct ScreenVertex {
  float column, row;
  int16_t reach[4];  // -first column, -first row, last column, last row, clamped to the image

  static constexpr double kLeastW = 1e-4;
  static constexpr double kFarthest = 1e6;
};

template <class T>
ScreenVertex screen_vertex(const T* p, bool depth_clip, double width, double height) {
  const double w = double(p[3]);
  const bool finite = absolute(p[0]) <= Limits<T>::max_coordinate && absolute(p[1]) <= Limits<T>::max_coordinate &&
                      absolute(p[2]) <= Limits<T>::max_coordinate && absolute(p[3]) <= Limits<T>::max_coordinate;
  ScreenVertex v = {std::numeric_limits<float>::quiet_NaN(), 0, {0, 0, 0, 0}};
  if (!(finite && w >= ScreenVertex::kLeastW && (!depth_clip || double(p[2]) + w >= 0.0))) return v;
  const double column = column_of(double(p[0]) / w, width), row = row_of(double(p[1]) / w, height);
  if (!(absolute(column) <= ScreenVertex::kFarthest && absolute(row) <= ScreenVertex::kFarthest)) return v;
  v.column = float(column);
  v.row = float(row);
  v.reach[0] = int16_t(-minimum(maximum(first_pixel(column), 0.0), width));
  v.reach[1] = int16_t(-minimum(maximum(first_pixel(row), 0.0), height));
  v.reach[2] = int16_t(minimum(maximum(last_pixel(column), -1.0), width - 1.0));
  v.reach[3] = int16_t(minimum(maximum(last_pixel(row), -1.0), height - 1.0));
  return v;
}

// face_sign(t, false) of a face that has an area beyond all rounding, else 0. Twice the area in pixels is compared with
// a bound of its error in float, and with what min_determinant is at kLeastW in the largest image.
inline int clear_sign(const ScreenVertex& a, const ScreenVertex& b, const ScreenVertex& c) {
  const float x1 = b.column - a.column, y1 = b.row - a.row, x2 = c.column - a.column, y2 = c.row - a.row;
  const float area = x2 * y1 - x1 * y2;  // rows run down
  const float size = absolute(x1) + absolute(y1) + absolute(x2) + absolute(y2);
  const float error = 1e-6f * size * (absolute(a.column) + absolute(a.row) + 2.0f * size) + 1e-5f;
  return area > error ? 1 : (area < -error ? -1 : 0);
}

// raster_box as a union of what the vertices reach: rounding keeps order, so the numbers are the same.
inline FaceBox box_around(const ScreenVertex& a, const ScreenVertex& b, const ScreenVertex& c, int sign) {
  int16_t reach[4];
  for (int k = 0; k < 4; ++k) reach[k] = std::max(std::max(a.reach[k], b.reach[k]), c.reach[k]);
  if (-reach[0] > reach[2] || -reach[1] > reach[3]) return kEmptyBox;
  return {int16_t(-reach[0]), int16_t(-reach[1]), reach[2], reach[3], int16_t(sign)};
}

// All vertices of a batch.
class Screen {
 public:
  Screen(int64_t batch, int64_t vertices, Arena& arena)
      : batch_(batch), vertices_(vertices), screen_(arena.take<ScreenVertex>(batch * vertices)) {}

  template <class T>
  auto project(const T* positions, bool depth_clip, int64_t height, int64_t width) const {
    return phase_of_blocks(batch_ * vertices_, 1024, [=, screen = screen_](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        screen[i] = screen_vertex(positions + 4 * i, depth_clip, double(width), double(height));
      }
    });
  }

  const ScreenVertex* of_image(int64_t image) const { return screen_ + image * vertices_; }

 private:
  int64_t batch_, vertices_;
  ScreenVertex* screen_;  // [B, V]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
