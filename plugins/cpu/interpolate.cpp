// Interpolate on the CPU: one pass over the rows; the backward scatters to vertices through private arrays.
#include "core/interpolate.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/mesh.h"
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
void barycentric_gradient(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    const T* attributes = attributes_of<T>(p, row / p.height);
    for (int64_t pixel = row * p.width; pixel < (row + 1) * p.width; ++pixel) {
      T* out = static_cast<T*>(p.grad_barycentrics) + 3 * pixel;
      out[0] = out[1] = out[2] = T(0);
      if (p.face_index[pixel] < 0) continue;
      const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
      const Corners<dibr_interpolate_backward_params> corners(p, p.face_index[pixel]);
      for (int64_t c = 0; c < p.channels; ++c) {
        for (int k = 0; k < 3; ++k) out[k] += grad[c] * attributes[corners.offset[k] + c];
      }
    }
  });
}

// A shared attribute array collects from the rows of every image, a batched one from those of its own.
template <class T>
Scatter<T> attribute_scatter(const dibr_interpolate_backward_params& p, Arena& arena) {
  const int64_t rows = p.attribute_batch == p.batch ? p.height : p.batch * p.height;
  return Scatter<T>(p.attribute_batch, p.vertices * p.channels, rows, p.batch * p.height * p.width * p.channels, arena);
}

template <class T>
void attribute_gradient(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  attribute_scatter<T>(p, arena).run(
      launch, static_cast<T*>(p.grad_attributes), [&](int64_t group, int64_t unit, T* sum) {
        const int64_t row = group * p.height + unit;
        for (int64_t pixel = row * p.width; pixel < (row + 1) * p.width; ++pixel) {
          if (p.face_index[pixel] < 0) continue;
          const T* b = static_cast<const T*>(p.barycentrics) + 3 * pixel;
          const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
          const Corners<dibr_interpolate_backward_params> corners(p, p.face_index[pixel]);
          for (int k = 0; k < 3; ++k) {
            for (int64_t c = 0; c < p.channels; ++c) sum[corners.offset[k] + c] += b[k] * grad[c];
          }
        }
      });
}

template <class T>
dibr_status backward(const dibr_interpolate_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("interpolate_backward", p, launch)) return status;
  if (const dibr_status status = check_face_index("interpolate_backward", p, launch)) return status;
  if (p.grad_barycentrics != nullptr) barycentric_gradient<T>(p, launch);
  if (p.grad_attributes != nullptr) attribute_gradient<T>(p, launch);
  return DIBR_OK;
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
