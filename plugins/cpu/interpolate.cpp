// Interpolate on the CPU: one pass over the rows; the backward scatters to vertices through private arrays.
#include "core/interpolate.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/face_runs.h"
#include "cpu/mesh.h"
#include "cpu/quads.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

// Offsets of a face's three attribute rows within one image's attributes.
template <class P>
struct Corners {
  int64_t offset[3];
  Corners(const P& p, int64_t face) {
    for (int k = 0; k < 3; ++k) offset[k] = p.face_indices[3 * face + k] * p.channels;
  }
};

template <class T, class P>
const T* attributes_of(const P& p, int64_t image) {
  const int64_t source = p.attribute_batch == 1 ? 0 : image;
  return static_cast<const T*>(p.attributes) + source * p.vertices * p.channels;
}

constexpr int64_t kRowsAtOnce = 16;

template <class S>
dibr_status forward(const dibr_interpolate_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  if (const dibr_status status = check_faces("interpolate", p, launch)) return status;
  if (const dibr_status status = check_face_index("interpolate", p, launch)) return status;
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const S* attributes = attributes_of<S>(p, row / p.height);
    for (int64_t pixel = row * p.width; pixel < (row + 1) * p.width; ++pixel) {
      S* out = static_cast<S*>(p.output) + pixel * p.channels;
      if (p.face_index[pixel] < 0) {
        std::fill_n(out, p.channels, S{});
        continue;
      }
      const T* b = static_cast<const T*>(p.barycentrics) + 3 * pixel;
      const Corners<dibr_interpolate_params> corners(p, p.face_index[pixel]);
      for (int64_t c = 0; c < p.channels; ++c) {
        store(interpolated(b, attributes[corners.offset[0] + c], attributes[corners.offset[1] + c],
                           attributes[corners.offset[2] + c]),
              out + c);
      }
    }
  });
  return DIBR_OK;
}

template <class T>
void clear_barycentric_gradient(const dibr_interpolate_backward_params& p, int64_t begin, int64_t end) {
  if (p.grad_barycentrics == nullptr) return;
  std::memset(static_cast<T*>(p.grad_barycentrics) + 3 * begin, 0, size_t(end - begin) * 3 * sizeof(T));
}

// Both gradients of a run of pixels with up to four channels: those of the attributes are summed over the face's
// pixels.
template <class T, int kChannels>
struct FaceSums {
  alignas(64) T sum[kChannels][16];  // gradient * barycentrics, of four pixels each
  T attributes[kChannels][4];        // of the face's vertices
};

// The same in registers, of channel kChannels - 1 and those before.
template <class T, int kChannels>
struct ChannelSums {
  ChannelSums<T, kChannels - 1> before;
  Quads<T> sum, attributes;

  DIBR_HD ChannelSums(const T (*sums)[16], const T (*of_vertices)[4])
      : before(sums, of_vertices),
        sum(Quads<T>::load(sums[kChannels - 1])),
        attributes(Quads<T>::repeat(of_vertices[kChannels - 1])) {}
  DIBR_HD void add(const Quads<T>& b, const Quads<T>& g) {
    before.add(b, g);
    sum = sum + g.template spread<kChannels - 1>() * b;
  }
  // The gradient of the barycentrics.
  DIBR_HD Quads<T> of_barycentrics(const Quads<T>& g) const {
    const Quads<T> product = g.template spread<kChannels - 1>() * attributes;
    if constexpr (kChannels == 1)
      return product;
    else
      return before.of_barycentrics(g) + product;
  }
  DIBR_HD void store(T (*sums)[16]) const {
    before.store(sums);
    sum.store(sums[kChannels - 1]);
  }
};
template <class T>
struct ChannelSums<T, 0> {
  DIBR_HD ChannelSums(const T (*)[16], const T (*)[4]) {}
  DIBR_HD void add(const Quads<T>&, const Quads<T>&) {}
  DIBR_HD Quads<T> of_barycentrics(const Quads<T>&) const { return Quads<T>::of(T(0)); }
  DIBR_HD void store(T (*)[16]) const {}
};

template <class T, int kChannels>
class FewChannels {
 public:
  FewChannels(const dibr_interpolate_backward_params& p, const T* attributes, T* sum)
      : p_(p), attributes_(attributes), sum_(sum) {}

  void run(int64_t first_row, int64_t last_row, LowestFault& fault) {
    static thread_local RecentFaces<FaceSums<T, kChannels>> recent_of_thread;
    RecentFaces<FaceSums<T, kChannels>>& recent = recent_of_thread;
    const auto flush = [&](int32_t face, const FaceSums<T, kChannels>& sums) { this->flush(face, sums); };
    for_each_run(
        p_.face_index, p_.faces, p_.width, first_row, last_row, fault,
        [&](int32_t face, int64_t begin, int64_t end, int64_t limit) {
          const auto start = [&](FaceSums<T, kChannels>& sums) { this->start(face, sums); };
          add(recent.of(face, flush, start), begin, end, limit);
        },
        [&](int64_t begin, int64_t end) { clear_barycentric_gradient<T>(p_, begin, end); });
    recent.flush_all(flush);
  }

 private:
  void start(int32_t face, FaceSums<T, kChannels>& sums) const {
    for (int c = 0; c < kChannels; ++c) Quads<T>::of(T(0)).store(sums.sum[c]);
    const Corners<dibr_interpolate_backward_params> corners(p_, face);
    for (int c = 0; c < kChannels; ++c) {
      for (int k = 0; k < 3; ++k) sums.attributes[c][k] = attributes_[corners.offset[k] + c];
      sums.attributes[c][3] = T(0);
    }
  }

  void add(FaceSums<T, kChannels>& sums, int64_t begin, int64_t end, int64_t limit) const {
    const int64_t pixels = p_.batch * p_.height * p_.width;
    const T *all_b = static_cast<const T*>(p_.barycentrics), *all_g = static_cast<const T*>(p_.grad_output);
    T* out = static_cast<T*>(p_.grad_barycentrics);
    ChannelSums<T, kChannels> channels(sums.sum, sums.attributes);
    for (int64_t pixel = begin; pixel < end; pixel += 4) {
      const int some = int(std::min<int64_t>(end - pixel, 4));
      const Quads<T> b = load_pixels<3>(all_b + 3 * pixel, some, all_b + 3 * pixels);
      const Quads<T> g = load_pixels<kChannels>(all_g + kChannels * pixel, some, all_g + kChannels * pixels);
      channels.add(b, g);
      if (out == nullptr) continue;
      const Quads<T> gradient = channels.of_barycentrics(g);
      if (pixel + 4 <= limit) {
        gradient.template store_packed<3>(out + 3 * pixel);  // beyond `end` to be written again
      } else {
        store_pixels<3>(gradient, out + 3 * pixel, some);
      }
    }
    channels.store(sums.sum);
  }

  void flush(int32_t face, const FaceSums<T, kChannels>& sums) const {
    if (sum_ == nullptr) return;
    const Corners<dibr_interpolate_backward_params> corners(p_, face);
    for (int c = 0; c < kChannels; ++c) {
      T four[4];
      add_pixels(sums.sum[c], four);
      for (int k = 0; k < 3; ++k) sum_[corners.offset[k] + c] += four[k];
    }
  }

  const dibr_interpolate_backward_params& p_;
  const T* attributes_;
  T* sum_;
};

// Any number of channels: straight to the vertices.
template <class T>
class ManyChannels {
 public:
  ManyChannels(const dibr_interpolate_backward_params& p, const T* attributes, T* sum)
      : p_(p), attributes_(attributes), sum_(sum) {}

  void run(int64_t first_row, int64_t last_row, LowestFault& fault) {
    for_each_run(
        p_.face_index, p_.faces, p_.width, first_row, last_row, fault,
        [&](int32_t face, int64_t begin, int64_t end, int64_t) {
          const Corners<dibr_interpolate_backward_params> corners(p_, face);
          for (int64_t pixel = begin; pixel < end; ++pixel) add(corners, pixel);
        },
        [&](int64_t begin, int64_t end) { clear_barycentric_gradient<T>(p_, begin, end); });
  }

 private:
  void add(const Corners<dibr_interpolate_backward_params>& corners, int64_t pixel) const {
    const T* b = static_cast<const T*>(p_.barycentrics) + 3 * pixel;
    const T* grad = static_cast<const T*>(p_.grad_output) + pixel * p_.channels;
    for (int k = 0; k < 3; ++k) {
      if (sum_ != nullptr) {
        for (int64_t c = 0; c < p_.channels; ++c) sum_[corners.offset[k] + c] += b[k] * grad[c];
      }
      if (p_.grad_barycentrics == nullptr) continue;
      T total = T(0);
      for (int64_t c = 0; c < p_.channels; ++c) total += grad[c] * attributes_[corners.offset[k] + c];
      static_cast<T*>(p_.grad_barycentrics)[3 * pixel + k] = total;
    }
  }

  const dibr_interpolate_backward_params& p_;
  const T* attributes_;
  T* sum_;
};

template <class T>
void run_rows(const dibr_interpolate_backward_params& p, int64_t image, int64_t first_row, int64_t last_row, T* sum,
              LowestFault& fault) {
  const T* attributes = attributes_of<T>(p, image);
  switch (p.channels) {
    case 1:
      return FewChannels<T, 1>(p, attributes, sum).run(first_row, last_row, fault);
    case 2:
      return FewChannels<T, 2>(p, attributes, sum).run(first_row, last_row, fault);
    case 3:
      return FewChannels<T, 3>(p, attributes, sum).run(first_row, last_row, fault);
    case 4:
      return FewChannels<T, 4>(p, attributes, sum).run(first_row, last_row, fault);
    default:
      return ManyChannels<T>(p, attributes, sum).run(first_row, last_row, fault);
  }
}

// A shared attribute array collects from the rows of every image, a batched one from those of its own.
template <class T>
Scatter<T> attribute_scatter(const dibr_interpolate_backward_params& p, Arena& arena) {
  const int64_t rows = p.attribute_batch == p.batch ? p.height : p.batch * p.height;
  return Scatter<T>(p.attribute_batch, p.vertices * p.channels, rows, p.batch * p.height * p.width, arena);
}

template <class T>
dibr_status backward(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("interpolate_backward", p, launch)) return status;
  LowestFault fault;
  if (p.grad_attributes != nullptr) {
    Arena arena(launch.workspace);
    attribute_scatter<T>(p, arena).run_parts(
        launch, static_cast<T*>(p.grad_attributes), [&](int64_t group, int64_t begin, int64_t end, T* sum) {
          run_rows<T>(p, group, group * p.height + begin, group * p.height + end, sum, fault);
        });
  } else {
    const int64_t blocks = (p.height + kRowsAtOnce - 1) / kRowsAtOnce;
    parallel_for(launch, p.batch * blocks, [&](int64_t i) {
      const int64_t image = i / blocks, begin = i % blocks * kRowsAtOnce;
      const int64_t end = std::min(begin + kRowsAtOnce, p.height);
      run_rows<T>(p, image, image * p.height + begin, image * p.height + end, nullptr, fault);
    });
  }
  return face_index_status("interpolate_backward", p, fault);
}

}  // namespace

dibr_status interpolate_workspace(const dibr_interpolate_params&, Arena&) { return DIBR_OK; }
dibr_status interpolate(const dibr_interpolate_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status interpolate_backward_workspace(const dibr_interpolate_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { attribute_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status interpolate_backward(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
