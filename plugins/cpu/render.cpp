// Render on the CPU: every tile is rasterised, and while its raster is in the cache all that was asked for is made of
// it and written, a row of the tile at a time. The raster itself goes nowhere unless it was asked for.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/interpolate.h"
#include "cpu/footprints.h"
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

static_assert(kTile <= kRowPixels, "Channels hold a row of a tile");

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
    Channels<T> channels;
    with_few(a.channels - c, [&](auto count) {
      interpolate_few<count>(row, a, values_of<S>(a, image) + c, channels);
      store_few<count>(channels, row.columns, a.channels, out + c);
    });
  }
}

template <class S>
SampledTexture<S> texture_of(const dibr_render_params& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  const S* texels = static_cast<const S*>(p.texture) + source * p.texture_channels * p.texture_height * p.texture_width;
  return {texels, p.texture_channels, int32_t(p.texture_height), int32_t(p.texture_width), p.filter, p.wrap};
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
    if (writes(p_, DIBR_RENDER_UV)) store_few<2>(uv, row.columns, 2, static_cast<T*>(p_.uv.output) + 2 * pixel);
    if (!writes(p_, DIBR_RENDER_COLOR)) return;
    with_storage(p_.texture_dtype, [&](auto s) {
      using S = decltype(s);
      sample_row<T>(
          texture_of<S>(p_, image), row.columns, [&](int x) { return std::pair(uv[0][x], uv[1][x]); },
          static_cast<S*>(p_.color) + pixel * p_.texture_channels);
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
