// The gradient of Rasterize on the CPU: one pass over the pixels makes sums for each face, from which its gradient
// follows.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/rasterize.h"
#include "cpu/face_runs.h"
#include "cpu/mesh.h"
#include "cpu/quads.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

// RasterSums of one face so far. `whole` is false for a face that has none in screen space (see raster_gradient).
template <class T>
struct FaceSums {
  alignas(64) T weight[3][16];  // RasterSums::weight[k], of four pixels each
  T depth[4];
  Triangle<T> triangle;
  T px, py;  // a pixel that shows it
  bool whole;
};

// The gradient of some rows of one image.
template <class T>
class Pass {
 public:
  Pass(const dibr_rasterize_backward_params& p, int64_t image, T* sum)
      : p_(p), positions_(static_cast<const T*>(p.positions) + image * p.vertices * 4), sum_(sum) {}

  void run(int64_t first_row, int64_t last_row, LowestFault& fault) {
    static thread_local RecentFaces<FaceSums<T>> recent_of_thread;
    RecentFaces<FaceSums<T>>& recent = recent_of_thread;
    const auto flush = [&](int32_t face, const FaceSums<T>& sums) { this->flush(face, sums); };
    for_each_strip_row(p_.face_index, pixels(), p_.width, first_row, last_row, fault, [&](const StripRow& row) {
      for (int i = 0; i < row.count(); ++i) {
        const StripRow::Run& run = row.runs()[i];
        const int64_t pixel = row.begin() + run.offset;
        if (run.face >= p_.faces) {
          fault.report(pixel);
          continue;
        }
        const auto start = [&](FaceSums<T>& sums) { this->start(run.face, pixel, sums); };
        add(run.face, recent.of(run.face, start, flush), pixel, run.count);
      }
    });
    recent.forget_all(flush);
  }

 private:
  void start(int32_t face, int64_t pixel, FaceSums<T>& sums) const {
    for (int k = 0; k < 3; ++k) Quads<T>::of(T(0)).store(sums.weight[k]);
    Quads<T, 1>::of(T(0)).store(sums.depth);
    sums.px = x_of(pixel);
    sums.py = y_of(pixel);
    const Triangle<T>& t = sums.triangle = gather_triangle(positions_, p_.face_indices + 3 * int64_t(face));
    sums.whole = p_.perspective_correct != 0 || (t.w[0] > T(0) && t.w[1] > T(0) && t.w[2] > T(0));
  }

  void add(int32_t face, FaceSums<T>& sums, int64_t pixel, int count) {
    if (!sums.whole) return add_each(face, sums.triangle, pixel, count);
    if (p_.barycentrics != nullptr) {
      const T* all = static_cast<const T*>(p_.barycentrics);
      return add(sums, all + 3 * pixel, all + 3 * pixels(), pixel, count);
    }
    // Made again, a few at a time.
    constexpr int kAtOnce = 16;
    T again[3 * kAtOnce + 16];
    for (int done = 0; done < count; done += kAtOnce) {
      const int some = std::min(count - done, kAtOnce);
      for (int i = 0; i < some; ++i) make_barycentrics(sums.triangle, pixel + done + i, again + 3 * i);
      add(sums, again, again + 3 * kAtOnce + 16, pixel + done, some);
    }
  }

  // b are the barycentrics of the `count` pixels from `pixel` on, and b_end is where they may be read to.
  void add(FaceSums<T>& sums, const T* b, const T* b_end, int64_t pixel, int count) const {
    if (p_.grad_barycentrics != nullptr) add_weights(sums, b, b_end, pixel, count);
    if (p_.grad_depth != nullptr) add_depth(sums, b, pixel, count);
  }

  DIBR_HD void add_weights(FaceSums<T>& sums, const T* b, const T* b_end, int64_t pixel, int count) const {
    const T* all = static_cast<const T*>(p_.grad_barycentrics);
    const T *g = all + 3 * pixel, *g_end = all + 3 * pixels();
    Quads<T> sum0 = Quads<T>::load(sums.weight[0]);
    Quads<T> sum1 = Quads<T>::load(sums.weight[1]);
    Quads<T> sum2 = Quads<T>::load(sums.weight[2]);
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
    sum0.store(sums.weight[0]);
    sum1.store(sums.weight[1]);
    sum2.store(sums.weight[2]);
  }

  void add_depth(FaceSums<T>& sums, const T* b, int64_t pixel, int count) const {
    const T* gradient = static_cast<const T*>(p_.grad_depth) + pixel;
    const T* w = sums.triangle.w;
    for (int i = 0; i < count; ++i, b += 3) {
      const T share = p_.perspective_correct ? gradient[i] / (b[0] * w[0] + b[1] * w[1] + b[2] * w[2]) : gradient[i];
      for (int m = 0; m < 3; ++m) sums.depth[m] += share * b[m];
    }
  }

  // Without sums.
  void add_each(int32_t face, const Triangle<T>& t, int64_t begin, int count) {
    TriangleGradient<T> gradient = {};
    for (int64_t pixel = begin; pixel < begin + count; ++pixel) {
      const T none[3] = {};
      accumulate_raster_gradient(
          t, x_of(pixel), y_of(pixel), false,
          p_.grad_barycentrics != nullptr ? static_cast<const T*>(p_.grad_barycentrics) + 3 * pixel : none,
          p_.grad_depth != nullptr ? static_cast<const T*>(p_.grad_depth)[pixel] : T(0), &gradient);
    }
    spread(face, gradient);
  }

  void flush(int32_t face, const FaceSums<T>& sums) const {
    if (!sums.whole) return;
    RasterSums<T> totals;
    for (int k = 0; k < 3; ++k) {
      T four[4];
      add_pixels(sums.weight[k], four);
      for (int m = 0; m < 3; ++m) totals.weight[k][m] = four[m];
      totals.depth[k] = sums.depth[k];
    }
    spread(face, raster_gradient(sums.triangle, sums.px, sums.py, p_.perspective_correct != 0, totals));
  }

  void spread(int32_t face, const TriangleGradient<T>& gradient) const {
    for (int k = 0; k < 3; ++k) {
      T* target = sum_ + 4 * int64_t(p_.face_indices[3 * int64_t(face) + k]);
      (Quads<T, 1>::load(target) + Quads<T, 1>::load(gradient.v[k])).store(target);
    }
  }

  void make_barycentrics(const Triangle<T>& t, int64_t pixel, T* out) const {
    barycentrics(t, edges_at(t, x_of(pixel), y_of(pixel)), p_.perspective_correct != 0, out);
  }
  T x_of(int64_t pixel) const { return pixel_x<T>(pixel % p_.width, p_.width); }
  T y_of(int64_t pixel) const { return pixel_y<T>(pixel / p_.width % p_.height, p_.height); }
  int64_t pixels() const { return p_.batch * p_.height * p_.width; }

  const dibr_rasterize_backward_params& p_;
  const T* positions_;
  T* sum_;
};

template <class T>
Scatter<T> position_scatter(const dibr_rasterize_backward_params& p, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, p.height, p.batch * p.height * p.width, arena);
}

template <class T>
dibr_status backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize_backward", p, launch)) return status;
  Arena arena(launch.workspace);
  LowestFault fault;
  position_scatter<T>(p, arena).run_parts(
      launch, static_cast<T*>(p.grad_positions), [&](int64_t image, int64_t begin, int64_t end, T* sum) {
        Pass<T>(p, image, sum).run(image * p.height + begin, image * p.height + end, fault);
      });
  return face_index_status("rasterize_backward", p, fault);
}

}  // namespace

dibr_status rasterize_backward_workspace(const dibr_rasterize_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { position_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status rasterize_backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
