// The gradient of Interpolate over a raster on the CPU: one pass over the pixels, from the gradient of the image to
// those of attributes and positions.
//
// At a pixel with barycentrics b, g is the gradient with respect to the channels c of the output and
// q_k = sum_c g_c a_kc that with respect to b_k, where a_k are the attributes of vertex k. Over a face's pixels the
// attributes' gradient is S_mc = sum g_c b_m, and what the positions' follows from (RasterSums::weight) is
//
//     sum (q_k - q.b) b_m  =  sum_c a_kc S_mc - N_m,        N_m = sum (q.b) b_m
//
// so that one more sum beside S is all that they need. Since the b_k sum to 1, nothing changes when the same is taken
// from every a_k: here it is a_0, which keeps the digits of attributes that differ little.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/channel_sums.h"
#include "cpu/face_runs.h"
#include "cpu/mesh.h"
#include "cpu/raster_gradient.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

using Params = dibr_interpolate_raster_backward_params;

int64_t pixels(const Params& p) { return p.batch * p.height * p.width; }

// What all faces of one image add to: attributes may be NULL.
template <class T>
struct Target {
  const T* attributes;
  T* attribute_sum;
  RasterGradient<T> raster;
  BlocksInUse<T> attributes_in_use, positions_in_use;

  Target(const Params& p, int64_t image, T* attribute_sum, T* position_sum, BlocksInUse<T> attributes_in_use,
         BlocksInUse<T> positions_in_use)
      : attributes(attributes_of<T>(p, image)),
        attribute_sum(attribute_sum),
        raster(static_cast<const T*>(p.positions) + image * p.raster_vertices * 4, p.raster_face_indices, p.height,
               p.width, p.perspective_correct != 0, position_sum),
        attributes_in_use(attributes_in_use),
        positions_in_use(positions_in_use) {}

  // Before anything is added to a face's vertices.
  void touch(const Params& p, int32_t face) const {
    for (int k = 0; k < 3; ++k) {
      if (attribute_sum != nullptr) attributes_in_use.touch(p.face_indices[3 * int64_t(face) + k]);
      positions_in_use.touch(p.raster_face_indices[3 * int64_t(face) + k]);
    }
  }
};

// With up to four channels: sums over a face's pixels alone.
template <class T, int kChannels>
class FewChannels {
 public:
  struct Sums {
    alignas(64) T products[kChannels][16];  // S, of four pixels each
    alignas(64) T along[16];                // N
    T attributes[kChannels][4];             // of the vertices, less those of the first
    int64_t pixel;                          // one that shows the face
    bool has_sums;
  };

  FewChannels(const Params& p, const Target<T>& target) : p_(p), target_(target) {}

  void start(int32_t face, int64_t pixel, Sums& sums) const {
    target_.touch(p_, face);
    for (int c = 0; c < kChannels; ++c) Quads<T>::of(T(0)).store(sums.products[c]);
    Quads<T>::of(T(0)).store(sums.along);
    const Corners<Params> corners(p_, face);
    for (int c = 0; c < kChannels; ++c) {
      const T first = target_.attributes[corners.offset[0] + c];
      for (int k = 0; k < 3; ++k) sums.attributes[c][k] = target_.attributes[corners.offset[k] + c] - first;
      sums.attributes[c][3] = T(0);
    }
    sums.pixel = pixel;
    sums.has_sums = target_.raster.perspective_correct() || target_.raster.has_sums(target_.raster.triangle(face));
  }

  void add(int32_t face, Sums& sums, int64_t pixel, int count) const {
    add_sums(sums, pixel, count);
    if (!sums.has_sums) add_each(face, sums, pixel, count);
  }

  void flush(int32_t face, const Sums& sums) const {
    T products[kChannels][4], along[4];
    for (int c = 0; c < kChannels; ++c) add_pixels(sums.products[c], products[c]);
    if (target_.attribute_sum != nullptr) {
      const Corners<Params> corners(p_, face);
      for (int c = 0; c < kChannels; ++c) {
        for (int k = 0; k < 3; ++k) target_.attribute_sum[corners.offset[k] + c] += products[c][k];
      }
    }
    if (!sums.has_sums) return;
    add_pixels(sums.along, along);
    RasterSums<T> totals = {};
    for (int k = 0; k < 3; ++k) {
      for (int m = 0; m < 3; ++m) {
        T weight = -along[m];
        for (int c = 0; c < kChannels; ++c) weight += sums.attributes[c][k] * products[c][m];
        totals.weight[k][m] = weight;
      }
    }
    target_.raster.add(face, target_.raster.triangle(face), sums.pixel, totals);
  }

 private:
  DIBR_HD void add_sums(Sums& sums, int64_t begin, int count) const {
    const T *b = static_cast<const T*>(p_.barycentrics), *b_end = b + 3 * pixels(p_);
    const T *g = static_cast<const T*>(p_.grad_output), *g_end = g + kChannels * pixels(p_);
    ChannelSums<T, kChannels> channels(sums.products, sums.attributes);
    Quads<T> along = Quads<T>::load(sums.along);
    for (int64_t pixel = begin; pixel < begin + count; pixel += 4) {
      const int some = int(std::min<int64_t>(begin + count - pixel, 4));
      prefetch(b, 3 * (pixel + p_.width));
      prefetch(g, kChannels * (pixel + p_.width));
      const Quads<T> gradient = load_pixels<kChannels>(g + kChannels * pixel, some, g_end);
      const Quads<T> weights = load_pixels<3>(b + 3 * pixel, some, b_end);
      channels.add(weights, gradient);
      const Quads<T> products = channels.of_barycentrics(gradient) * weights;
      along = along + (products.template spread<1>() + products.template spread<2>()) * weights;
    }
    channels.store(sums.products);
    along.store(sums.along);
  }

  void add_each(int32_t face, const Sums& sums, int64_t begin, int count) const {
    const Triangle<T> triangle = target_.raster.triangle(face);
    for (int64_t pixel = begin; pixel < begin + count; ++pixel) {
      const T* gradient = static_cast<const T*>(p_.grad_output) + kChannels * pixel;
      T of_barycentrics[3] = {};
      for (int c = 0; c < kChannels; ++c) {
        for (int k = 0; k < 3; ++k) of_barycentrics[k] += gradient[c] * sums.attributes[c][k];
      }
      target_.raster.add_pixel(face, triangle, pixel, of_barycentrics, T(0));
    }
  }

  const Params& p_;
  const Target<T>& target_;
};

// Any number of channels: attributes pixel by pixel, and the gradient of the barycentrics of a few pixels at a time.
template <class T>
class ManyChannels {
 public:
  struct Sums {
    WeightSums<T> weights;
    Triangle<T> triangle;
    int64_t offset[3], pixel;
    bool has_sums;
  };

  ManyChannels(const Params& p, const Target<T>& target) : p_(p), target_(target) {}

  void start(int32_t face, int64_t pixel, Sums& sums) const {
    target_.touch(p_, face);
    sums.weights.clear();
    sums.triangle = target_.raster.triangle(face);
    std::copy_n(Corners<Params>(p_, face).offset, 3, sums.offset);
    sums.pixel = pixel;
    sums.has_sums = target_.raster.has_sums(sums.triangle);
  }

  void add(int32_t face, Sums& sums, int64_t begin, int count) const {
    constexpr int kAtOnce = 16;
    T gradients[3 * kAtOnce + 16];
    const T* b = static_cast<const T*>(p_.barycentrics);
    for (int done = 0; done < count; done += kAtOnce) {
      const int some = std::min(count - done, kAtOnce);
      const int64_t pixel = begin + done;
      for (int i = 0; i < some; ++i) {
        add_attributes(sums, pixel + i);
        of_barycentrics(sums, pixel + i, gradients + 3 * i);
        if (!sums.has_sums) target_.raster.add_pixel(face, sums.triangle, pixel + i, gradients + 3 * i, T(0));
      }
      if (!sums.has_sums) continue;
      sums.weights.add(b + 3 * pixel, b + 3 * pixels(p_), gradients, gradients + 3 * kAtOnce + 16, some);
    }
  }

  void flush(int32_t face, const Sums& sums) const {
    if (!sums.has_sums) return;
    RasterSums<T> totals = {};
    sums.weights.total(totals);
    target_.raster.add(face, sums.triangle, sums.pixel, totals);
  }

 private:
  const T* gradient_of(int64_t pixel) const { return static_cast<const T*>(p_.grad_output) + p_.channels * pixel; }

  void add_attributes(const Sums& sums, int64_t pixel) const {
    if (target_.attribute_sum == nullptr) return;
    const T *b = static_cast<const T*>(p_.barycentrics) + 3 * pixel, *gradient = gradient_of(pixel);
    for (int k = 0; k < 3; ++k) {
      T* sum = target_.attribute_sum + sums.offset[k];
      for (int64_t c = 0; c < p_.channels; ++c) sum[c] += b[k] * gradient[c];
    }
  }

  void of_barycentrics(const Sums& sums, int64_t pixel, T* out) const {
    const T* gradient = gradient_of(pixel);
    for (int k = 0; k < 3; ++k) {
      const T* attributes = target_.attributes + sums.offset[k];
      T total = T(0);
      for (int64_t c = 0; c < p_.channels; ++c) total += gradient[c] * attributes[c];
      out[k] = total;
    }
  }

  const Params& p_;
  const Target<T>& target_;
};

template <class T, class Channels>
void run_rows(const Params& p, const Channels& channels, int64_t first_row, int64_t last_row, LowestFault& fault) {
  using Sums = typename Channels::Sums;
  RecentFaces<Sums>& recent = RecentFaces<Sums>::of_thread();
  const auto flush = [&](int32_t face, const Sums& sums) { channels.flush(face, sums); };
  for_each_strip_row(p.face_index, pixels(p), p.width, first_row, last_row, fault, [&](const StripRow& row) {
    for (int i = 0; i < row.count(); ++i) {
      const StripRow::Run& run = row.runs()[i];
      const int64_t pixel = row.begin() + run.offset;
      if (run.face >= p.faces) {
        fault.report(pixel);
        continue;
      }
      const auto start = [&](Sums& sums) { channels.start(run.face, pixel, sums); };
      channels.add(run.face, recent.of(run.face, start, flush), pixel, run.count);
    }
  });
  recent.forget_all(flush);
}

template <class T>
void run_rows(const Params& p, const Target<T>& target, int64_t first_row, int64_t last_row, LowestFault& fault) {
  switch (p.channels) {
    case 1:
      return run_rows<T>(p, FewChannels<T, 1>(p, target), first_row, last_row, fault);
    case 2:
      return run_rows<T>(p, FewChannels<T, 2>(p, target), first_row, last_row, fault);
    case 3:
      return run_rows<T>(p, FewChannels<T, 3>(p, target), first_row, last_row, fault);
    case 4:
      return run_rows<T>(p, FewChannels<T, 4>(p, target), first_row, last_row, fault);
    default:
      return run_rows<T>(p, ManyChannels<T>(p, target), first_row, last_row, fault);
  }
}

// Both gradients collect from the same runs of rows. An image's positions have their own; attributes that all images
// share are those of all runs together.
template <class T>
struct Scatters {
  Scatter<T> positions, attributes;

  Scatters(const Params& p, Arena& arena)
      : positions(runs(p), p.batch, p.raster_vertices * 4, p.height, arena, 4),
        attributes(attribute_runs(p, positions), p.attribute_batch == p.batch ? p.batch : 1, p.vertices * p.channels,
                   p.height, arena, p.channels) {}

 private:
  using Runs = typename Scatter<T>::Runs;

  static Runs runs(const Params& p) {
    const int64_t elements = p.raster_vertices * 4 + p.vertices * p.channels;
    return {Scatter<T>::runs_within(p.batch, elements, p.height, std::max(pixels(p), p.batch * elements))};
  }
  static Runs attribute_runs(const Params& p, const Scatter<T>& positions) {
    return {p.attribute_batch == p.batch ? positions.parts() / std::max<int64_t>(p.batch, 1) : positions.parts()};
  }
};

template <class T>
dibr_status backward(const Params& p, const dibr_launch& launch) {
  constexpr const char* kOp = "interpolate_raster_backward";
  Arena arena(launch.workspace);
  const Scatters<T> scatters(p, arena);
  T *grad_positions = static_cast<T*>(p.grad_positions), *grad_attributes = static_cast<T*>(p.grad_attributes);
  if (p.batch == 0 && grad_attributes != nullptr)
    std::fill_n(grad_attributes, p.attribute_batch * p.vertices * p.channels, T(0));
  CornerCheck corners(kOp, p), raster_corners(kOp, "raster_faces", p.raster_face_indices, p.faces, p.raster_vertices);
  LowestFault fault;
  const auto add_part = [&](int64_t part) {
    const int64_t image = part * p.batch / scatters.positions.parts();
    const Range rows = scatters.positions.units_of(part);
    const Target<T> target(p, image, grad_attributes ? scatters.attributes.cleared(part, grad_attributes) : nullptr,
                           scatters.positions.cleared(part, grad_positions), scatters.attributes.in_use(part),
                           scatters.positions.in_use(part));
    run_rows<T>(p, target, image * p.height + rows.begin, image * p.height + rows.end, fault);
  };
  run_phases(
      launch, [&] { return !corners.found() && !raster_corners.found(); },
      together(corners.phase(), raster_corners.phase()), Phase{scatters.positions.parts(), add_part},
      together(scatters.positions.add_up(grad_positions), scatters.attributes.add_up(grad_attributes)));
  if (corners.found()) return corners.status();
  return raster_corners.found() ? raster_corners.status() : face_index_status(kOp, p, fault);
}

}  // namespace

dibr_status interpolate_raster_backward_workspace(const Params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { Scatters<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status interpolate_raster_backward(const Params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, alone_if_small(p, launch)); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
