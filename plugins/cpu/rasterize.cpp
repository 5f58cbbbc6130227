// Rasterize on the CPU: faces are binned to tiles, each tile resolves its own small depth buffer, then writes its
// pixels.
#include "core/rasterize.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/raster_tile.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

// Writes tiles into the outputs, past the caches where these are too small: a line that is not there would have to be
// fetched before it can be written.
template <class T>
class Writer {
 public:
  using Lanes = Pack<T>;

  explicit Writer(const dibr_rasterize_params& p) : p_(p) {
    const int64_t pixel_bytes = int64_t(sizeof(int32_t) + (p.depth != nullptr ? 4 : 3) * sizeof(T));
    streams_ = p.batch * p.height * p.width * pixel_bytes > kCachedBytes;
  }

  void write(int64_t image, const TileBuffer<T>& drawn) const {
    write_rows(
        image, drawn.area(), [&](int row, int x, Lanes* b, Lanes* depth) { drawn.resolve(row, x, b, depth); },
        [&](int row) { return drawn.faces(row); });
  }

  // What a tile that no face touches looks like.
  void write_background(int64_t image, const TileArea& area) const {
    write_rows(
        image, area,
        [](int, int, Lanes* b, Lanes* depth) {
          for (int k = 0; k < 3; ++k) b[k] = T(0);
          *depth = T(1);
        },
        [](int) { return TileBuffer<T>::no_faces(); });
  }

 private:
  static constexpr int64_t kCachedBytes = 8 << 20;

  template <class Resolve, class FacesOf>
  void write_rows(int64_t image, const TileArea& area, const Resolve& resolve, const FacesOf& faces_of) const {
    const int columns = int(area.x1 - area.x0), whole = columns / Lanes::kLanes * Lanes::kLanes;
    for (int64_t y = area.y0; y < area.y1; ++y) {
      const int row = int(y - area.y0);
      const int64_t pixel = (image * p_.height + y) * p_.width + area.x0;
      int32_t* face_index = p_.face_index + pixel;
      T* barycentrics = static_cast<T*>(p_.barycentrics) + 3 * pixel;
      T* depth = p_.depth != nullptr ? static_cast<T*>(p_.depth) + pixel : nullptr;
      const bool streams = streams_ && whole == columns && is_aligned(face_index) && is_aligned(barycentrics) &&
                           (depth == nullptr || is_aligned(depth));
      copy_faces(faces_of(row), columns, face_index, streams);
      for (int x = 0; x < whole; x += Lanes::kLanes) {
        Lanes b[3], z;
        resolve(row, x, b, &z);
        T* out = barycentrics + 3 * x;
        put(interleaved<0>(b[0], b[1], b[2]), streams, out);
        put(interleaved<1>(b[0], b[1], b[2]), streams, out + Lanes::kLanes);
        put(interleaved<2>(b[0], b[1], b[2]), streams, out + 2 * Lanes::kLanes);
        if (depth != nullptr) put(z, streams, depth + x);
      }
      if (whole < columns) write_rest(resolve, row, whole, columns, barycentrics, depth);
    }
    if (streams_) publish_streams();
  }

  static void copy_faces(const IntegerLike<T>* faces, int columns, int32_t* out, bool streams) {
    using Integers = Pack<int32_t>;
    if constexpr (sizeof(T) == sizeof(int32_t)) {
      if (columns == kTile) {
        for (int x = 0; x < kTile; x += Integers::kLanes) put(Integers::load(faces + x), streams, out + x);
        return;
      }
    }
    std::copy(faces, faces + columns, out);
  }

  template <class U>
  static DIBR_HD void put(Pack<U> pack, bool streams, U* out) {
    if (streams) {
      pack.stream(out);
    } else {
      pack.store(out);
    }
  }

  // The columns from x on that do not fill a Pack.
  template <class Resolve>
  static void write_rest(const Resolve& resolve, int row, int x, int columns, T* barycentrics, T* depth) {
    Lanes b[3], z;
    resolve(row, x, b, &z);
    T numbers[4][Lanes::kLanes];
    for (int k = 0; k < 3; ++k) b[k].store(numbers[k]);
    z.store(numbers[3]);
    for (int i = 0; x + i < columns; ++i) {
      for (int k = 0; k < 3; ++k) barycentrics[3 * (x + i) + k] = numbers[k][i];
      if (depth != nullptr) depth[x + i] = numbers[3][i];
    }
  }

  template <class U>
  static bool is_aligned(const U* p) {
    return reinterpret_cast<uintptr_t>(p) % kVectorBytes == 0;
  }

  const dibr_rasterize_params& p_;
  bool streams_;
};

template <class T>
dibr_status forward(const dibr_rasterize_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_face_ranges("rasterize", p)) return status;
  Arena arena(launch.workspace);
  const TileRasterizer<T> rasterizer(RasterScene<T>(p), arena);
  const Writer<T> writer(p);
  CornerCheck corners("rasterize", p);
  const auto draw = rasterizer.for_each_tile([&](int64_t image, int64_t tile) {
    if (const TileBuffer<T>* drawn = rasterizer.draw(image, tile)) {
      writer.write(image, *drawn);
    } else {
      writer.write_background(image, rasterizer.area(tile));
    }
  });
  run_phases(
      launch, [&] { return !corners.found(); }, together(rasterizer.project(), corners.phase()), rasterizer.bin(),
      draw);
  return corners.status();
}

}  // namespace

dibr_status rasterize_workspace(const dibr_rasterize_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { TileRasterizer<decltype(t)>(RasterScene<decltype(t)>(p), arena); });
  return DIBR_OK;
}
dibr_status rasterize(const dibr_rasterize_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, alone_if_small(p, launch)); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
