// Render on the CPU: every tile is rasterised, and while its raster is in the cache all that was asked for is made of
// it and written, a row of the tile at a time. The raster itself goes nowhere unless it was asked for.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/interpolate.h"
#include "core/texture.h"
#include "cpu/mesh.h"
#include "cpu/raster_tile.h"
#include "cpu/soft_mask_tile.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

bool writes(const dibr_render_params& p, uint32_t outputs) { return (p.outputs & outputs) != 0; }
bool samples_uv(const dibr_render_params& p) { return writes(p, DIBR_RENDER_COLOR | DIBR_RENDER_UV); }
bool writes_attributes(const dibr_render_params& p, int k) { return writes(p, DIBR_RENDER_FIRST_ATTRIBUTES << k); }

// One row of a tile: the visible faces, the runs of columns that show the same one, and barycentrics and depths.
template <class T>
struct Row {
  struct Run {
    int64_t face;  // < 0 where nothing covers the pixels
    int begin, end;
  };

  const typename TileBuffer<T>::Integer* faces;
  int columns, runs;
  Run run[kTile];
  T b[3][TileBuffer<T>::kRow], depth[TileBuffer<T>::kRow];

  // Shows nothing.
  void clear(const typename TileBuffer<T>::Integer* no_faces) {
    faces = no_faces;
    find_runs();
    for (auto& weights : b) std::fill_n(weights, columns, T(0));
    std::fill_n(depth, columns, T(1));
  }
  void find_runs() {
    runs = 0;
    for (int x = 0; x < columns; ++runs) {
      const int begin = x;
      while (++x < columns && faces[x] == faces[begin]) {
      }
      run[runs] = {int64_t(faces[begin]), begin, x};
    }
  }
  bool is_empty() const { return runs == 1 && run[0].face < 0; }
};

// Up to so many channels of a row, each in an array of its own.
constexpr int kFewChannels = 4;
template <class T>
using Channels = T[kFewChannels][TileBuffer<T>::kRow];

// Interpolates the first kCount channels that `values` points to, 0 where nothing covers the pixel.
template <int kCount, class T, class S>
void interpolate_few(const Row<T>& row, const dibr_render_attributes& a, const S* values, Channels<T>& out) {
  using N = Pack<T>;
  const typename Row<T>::Run *run = row.run, *end = row.run + row.runs;
  for (int x = 0; x < row.columns; x += N::kLanes) {
    const N b0 = N::load(row.b[0] + x), b1 = N::load(row.b[1] + x), b2 = N::load(row.b[2] + x);
    const N column = N::count_from(T(x));
    N sums[kCount];
    for (N& sum : sums) sum = T(0);
    for (; run != end && run->begin < x + N::kLanes; ++run) {
      if (run->face >= 0) {
        const Mask<T> own = (column >= N(T(run->begin))) & (column < N(T(run->end)));
        const S* corners[3];
        for (int k = 0; k < 3; ++k) corners[k] = values + a.face_indices[3 * run->face + k] * a.channels;
        for (int c = 0; c < kCount; ++c) {
          const N value = b0 * N(load(corners[0][c])) + b1 * N(load(corners[1][c])) + b2 * N(load(corners[2][c]));
          sums[c] = select(own, value, sums[c]);
        }
      }
      if (run->end > x + N::kLanes) break;
    }
    for (int c = 0; c < kCount; ++c) sums[c].store(out[c] + x);
  }
}

template <class T, class S>
void interpolate_few(const Row<T>& row, const dibr_render_attributes& a, const S* values, int count, Channels<T>& out) {
  if (count == 1) return interpolate_few<1>(row, a, values, out);
  if (count == 2) return interpolate_few<2>(row, a, values, out);
  if (count == 3) return interpolate_few<3>(row, a, values, out);
  interpolate_few<4>(row, a, values, out);
}

// Writes `count` channels of a row where each pixel has `stride` numbers.
template <class T, class S>
void store_few(const Channels<T>& channels, int count, int columns, int64_t stride, S* out) {
  int x = 0;
  if constexpr (std::is_same_v<T, S>) {
    using N = Pack<T>;
    for (; count == 3 && stride == 3 && x + N::kLanes <= columns; x += N::kLanes) {
      const N a = N::load(channels[0] + x), b = N::load(channels[1] + x), c = N::load(channels[2] + x);
      interleaved<0>(a, b, c).store(out + 3 * x);
      interleaved<1>(a, b, c).store(out + 3 * x + N::kLanes);
      interleaved<2>(a, b, c).store(out + 3 * x + 2 * N::kLanes);
    }
  }
  for (; x < columns; ++x) {
    for (int c = 0; c < count; ++c) store(channels[c][x], out + x * stride + c);
  }
}

template <class S>
const S* values_of(const dibr_render_attributes& a, int64_t image) {
  return static_cast<const S*>(a.values) + (a.batch == 1 ? 0 : image) * a.vertices * a.channels;
}

// Interpolates over a row.
template <class T, class S>
void interpolate_row(const Row<T>& row, const dibr_render_attributes& a, int64_t image, S* out) {
  if (row.is_empty()) {
    std::fill_n(out, row.columns * a.channels, S{});
    return;
  }
  for (int64_t c = 0; c < a.channels; c += kFewChannels) {
    const int count = int(std::min<int64_t>(a.channels - c, kFewChannels));
    Channels<T> channels;
    interpolate_few(row, a, values_of<S>(a, image) + c, count, channels);
    store_few(channels, count, row.columns, a.channels, out + c);
  }
}

template <class S>
const S* texture_of(const dibr_render_params& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  return static_cast<const S*>(p.texture) + source * p.texture_channels * p.texture_height * p.texture_width;
}

template <class T, class S>
void sample(const dibr_render_params& p, const S* texture, T u, T v, S* out) {
  if (!is_finite_uv(u, v)) {
    std::fill_n(out, p.texture_channels, S{});
    return;
  }
  const Footprint<T> footprint = texture_footprint(u, v, p.texture_height, p.texture_width, p.filter, p.wrap);
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t c = 0; c < p.texture_channels; ++c) store(sample_plane(footprint, texture + c * plane), out + c);
}

// The footprints of many samples, an array for each of its numbers, so that the compiler makes vectors of them.
template <class T>
struct Footprints {
  int32_t offset[4][kTile];
  T weight[4][kTile];

  template <dibr_filter kFilter, dibr_wrap kWrap>
  void find(const T* u, const T* v, int count, int32_t height, int32_t width) {
    for (int i = 0; i < count; ++i) {
      const Footprint<T, int32_t> f = texture_footprint(u[i], v[i], height, width, kFilter, kWrap);
      for (int k = 0; k < 4; ++k) offset[k][i] = f.offset[k];
      for (int k = 0; k < 4; ++k) weight[k][i] = f.weight[k];
    }
  }
  template <dibr_filter kFilter>
  void find(const T* u, const T* v, int count, const dibr_render_params& p) {
    const int32_t height = int32_t(p.texture_height), width = int32_t(p.texture_width);
    if (p.wrap == DIBR_WRAP_CLAMP) return find<kFilter, DIBR_WRAP_CLAMP>(u, v, count, height, width);
    if (p.wrap == DIBR_WRAP_REPEAT) return find<kFilter, DIBR_WRAP_REPEAT>(u, v, count, height, width);
    find<kFilter, DIBR_WRAP_MIRROR>(u, v, count, height, width);
  }

  // One channel: what sample_plane gives for each.
  template <class S>
  void sample(const S* plane, int count, T* out) const {
    for (int i = 0; i < count; ++i) {
      out[i] = weight[0][i] * load(plane[offset[0][i]]) + weight[1][i] * load(plane[offset[1][i]]) +
               weight[2][i] * load(plane[offset[2][i]]) + weight[3][i] * load(plane[offset[3][i]]);
    }
  }
};

// Samples the texture over a row; background, whose uv is 0, as everything else, but once where it is all there is.
template <class T, class S>
void sample_row(const dibr_render_params& p, const Row<T>& row, const Channels<T>& uv, const S* texture, S* out) {
  const int columns = row.columns, distinct = row.is_empty() ? 1 : columns;
  unsigned finite = 1;  // no way out of the loop, so that the compiler makes vectors of it
  for (int x = 0; x < columns; ++x) {
    finite &= unsigned(uv[0][x] - uv[0][x] == T(0)) & unsigned(uv[1][x] - uv[1][x] == T(0));
  }
  if (finite == 0) {
    for (int x = 0; x < columns; ++x) sample(p, texture, uv[0][x], uv[1][x], out + x * p.texture_channels);
    return;
  }
  Footprints<T> footprints;
  if (p.filter == DIBR_FILTER_NEAREST) {
    footprints.template find<DIBR_FILTER_NEAREST>(uv[0], uv[1], distinct, p);
  } else {
    footprints.template find<DIBR_FILTER_BILINEAR>(uv[0], uv[1], distinct, p);
  }
  for (int64_t c = 0; c < p.texture_channels; c += kFewChannels) {
    const int count = int(std::min<int64_t>(p.texture_channels - c, kFewChannels));
    Channels<T> channels;
    for (int i = 0; i < count; ++i) {
      footprints.sample(texture + (c + i) * p.texture_height * p.texture_width, distinct, channels[i]);
      if (distinct == 1) std::fill_n(channels[i], columns, channels[i][0]);
    }
    store_few(channels, count, columns, p.texture_channels, out + c);
  }
}

// The faces near each tile, for its soft mask.
template <class T>
class NearFaces {
 public:
  NearFaces(const dibr_render_params& p, Arena& arena)
      : p_(p),
        vertices_(p.batch, p.vertices, p.height, p.width, arena),
        bins_(p.batch, p.faces, p.height, p.width, arena) {}

  auto place() const {
    return phase_of_blocks(p_.batch * p_.vertices, 4096, [this](int64_t begin, int64_t end) {
      vertices_.place(static_cast<const T*>(p_.positions), T(p_.boxlen), begin, end);
    });
  }
  auto bin() const {
    return bins_.build([this](int64_t image) { return faces_of(p_, image); },
                       [this](int64_t image, int64_t face) {
                         const MaskReach box = reach_of_face(vertices_.reaches(image), p_.face_indices + 3 * face);
                         if (box.is_empty()) return kEmptyBox;
                         return FaceBox{int16_t(box.x0()), int16_t(box.y0()), int16_t(box.x1()), int16_t(box.y1()), 1};
                       });
  }

  MaskImage<T> image(int64_t image) const {
    return {vertices_.points(image), p_.face_indices, p_.height, p_.width,
            SoftMaskRules<T>(p_.sigmainv, p_.boxlen, p_.knum)};
  }

  // Those that reach the open cells of a tile. The thread's own.
  const FacesOfTile& of_tile(int64_t image, int64_t tile, uint64_t open) const {
    static thread_local FacesOfTile faces;
    faces.clear();
    const TileArea area = bins_.area(tile);
    bins_.for_each_face(image, tile, faces_of(p_, image), [&](int32_t face) {
      faces.reserve(1);
      const MaskReach reach = reach_of_face(vertices_.reaches(image), p_.face_indices + 3 * face);
      faces.add(face, open & cells_reached(reach, area));
      return true;
    });
    return faces;
  }

 private:
  const dibr_render_params& p_;
  MaskVertices<T> vertices_;
  Bins bins_;
};

// Finds corners of faces that are no vertices, in every array of faces that is used.
class IndexChecks {
 public:
  explicit IndexChecks(const dibr_render_params& p)
      : checks_{CornerCheck("render", p), check("uv_faces", p, p.uv, samples_uv(p)),
                check("attribute_faces_0", p, p.attributes[0], writes_attributes(p, 0)),
                check("attribute_faces_1", p, p.attributes[1], writes_attributes(p, 1)),
                check("attribute_faces_2", p, p.attributes[2], writes_attributes(p, 2))} {}

  auto phase() {
    return std::apply([](auto&... check) { return together(check.phase()...); }, checks_);
  }
  bool found() const {
    return std::any_of(checks_.begin(), checks_.end(), [](const CornerCheck& check) { return check.found(); });
  }
  // The first error, if there is one.
  dibr_status status() const {
    for (const CornerCheck& check : checks_) {
      if (check.found()) return check.status();
    }
    return DIBR_OK;
  }

 private:
  static CornerCheck check(const char* name, const dibr_render_params& p, const dibr_render_attributes& a,
                           bool is_used) {
    return CornerCheck("render", name, a.face_indices, is_used ? p.faces : 0, a.vertices);
  }

  std::array<CornerCheck, 2 + DIBR_RENDER_ATTRIBUTES> checks_;
};

// Draws any tile of an op's images.
template <class T>
class Renderer {
 public:
  Renderer(const dibr_render_params& p, Arena& arena) : p_(p), rasterizer_(RasterScene<T>(p), arena) {
    if (writes(p, DIBR_RENDER_MASK)) near_.emplace(p, arena);
  }

  dibr_status run(const dibr_launch& launch) const {
    IndexChecks checks(p_);
    const auto indices_are_good = [&] { return !checks.found(); };
    const int64_t tiles = rasterizer_.tiles();
    const Phase draw_all = {p_.batch * tiles, [=](int64_t i) { draw(i / tiles, i % tiles); }};
    if (near_) {
      run_phases(launch, indices_are_good, together(rasterizer_.project(), near_->place(), checks.phase()),
                 rasterizer_.bin(), near_->bin(), draw_all);
    } else {
      run_phases(launch, indices_are_good, together(rasterizer_.project(), checks.phase()), rasterizer_.bin(),
                 draw_all);
    }
    return checks.status();
  }

 private:
  using Integer = typename TileBuffer<T>::Integer;

  void draw(int64_t image, int64_t tile) const {
    const TileBuffer<T>* drawn = rasterizer_.draw(image, tile);
    const TileArea area = rasterizer_.area(tile);
    Row<T> row;
    row.columns = int(area.x1 - area.x0);
    if (drawn == nullptr) row.clear(no_faces());
    for (int64_t y = area.y0; y < area.y1; ++y) {
      if (drawn != nullptr) {
        row.faces = drawn->faces(int(y - area.y0));
        row.find_runs();
        drawn->resolve(int(y - area.y0), row.b[0], row.b[1], row.b[2], row.depth);
      }
      write(row, image, (image * p_.height + y) * p_.width + area.x0);
    }
    if (near_) write_mask(image, tile, drawn);
  }

  void write_mask(int64_t image, int64_t tile, const TileBuffer<T>* drawn) const {
    const TileArea area = rasterizer_.area(tile);
    const Integer* faces = drawn != nullptr ? drawn->faces(0) : no_faces();
    const int64_t stride = drawn != nullptr ? kTile : 0;
    T* mask = static_cast<T*>(p_.mask) + (image * p_.height + area.y0) * p_.width + area.x0;
    for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
      for (int64_t x = 0; x < area.x1 - area.x0; ++x) mask[y * p_.width + x] = faces[y * stride + x] < 0 ? T(0) : T(1);
    }
    const OpenPixels open = uncovered_pixels(area, faces, stride);
    const uint64_t cells = open.cells();
    if (cells == 0) return;
    mask_tile(near_->image(image), area, open, near_->of_tile(image, tile, cells), mask, p_.width);
  }

  // A row that nothing covers.
  static const Integer* no_faces() {
    static const auto faces = [] {
      std::array<Integer, kTile> all;
      all.fill(-1);
      return all;
    }();
    return faces.data();
  }
  // A row of a tile, whose first pixel is `pixel`, into every output but the mask.
  void write(const Row<T>& row, int64_t image, int64_t pixel) const {
    if (writes(p_, DIBR_RENDER_FACE_INDEX)) std::copy_n(row.faces, row.columns, p_.face_index + pixel);
    if (writes(p_, DIBR_RENDER_DEPTH)) std::copy_n(row.depth, row.columns, static_cast<T*>(p_.depth) + pixel);
    if (writes(p_, DIBR_RENDER_BARYCENTRICS)) write_barycentrics(row, pixel);
    if (samples_uv(p_)) write_color(row, image, pixel);
    for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
      if (writes_attributes(p_, k)) write_attributes(row, p_.attributes[k], image, pixel);
    }
  }

  void write_barycentrics(const Row<T>& row, int64_t pixel) const {
    T* out = static_cast<T*>(p_.barycentrics) + 3 * pixel;
    for (int x = 0; x < row.columns; ++x) {
      for (int k = 0; k < 3; ++k) out[3 * x + k] = row.b[k][x];
    }
  }

  void write_color(const Row<T>& row, int64_t image, int64_t pixel) const {
    Channels<T> uv;
    interpolate_few<2>(row, p_.uv, values_of<T>(p_.uv, image), uv);
    if (writes(p_, DIBR_RENDER_UV)) store_few(uv, 2, row.columns, 2, static_cast<T*>(p_.uv.output) + 2 * pixel);
    if (!writes(p_, DIBR_RENDER_COLOR)) return;
    with_storage(p_.texture_dtype, [&](auto s) {
      using S = decltype(s);
      sample_row(p_, row, uv, texture_of<S>(p_, image), static_cast<S*>(p_.color) + pixel * p_.texture_channels);
    });
  }

  void write_attributes(const Row<T>& row, const dibr_render_attributes& a, int64_t image, int64_t pixel) const {
    with_storage(p_.attribute_dtype, [&](auto s) {
      using S = decltype(s);
      interpolate_row(row, a, image, static_cast<S*>(a.output) + pixel * a.channels);
    });
  }

  // Calls body with what is stored beside T: T itself, or 16 bits beside float32.
  template <class Body>
  static void with_storage(dibr_dtype dtype, const Body& body) {
    if constexpr (sizeof(T) == 8) {
      body(T{});
    } else {
      if (dtype == DIBR_FLOAT16) return body(Half{});
      if (dtype == DIBR_BFLOAT16) return body(BFloat16{});
      body(T{});
    }
  }

  const dibr_render_params& p_;
  TileRasterizer<T> rasterizer_;
  std::optional<NearFaces<T>> near_;
};

}  // namespace

dibr_status render_workspace(const dibr_render_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { Renderer<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status render(const dibr_render_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_face_ranges("render", p)) return status;
  Arena arena(launch.workspace);
  return dispatch(p.dtype, [&](auto t) { return Renderer<decltype(t)>(p, arena).run(launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
