// Interpolate on the CPU: one pass over the rows; the backward scatters to vertices through private arrays.
#include "core/interpolate.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/channel_sums.h"
#include "cpu/face_runs.h"
#include "cpu/mesh.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

constexpr int64_t kRowsAtOnce = 16;

// Calls body(image, first_row, last_row) for all rows of all images, counted from the first image's.
template <class P, class Body>
auto phase_of_rows(const P& p, const Body& body) {
  const int64_t blocks = (p.height + kRowsAtOnce - 1) / kRowsAtOnce;
  return Phase{p.batch * blocks, [=, &p](int64_t i) {
                 const int64_t image = i / blocks, begin = i % blocks * kRowsAtOnce;
                 body(image, image * p.height + begin, image * p.height + std::min(begin + kRowsAtOnce, p.height));
               }};
}

template <class S>
void clear(S* out, int64_t channels, int64_t begin, int64_t end) {
  std::memset(static_cast<void*>(out + channels * begin), 0, size_t((end - begin) * channels) * sizeof(S));
}

template <class S>
void interpolate_each(const dibr_interpolate_params& p, int64_t image, int64_t first_row, int64_t last_row,
                      LowestFault& fault) {
  using T = typename ComputeOf<S>::Type;
  const S* attributes = attributes_of<S>(p, image);
  for (int64_t pixel = first_row * p.width; pixel < last_row * p.width; ++pixel) {
    const int32_t face = p.face_index[pixel];
    S* out = static_cast<S*>(p.output) + pixel * p.channels;
    if (face < 0 || face >= p.faces) {
      if (face != -1) fault.report(pixel);
      std::fill_n(out, p.channels, S{});
      continue;
    }
    const T* b = static_cast<const T*>(p.barycentrics) + 3 * pixel;
    const Corners<dibr_interpolate_params> corners(p, face);
    for (int64_t c = 0; c < p.channels; ++c) {
      store(interpolated(b, attributes[corners.offset[0] + c], attributes[corners.offset[1] + c],
                         attributes[corners.offset[2] + c]),
            out + c);
    }
  }
}

// The attributes of a face's three vertices, at most four each.
template <class T>
struct FaceAttributes {
  T rows[3][4];
};

template <class T, int kChannels>
void interpolate_few(const dibr_interpolate_params& p, int64_t image, int64_t first_row, int64_t last_row,
                     LowestFault& fault) {
  RecentFaces<FaceAttributes<T>>& recent = RecentFaces<FaceAttributes<T>>::of_thread();
  const auto end = [](int32_t, const FaceAttributes<T>&) {};
  const T *attributes = attributes_of<T>(p, image), *b = static_cast<const T*>(p.barycentrics);
  T* out = static_cast<T*>(p.output);
  const int64_t pixels = p.batch * p.height * p.width;
  for_each_strip_row(p.face_index, pixels, p.width, first_row, last_row, fault, [&](const StripRow& row) {
    if (!row.is_covered()) clear(out, kChannels, row.begin(), row.end());
    for (int i = 0; i < row.count(); ++i) {
      const StripRow::Run& run = row.runs()[i];
      const int64_t pixel = row.begin() + run.offset;
      if (run.face >= p.faces) {
        fault.report(pixel);
        continue;
      }
      const auto start = [&](FaceAttributes<T>& face) {
        const Corners<dibr_interpolate_params> corners(p, run.face);
        for (int k = 0; k < 3; ++k) {
          for (int c = 0; c < 4; ++c) face.rows[k][c] = c < kChannels ? attributes[corners.offset[k] + c] : T(0);
        }
      };
      const FaceAttributes<T>& face = recent.of(run.face, start, end);
      const Quads<T> row0 = Quads<T>::repeat(face.rows[0]), row1 = Quads<T>::repeat(face.rows[1]);
      const Quads<T> row2 = Quads<T>::repeat(face.rows[2]);
      for (int64_t four = pixel; four < pixel + run.count; four += 4) {
        const int some = int(std::min<int64_t>(pixel + run.count - four, 4));
        prefetch(b, 3 * (four + p.width));
        const Quads<T> weights = load_pixels<3>(b + 3 * four, some, b + 3 * pixels);
        const Quads<T> values = weights.template spread<0>() * row0 + weights.template spread<1>() * row1 +
                                weights.template spread<2>() * row2;
        store_pixels<kChannels>(values, out + kChannels * four, some, row.end() - four);
      }
    }
  });
  recent.forget_all(end);
}

template <class S>
void interpolate_rows(const dibr_interpolate_params& p, int64_t image, int64_t first_row, int64_t last_row,
                      LowestFault& fault) {
  if constexpr (std::is_same_v<S, typename ComputeOf<S>::Type>) {
    switch (p.channels) {
      case 1:
        return interpolate_few<S, 1>(p, image, first_row, last_row, fault);
      case 2:
        return interpolate_few<S, 2>(p, image, first_row, last_row, fault);
      case 3:
        return interpolate_few<S, 3>(p, image, first_row, last_row, fault);
      case 4:
        return interpolate_few<S, 4>(p, image, first_row, last_row, fault);
      default:
        break;
    }
  }
  interpolate_each<S>(p, image, first_row, last_row, fault);
}

template <class S>
dibr_status forward(const dibr_interpolate_params& p, const dibr_launch& launch) {
  CornerCheck corners("interpolate", p);
  LowestFault fault;
  const auto rows = phase_of_rows(p, [&](int64_t image, int64_t first_row, int64_t last_row) {
    interpolate_rows<S>(p, image, first_row, last_row, fault);
  });
  run_phases(launch, [&] { return !corners.found(); }, corners.phase(), rows);
  return corners.found() ? corners.status() : face_index_status("interpolate", p, fault);
}

// Both gradients with up to four channels: those of the attributes are summed over a face's pixels.
template <class T, int kChannels>
struct FaceSums {
  alignas(64) T sum[kChannels][16];  // gradient * barycentrics, of four pixels each
  T attributes[kChannels][4];        // of the face's vertices
};

template <class T, int kChannels>
class FewChannels {
 public:
  FewChannels(const dibr_interpolate_backward_params& p, const T* attributes, T* sum)
      : p_(p), attributes_(attributes), sum_(sum) {}

  void run(int64_t first_row, int64_t last_row, LowestFault& fault) {
    RecentFaces<Sums>& recent = RecentFaces<Sums>::of_thread();
    const auto flush = [&](int32_t face, const Sums& sums) { this->flush(face, sums); };
    for_each_strip_row(p_.face_index, pixels(), p_.width, first_row, last_row, fault, [&](const StripRow& row) {
      if (p_.grad_barycentrics != nullptr && !row.is_covered()) {
        clear(static_cast<T*>(p_.grad_barycentrics), 3, row.begin(), row.end());
      }
      for (int i = 0; i < row.count(); ++i) {
        const StripRow::Run& run = row.runs()[i];
        const int64_t pixel = row.begin() + run.offset;
        if (run.face >= p_.faces) {
          fault.report(pixel);
          continue;
        }
        const auto start = [&](Sums& sums) { this->start(run.face, sums); };
        add(recent.of(run.face, start, flush), pixel, run.count, row.end());
      }
    });
    recent.forget_all(flush);
  }

 private:
  using Sums = FaceSums<T, kChannels>;

  void start(int32_t face, Sums& sums) const {
    for (int c = 0; c < kChannels; ++c) Quads<T>::of(T(0)).store(sums.sum[c]);
    const Corners<dibr_interpolate_backward_params> corners(p_, face);
    for (int c = 0; c < kChannels; ++c) {
      for (int k = 0; k < 3; ++k) sums.attributes[c][k] = attributes_[corners.offset[k] + c];
      sums.attributes[c][3] = T(0);
    }
  }

  DIBR_HD void add(Sums& sums, int64_t begin, int count, int64_t row_end) const {
    const T *b = static_cast<const T*>(p_.barycentrics), *g = static_cast<const T*>(p_.grad_output);
    T* out = static_cast<T*>(p_.grad_barycentrics);
    ChannelSums<T, kChannels> channels(sums.sum, sums.attributes);
    for (int64_t pixel = begin; pixel < begin + count; pixel += 4) {
      const int some = int(std::min<int64_t>(begin + count - pixel, 4));
      const Quads<T> gradient = load_pixels<kChannels>(g + kChannels * pixel, some, g + kChannels * pixels());
      channels.add(load_pixels<3>(b + 3 * pixel, some, b + 3 * pixels()), gradient);
      if (out == nullptr) continue;
      store_pixels<3>(channels.of_barycentrics(gradient), out + 3 * pixel, some, row_end - pixel);
    }
    channels.store(sums.sum);
  }

  void flush(int32_t face, const Sums& sums) const {
    if (sum_ == nullptr) return;
    const Corners<dibr_interpolate_backward_params> corners(p_, face);
    for (int c = 0; c < kChannels; ++c) {
      T four[4];
      add_pixels(sums.sum[c], four);
      for (int k = 0; k < 3; ++k) sum_[corners.offset[k] + c] += four[k];
    }
  }

  int64_t pixels() const { return p_.batch * p_.height * p_.width; }

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
    for (int64_t pixel = first_row * p_.width; pixel < last_row * p_.width; ++pixel) {
      const int32_t face = p_.face_index[pixel];
      if (face >= 0 && face < p_.faces) {
        add(Corners<dibr_interpolate_backward_params>(p_, face), pixel);
        continue;
      }
      if (face != -1) fault.report(pixel);
      if (p_.grad_barycentrics != nullptr) clear(static_cast<T*>(p_.grad_barycentrics), 3, pixel, pixel + 1);
    }
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
  CornerCheck corners("interpolate_backward", p);
  LowestFault fault;
  const auto corners_are_good = [&] { return !corners.found(); };
  if (p.grad_attributes != nullptr) {
    Arena arena(launch.workspace);
    const Scatter<T> scatter = attribute_scatter<T>(p, arena);
    const auto add_rows = [&](int64_t group, int64_t begin, int64_t end, T* sum) {
      run_rows<T>(p, group, group * p.height + begin, group * p.height + end, sum, fault);
    };
    run_phases(launch, corners_are_good, corners.phase(), scatter.phases(static_cast<T*>(p.grad_attributes), add_rows));
  } else {
    run_phases(launch, corners_are_good, corners.phase(),
               phase_of_rows(p, [&](int64_t image, int64_t first_row, int64_t last_row) {
                 run_rows<T>(p, image, first_row, last_row, nullptr, fault);
               }));
  }
  return corners.found() ? corners.status() : face_index_status("interpolate_backward", p, fault);
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
