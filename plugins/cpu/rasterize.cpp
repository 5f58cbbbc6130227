// Rasterize on the CPU: faces are binned to tiles, each tile resolves its own small depth buffer, then writes its
// pixels.
#include "core/rasterize.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/raster_tile.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class T>
void write_tile(const dibr_rasterize_params& p, int64_t image, const TileBuffer<T>& drawn) {
  const TileArea& area = drawn.area();
  const int columns = int(area.x1 - area.x0);
  for (int64_t y = area.y0; y < area.y1; ++y) {
    const int row = int(y - area.y0);
    const int64_t pixel = (image * p.height + y) * p.width + area.x0;
    T b[3][TileBuffer<T>::kRow], depth[TileBuffer<T>::kRow];
    drawn.resolve(row, b[0], b[1], b[2], depth);
    std::copy(drawn.faces(row), drawn.faces(row) + columns, p.face_index + pixel);
    T* out = static_cast<T*>(p.barycentrics) + 3 * pixel;
    for (int x = 0; x < columns; ++x) {
      out[3 * x] = b[0][x];
      out[3 * x + 1] = b[1][x];
      out[3 * x + 2] = b[2][x];
    }
    if (p.depth != nullptr) std::copy(depth, depth + columns, static_cast<T*>(p.depth) + pixel);
  }
}

// What a tile that no face touches looks like.
template <class T>
void write_background(const dibr_rasterize_params& p, int64_t image, const TileArea& area) {
  const int64_t columns = area.x1 - area.x0;
  for (int64_t y = area.y0; y < area.y1; ++y) {
    const int64_t pixel = (image * p.height + y) * p.width + area.x0;
    std::fill_n(p.face_index + pixel, columns, -1);
    std::fill_n(static_cast<T*>(p.barycentrics) + 3 * pixel, 3 * columns, T(0));
    if (p.depth != nullptr) std::fill_n(static_cast<T*>(p.depth) + pixel, columns, T(1));
  }
}

template <class T>
dibr_status forward(const dibr_rasterize_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize", p, launch)) return status;
  if (const dibr_status status = check_face_ranges("rasterize", p)) return status;
  Arena arena(launch.workspace);
  TileRasterizer<T> rasterizer(RasterScene<T>(p), arena);
  rasterizer.bin(launch);
  parallel_for(launch, p.batch * rasterizer.tiles(), [&](int64_t i) {
    const int64_t image = i / rasterizer.tiles(), tile = i % rasterizer.tiles();
    if (const TileBuffer<T>* drawn = rasterizer.draw(image, tile)) {
      write_tile(p, image, *drawn);
    } else {
      write_background<T>(p, image, rasterizer.area(tile));
    }
  });
  return DIBR_OK;
}

// Neighbouring pixels mostly show the same face: its gradient is summed before it is spread to the vertices.
template <class T>
class FaceAccumulator {
 public:
  FaceAccumulator(const dibr_rasterize_backward_params& p, T* sum) : p_(p), sum_(sum) {}
  ~FaceAccumulator() { flush(); }

  void add(const T* positions, int32_t face, T px, T py, const T* grad_b, T grad_depth) {
    if (face != face_) {
      flush();
      face_ = face;
      triangle_ = gather_triangle(positions, p_.face_indices + 3 * int64_t(face));
      gradient_ = {};
    }
    accumulate_raster_gradient(triangle_, px, py, p_.perspective_correct != 0, grad_b, grad_depth, &gradient_);
  }

 private:
  void flush() {
    if (face_ < 0) return;
    for (int k = 0; k < 3; ++k) {
      T* target = sum_ + 4 * int64_t(p_.face_indices[3 * int64_t(face_) + k]);
      for (int c = 0; c < 4; ++c) target[c] += gradient_.v[k][c];
    }
  }

  const dibr_rasterize_backward_params& p_;
  T* sum_;
  int32_t face_ = -1;
  Triangle<T> triangle_ = {};
  TriangleGradient<T> gradient_ = {};
};

template <class T>
Scatter<T> position_scatter(const dibr_rasterize_backward_params& p, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, p.height, p.batch * p.height * p.width * 4, arena);
}

template <class T>
dibr_status backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces("rasterize_backward", p, launch)) return status;
  if (const dibr_status status = check_face_index("rasterize_backward", p, launch)) return status;
  const T* grad_barycentrics = static_cast<const T*>(p.grad_barycentrics);
  const T* grad_depth = static_cast<const T*>(p.grad_depth);
  const T none[3] = {};
  Arena arena(launch.workspace);
  position_scatter<T>(p, arena).run(launch, static_cast<T*>(p.grad_positions), [&](int64_t image, int64_t y, T* sum) {
    const T* positions = static_cast<const T*>(p.positions) + image * p.vertices * 4;
    FaceAccumulator<T> accumulator(p, sum);
    for (int64_t x = 0; x < p.width; ++x) {
      const int64_t pixel = (image * p.height + y) * p.width + x;
      if (p.face_index[pixel] < 0) continue;
      accumulator.add(positions, p.face_index[pixel], pixel_x<T>(x, p.width), pixel_y<T>(y, p.height),
                      grad_barycentrics != nullptr ? grad_barycentrics + 3 * pixel : none,
                      grad_depth != nullptr ? grad_depth[pixel] : T(0));
    }
  });
  return DIBR_OK;
}

}  // namespace

dibr_status rasterize_workspace(const dibr_rasterize_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { TileRasterizer<decltype(t)>(RasterScene<decltype(t)>(p), arena); });
  return DIBR_OK;
}
dibr_status rasterize(const dibr_rasterize_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status rasterize_backward_workspace(const dibr_rasterize_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { position_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status rasterize_backward(const dibr_rasterize_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
