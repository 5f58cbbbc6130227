// How the sums over a face's pixels become its gradient, and that its vertices': the last step of every gradient of
// Rasterize.
#pragma once

#include "core/rasterize.h"
#include "cpu/quads.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// The faces of one image. Pixels are counted from the first image's corner.
template <class T>
class RasterGradient {
 public:
  // Adds to sum [vertices, 4].
  RasterGradient(const T* positions, const int32_t* face_indices, int64_t height, int64_t width,
                 bool perspective_correct, T* sum)
      : positions_(positions),
        face_indices_(face_indices),
        height_(height),
        width_(width),
        perspective_correct_(perspective_correct),
        sum_(sum) {}

  Triangle<T> triangle(int32_t face) const { return gather_triangle(positions_, face_indices_ + 3 * int64_t(face)); }

  // Whether a face's gradient follows from sums (see raster_gradient); else its pixels go one by one.
  bool has_sums(const Triangle<T>& t) const {
    return perspective_correct_ || (t.w[0] > T(0) && t.w[1] > T(0) && t.w[2] > T(0));
  }
  // `pixel` is one that shows the face.
  void add(int32_t face, const Triangle<T>& t, int64_t pixel, const RasterSums<T>& sums) const {
    spread(face, raster_gradient(t, x_of(pixel), y_of(pixel), perspective_correct_, sums));
  }
  // grad_b and grad_depth are those of the pixel.
  void add_pixel(int32_t face, const Triangle<T>& t, int64_t pixel, const T* grad_b, T grad_depth) const {
    TriangleGradient<T> gradient = {};
    accumulate_raster_gradient(t, x_of(pixel), y_of(pixel), perspective_correct_, grad_b, grad_depth, &gradient);
    spread(face, gradient);
  }

  void make_barycentrics(const Triangle<T>& t, int64_t pixel, T* out) const {
    barycentrics(t, edges_at(t, x_of(pixel), y_of(pixel)), perspective_correct_, out);
  }
  bool perspective_correct() const { return perspective_correct_; }

 private:
  void spread(int32_t face, const TriangleGradient<T>& gradient) const {
    for (int k = 0; k < 3; ++k) {
      T* target = sum_ + 4 * int64_t(face_indices_[3 * int64_t(face) + k]);
      (Quads<T, 1>::load(target) + Quads<T, 1>::load(gradient.v[k])).store(target);
    }
  }
  T x_of(int64_t pixel) const { return pixel_x<T>(pixel % width_, width_); }
  T y_of(int64_t pixel) const { return pixel_y<T>(pixel / width_ % height_, height_); }

  const T* positions_;
  const int32_t* face_indices_;
  int64_t height_, width_;
  bool perspective_correct_;
  T* sum_;
};

// RasterSums::weight of one face so far, of four pixels each.
template <class T>
struct WeightSums {
  alignas(64) T weight[3][16];

  void clear() {
    for (int k = 0; k < 3; ++k) Quads<T>::of(T(0)).store(weight[k]);
  }
  // Of `count` pixels with barycentrics b and their gradient g, which may be read up to their ends.
  DIBR_HD void add(const T* b, const T* b_end, const T* g, const T* g_end, int count) {
    Quads<T> sum0 = Quads<T>::load(weight[0]), sum1 = Quads<T>::load(weight[1]), sum2 = Quads<T>::load(weight[2]);
    for (int i = 0; i < count; i += 4) {
      const int some = std::min(count - i, 4);
      const Quads<T> weights = load_pixels<3>(b + 3 * i, some, b_end);
      const Quads<T> gradient = load_pixels<3>(g + 3 * i, some, g_end);
      const Quads<T> products = weights * gradient;
      const Quads<T> mean =
          products.template spread<0>() + products.template spread<1>() + products.template spread<2>();
      const Quads<T> difference = gradient - mean;
      sum0 = sum0 + difference.template spread<0>() * weights;
      sum1 = sum1 + difference.template spread<1>() * weights;
      sum2 = sum2 + difference.template spread<2>() * weights;
    }
    sum0.store(weight[0]);
    sum1.store(weight[1]);
    sum2.store(weight[2]);
  }
  void total(RasterSums<T>& sums) const {
    for (int k = 0; k < 3; ++k) {
      T four[4];
      add_pixels(weight[k], four);
      for (int m = 0; m < 3; ++m) sums.weight[k][m] = four[m];
    }
  }
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
