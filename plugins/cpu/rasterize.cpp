// Rasterize on the CPU: faces are binned to tiles, each tile resolves its own small depth buffer, then writes its
// pixels.
#include "core/rasterize.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/raster_tile.h"

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

}  // namespace

dibr_status rasterize_workspace(const dibr_rasterize_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { TileRasterizer<decltype(t)>(RasterScene<decltype(t)>(p), arena); });
  return DIBR_OK;
}
dibr_status rasterize(const dibr_rasterize_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
