// The gradient of Rasterize on the CPU: one pass over the pixels makes sums for each face, from which its gradient
// follows.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/face_runs.h"
#include "cpu/mesh.h"
#include "cpu/raster_gradient.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

// RasterSums of one face so far, where it has them.
template <class T>
struct FaceSums {
  WeightSums<T> weights;
  T depth[4];
  Triangle<T> triangle;
  int64_t pixel;  // one that shows it
  bool has_sums;
};

// The gradient of some rows of one image.
template <class T>
class Pass {
 public:
  Pass(const dibr_rasterize_backward_params& p, int64_t image, T* sum)
      : p_(p),
        raster_(static_cast<const T*>(p.positions) + image * p.vertices * 4, p.face_indices, p.height, p.width,
                p.perspective_correct != 0, sum) {}

  void run(int64_t first_row, int64_t last_row, LowestFault& fault) {
    RecentFaces<FaceSums<T>>& recent = RecentFaces<FaceSums<T>>::of_thread();
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
    sums.weights.clear();
    Quads<T, 1>::of(T(0)).store(sums.depth);
    sums.pixel = pixel;
    sums.triangle = raster_.triangle(face);
    sums.has_sums = raster_.has_sums(sums.triangle);
  }

  void add(int32_t face, FaceSums<T>& sums, int64_t pixel, int count) {
    if (!sums.has_sums) return add_each(face, sums.triangle, pixel, count);
    if (p_.barycentrics != nullptr) {
      const T* all = static_cast<const T*>(p_.barycentrics);
      return add(sums, all + 3 * pixel, all + 3 * pixels(), pixel, count);
    }
    // Made again, a few at a time.
    constexpr int kAtOnce = 16;
    T again[3 * kAtOnce + 16];
    for (int done = 0; done < count; done += kAtOnce) {
      const int some = std::min(count - done, kAtOnce);
      for (int i = 0; i < some; ++i) raster_.make_barycentrics(sums.triangle, pixel + done + i, again + 3 * i);
      add(sums, again, again + 3 * kAtOnce + 16, pixel + done, some);
    }
  }

  // b are the barycentrics of the `count` pixels from `pixel` on, and b_end is where they may be read to.
  void add(FaceSums<T>& sums, const T* b, const T* b_end, int64_t pixel, int count) const {
    if (p_.grad_barycentrics != nullptr) {
      const T* all = static_cast<const T*>(p_.grad_barycentrics);
      sums.weights.add(b, b_end, all + 3 * pixel, all + 3 * pixels(), count);
    }
    if (p_.grad_depth != nullptr) add_depth(sums, b, pixel, count);
  }

  void add_depth(FaceSums<T>& sums, const T* b, int64_t pixel, int count) const {
    const T* gradient = static_cast<const T*>(p_.grad_depth) + pixel;
    const T* w = sums.triangle.w;
    for (int i = 0; i < count; ++i, b += 3) {
      const T share =
          raster_.perspective_correct() ? gradient[i] / (b[0] * w[0] + b[1] * w[1] + b[2] * w[2]) : gradient[i];
      for (int m = 0; m < 3; ++m) sums.depth[m] += share * b[m];
    }
  }

  void add_each(int32_t face, const Triangle<T>& t, int64_t begin, int count) {
    for (int64_t pixel = begin; pixel < begin + count; ++pixel) {
      const T none[3] = {};
      raster_.add_pixel(
          face, t, pixel,
          p_.grad_barycentrics != nullptr ? static_cast<const T*>(p_.grad_barycentrics) + 3 * pixel : none,
          p_.grad_depth != nullptr ? static_cast<const T*>(p_.grad_depth)[pixel] : T(0));
    }
  }

  void flush(int32_t face, const FaceSums<T>& sums) const {
    if (!sums.has_sums) return;
    RasterSums<T> totals;
    sums.weights.total(totals);
    std::copy_n(sums.depth, 3, totals.depth);
    raster_.add(face, sums.triangle, sums.pixel, totals);
  }

  int64_t pixels() const { return p_.batch * p_.height * p_.width; }

  const dibr_rasterize_backward_params& p_;
  const RasterGradient<T> raster_;
};

template <class T>
Scatter<T> position_scatter(const dibr_rasterize_backward_params& p, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, p.height, p.batch * p.height * p.width, arena);
}

template <class T>
dibr_status backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Scatter<T> scatter = position_scatter<T>(p, arena);
  CornerCheck corners("rasterize_backward", p);
  LowestFault fault;
  const auto add_rows = [&](int64_t image, int64_t begin, int64_t end, T* sum) {
    Pass<T>(p, image, sum).run(image * p.height + begin, image * p.height + end, fault);
  };
  run_phases(
      launch, [&] { return !corners.found(); }, corners.phase(),
      scatter.phases(static_cast<T*>(p.grad_positions), add_rows));
  return corners.found() ? corners.status() : face_index_status("rasterize_backward", p, fault);
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
