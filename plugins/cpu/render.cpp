// Render on the CPU: every tile is rasterised, and while its raster is in the cache all that was asked for is made of
// it and written, a row of the tile at a time. The raster itself goes nowhere unless it was asked for. Once all tiles
// are drawn it is known which faces the soft mask needs, and it is written where those are.
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

// The part of a tile's row from the first to the last pixel that shows something: the visible faces, the runs of
// columns that show the same one, and barycentrics and depths.
template <class T>
struct Row {
  struct Run {
    int64_t face;  // < 0 where nothing covers the pixels
    int begin, end;
  };

  int first, columns;  // in the tile; columns below count from the first
  const typename TileBuffer<T>::Integer* faces;
  int runs;
  Run run[kTile];
  T b[3][TileBuffer<T>::kRow], depth[TileBuffer<T>::kRow];

  // Finds where it is, and what covers it; bit x of `open`: nothing covers column x of the tile.
  void find(const TileBuffer<T>& drawn, int row, uint32_t open) {
    const int tile_columns = int(drawn.area().x1 - drawn.area().x0);
    const uint32_t covered = ~open & (~0u >> (kTile - tile_columns));
    first = columns = 0;
    if (covered == 0) return;
    first = __builtin_ctz(covered);
    columns = kTile - __builtin_clz(covered) - first;
    faces = drawn.faces(row) + first;
  }

  // After that, the runs and barycentrics; with `background` also depths, and what pixels that nothing covers have of
  // both.
  void resolve(const TileBuffer<T>& drawn, int row, bool background) {
    find_runs(drawn.faces(row));
    for (int x = 0; x < columns; x += Pack<T>::kLanes) {
      Pack<T> weights[3];
      if (background) {
        Pack<T> z;
        drawn.resolve(row, first + x, weights, &z);
        z.store(depth + x);
      } else {
        drawn.weigh(row, first + x, weights);
      }
      for (int k = 0; k < 3; ++k) weights[k].store(b[k] + x);
    }
  }

 private:
  void find_runs(const typename TileBuffer<T>::Integer* of_tile) {
    using Integers = Pack<typename TileBuffer<T>::Integer>;
    uint32_t same = 0;  // bit x: column x + 1 of the tile shows what column x does
    for (int x = 0; x < kTile; x += Integers::kLanes) {
      same |= (Integers::load(of_tile + x) == Integers::load(of_tile + x + 1)).lanes() << x;
    }
    uint32_t ends = (~same >> first | 1u << (columns - 1)) & (~0u >> (kTile - columns));
    runs = 0;
    for (int begin = 0; ends != 0; ends &= ends - 1, ++runs) {
      const int end = __builtin_ctz(ends) + 1;
      run[runs] = {int64_t(faces[begin]), begin, end};
      begin = end;
    }
  }
};

static_assert(kTile <= kRowPixels, "Channels hold a row of a tile");

// Interpolates the first kCount channels that `values` points to, 0 where nothing covers the pixel. The row's first
// pixel is pixel `first` of `out`.
template <int kCount, class T, class S>
void interpolate_few(const Row<T>& row, const dibr_render_attributes& a, const S* values, Channels<T>& out,
                     int first = 0) {
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
    for (int c = 0; c < kCount; ++c) sums[c].store(out[c] + first + x);
  }
}

template <class S>
const S* values_of(const dibr_render_attributes& a, int64_t image) {
  return static_cast<const S*>(a.values) + (a.batch == 1 ? 0 : image) * a.vertices * a.channels;
}

// Interpolates over a row.
template <class T, class S>
void interpolate_row(const Row<T>& row, const dibr_render_attributes& a, int64_t image, S* out) {
  for (int64_t c = 0; c < a.channels; c += kFewChannels) {
    Channels<T> channels;
    with_few(a.channels - c, [&](auto count) {
      interpolate_few<count>(row, a, values_of<S>(a, image) + c, channels);
      store_few<count>(channels, 0, row.columns, a.channels, out + c);
    });
  }
}

// The uv of rows of a tile that are sampled together. A row alone would be a chain of short steps, each of which waits
// for what the one before has stored.
template <class T>
struct UvRows {
  Channels<T> uv;
  SampledRun runs[kTile];
  int count = 0;

  int pixels() const { return count == 0 ? 0 : runs[count - 1].first + runs[count - 1].count; }
  bool has_room() const { return pixels() + kTile <= kMostPixels; }
};

template <class S>
SampledTexture<S> texture_of(const dibr_render_params& p, int64_t image) {
  const int64_t source = p.texture_batch == 1 ? 0 : image;
  const int64_t plane = p.texture_height * p.texture_width;
  const S* texels = static_cast<const S*>(p.texture) + source * p.texture_channels * plane;
  return {{texels, plane}, p.texture_channels, int32_t(p.texture_height), int32_t(p.texture_width), p.filter, p.wrap};
}

// Calls body(count) for `columns` pixels of so many numbers each, with a constant for the usual ones, whose loops need
// no call and no end of their own.
template <class Body>
void with_row_size(int columns, int64_t channels, const Body& body) {
  if (columns == kTile && channels == 1) return body(std::integral_constant<int64_t, kTile>{});
  if (columns == kTile && channels == 3) return body(std::integral_constant<int64_t, 3 * kTile>{});
  body(columns * channels);
}

OpenPixels all_pixels(const TileArea& area) {
  OpenPixels out;
  std::fill_n(out.rows, area.y1 - area.y0, ~0u >> (kTile - (area.x1 - area.x0)));
  return out;
}

// What the pixels that nothing covers have for a colour: the texture at uv 0, found once and then copied.
template <class T>
class BackgroundColor {
 public:
  BackgroundColor(const dibr_render_params& p, Arena& arena)
      : p_(p), images_(std::min(p.batch, p.texture_batch)), columns_(int(std::min<int64_t>(p.width, kTile))) {
    colors_ = arena.take<T>(images_ * stride());
  }

  // How many have one of their own.
  int64_t images() const { return images_; }
  template <class S>
  void find(int64_t image) const {
    Channels<T> uv = {};
    sample_row(texture_of<S>(p_, image), columns_, uv, of<S>(image));
  }
  // Of as many pixels as a tile has columns.
  template <class S>
  S* of(int64_t image) const {
    static_assert(sizeof(S) <= sizeof(T));
    return reinterpret_cast<S*>(colors_ + (images_ == 1 ? 0 : image) * stride());
  }

 private:
  int64_t stride() const { return columns_ * p_.texture_channels; }

  const dibr_render_params& p_;
  int64_t images_;
  int columns_;
  T* colors_;  // [images, columns, channels] of what the texture is stored in
};

// The soft mask of all tiles.
template <class T>
class SoftMasks {
 public:
  SoftMasks(const dibr_render_params& p, int64_t tiles, Arena& arena)
      : p_(p),
        tiles_(tiles),
        vertices_(p.batch, p.vertices, p.height, p.width, arena),
        near_(p.batch, p.vertices, p.faces, p.height, p.width, arena) {
    open_ = arena.take<OpenPixels>(p.batch * tiles);
  }

  auto place() const {
    return phase_of_blocks(p_.batch * p_.vertices, 4096, [this](int64_t begin, int64_t end) {
      vertices_.place(static_cast<const T*>(p_.positions), T(p_.boxlen), begin, end);
    });
  }
  // To be called for every tile.
  void note_uncovered(int64_t image, int64_t tile, const TileArea& area, const OpenPixels& open) const {
    open_[image * tiles_ + tile] = open;
    near_.note_uncovered(image, area, open.cells());
  }
  // After that.
  auto choose(LowestFault& fault) const {
    return near_.choose(
        p_.face_indices, [this](int64_t image) { return faces_of(p_, image); },
        [this](int64_t image) { return vertices_.reaches(image); }, fault);
  }
  // Writes the mask of a tile's uncovered pixels, where it is not 0 already.
  void write(int64_t image, int64_t tile, const TileArea& area) const {
    static thread_local FacesOfTile faces;
    if (!near_.of_tile(image, area, &faces)) return;
    const MaskImage<T> of_image = {vertices_.points(image), p_.face_indices, p_.height, p_.width,
                                   SoftMaskRules<T>(p_.sigmainv, p_.boxlen, p_.knum)};
    T* mask = static_cast<T*>(p_.mask) + (image * p_.height + area.y0) * p_.width + area.x0;
    mask_tile(of_image, area, open_[image * tiles_ + tile], faces, mask, p_.width);
  }

 private:
  const dibr_render_params& p_;
  int64_t tiles_;
  MaskVertices<T> vertices_;
  MaskFaces near_;
  OpenPixels* open_;  // [B, tiles]
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
  Renderer(const dibr_render_params& p, Arena& arena)
      : p_(p),
        rasterizer_(RasterScene<T>(p), arena),
        is_resolved_(writes(p, DIBR_RENDER_DEPTH | DIBR_RENDER_BARYCENTRICS)),
        is_weighed_(writes(p, ~(DIBR_RENDER_FACE_INDEX | DIBR_RENDER_MASK))) {
    if (writes(p, DIBR_RENDER_COLOR)) background_.emplace(p, arena);
    if (writes(p, DIBR_RENDER_MASK)) masks_.emplace(p, rasterizer_.tiles(), arena);
  }

  dibr_status run(const dibr_launch& launch) const {
    IndexChecks checks(p_);
    const auto indices_are_good = [&] { return !checks.found(); };
    const auto draw_all = rasterizer_.for_each_tile([this](int64_t image, int64_t tile) { draw(image, tile); });
    const auto prepare = together(rasterizer_.project(), find_background(), checks.phase());
    if (masks_) {
      LowestFault none;  // the checks have found it
      run_phases(launch, indices_are_good, together(prepare, masks_->place()), rasterizer_.bin(), draw_all,
                 masks_->choose(none), rasterizer_.for_each_tile([this](int64_t image, int64_t tile) {
                   masks_->write(image, tile, rasterizer_.area(tile));
                 }));
    } else {
      run_phases(launch, indices_are_good, prepare, rasterizer_.bin(), draw_all);
    }
    return checks.status();
  }

 private:
  using Integer = typename TileBuffer<T>::Integer;

  auto find_background() const {
    return Phase{background_ ? background_->images() : 0, [this](int64_t image) {
                   with_storage(p_.texture_dtype, [&](auto s) { background_->template find<decltype(s)>(image); });
                 }};
  }

  void draw(int64_t image, int64_t tile) const {
    const TileBuffer<T>* drawn = rasterizer_.draw(image, tile);
    const TileArea area = rasterizer_.area(tile);
    const int columns = int(area.x1 - area.x0);
    const OpenPixels open = drawn != nullptr ? uncovered_pixels(area, drawn->faces(0), kTile) : all_pixels(area);
    Row<T> row;
    row.first = row.columns = 0;
    UvRows<T> uv_rows;
    for (int y = 0; y < int(area.y1 - area.y0); ++y) {
      const int64_t pixel = (image * p_.height + area.y0 + y) * p_.width + area.x0;
      write_coverage(drawn != nullptr ? drawn->faces(y) : TileBuffer<T>::no_faces(), pixel, columns);
      if (!is_weighed_) continue;
      if (drawn != nullptr) row.find(*drawn, y, open.rows[y]);
      if (row.columns < columns) write_background(image, pixel, columns);
      if (row.columns == 0) continue;
      row.resolve(*drawn, y, is_resolved_);
      write(row, image, pixel + row.first, uv_rows);
    }
    write_colors(image, uv_rows);
    if (masks_) masks_->note_uncovered(image, tile, area, open);
  }

  // Of `columns` pixels of a tile's row, what they show and the mask as far as it is known without faces.
  void write_coverage(const Integer* faces, int64_t pixel, int columns) const {
    with_row_size(columns, 1, [&](auto count) {
      if (writes(p_, DIBR_RENDER_FACE_INDEX)) std::copy_n(faces, count, p_.face_index + pixel);
      if (!writes(p_, DIBR_RENDER_MASK)) return;
      T* mask = static_cast<T*>(p_.mask) + pixel;
      for (int64_t i = 0; i < count; ++i) mask[i] = faces[i] < 0 ? T(0) : T(1);
    });
  }

  // What `columns` pixels of a tile's row have where nothing covers them, into every other output.
  void write_background(int64_t image, int64_t pixel, int columns) const {
    const auto fill = [&](void* out, int64_t channels, auto value) {
      auto* row = static_cast<decltype(value)*>(out) + pixel * channels;
      with_row_size(columns, channels, [&](auto count) {
        for (int64_t i = 0; i < count; ++i) row[i] = value;
      });
    };
    if (writes(p_, DIBR_RENDER_DEPTH)) fill(p_.depth, 1, T(1));
    if (writes(p_, DIBR_RENDER_BARYCENTRICS)) fill(p_.barycentrics, 3, T(0));
    if (writes(p_, DIBR_RENDER_UV)) fill(p_.uv.output, 2, T(0));
    if (writes(p_, DIBR_RENDER_COLOR)) {
      with_storage(p_.texture_dtype, [&](auto s) {
        using S = decltype(s);
        const S* __restrict colors = background_->template of<S>(image);
        S* __restrict row = static_cast<S*>(p_.color) + pixel * p_.texture_channels;
        with_row_size(columns, p_.texture_channels, [&](auto count) {
          for (int64_t i = 0; i < count; ++i) row[i] = colors[i];
        });
      });
    }
    for (int k = 0; k < DIBR_RENDER_ATTRIBUTES; ++k) {
      if (!writes_attributes(p_, k)) continue;
      const dibr_render_attributes& a = p_.attributes[k];
      with_storage(p_.attribute_dtype, [&](auto s) { fill(a.output, a.channels, s); });
    }
  }

  // A row of a tile, whose first pixel is `pixel`, into the outputs that are made of it: colours once uv_rows are
  // sampled.
  void write(const Row<T>& row, int64_t image, int64_t pixel, UvRows<T>& uv_rows) const {
    if (writes(p_, DIBR_RENDER_DEPTH)) std::copy_n(row.depth, row.columns, static_cast<T*>(p_.depth) + pixel);
    if (writes(p_, DIBR_RENDER_BARYCENTRICS)) write_barycentrics(row, pixel);
    if (samples_uv(p_)) add_uv(row, image, pixel, uv_rows);
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

  // Adds a row to those whose colours are written next.
  void add_uv(const Row<T>& row, int64_t image, int64_t pixel, UvRows<T>& rows) const {
    if (!rows.has_room()) write_colors(image, rows);
    const int first = rows.pixels();
    rows.runs[rows.count++] = {first, row.columns, pixel};
    interpolate_few<2>(row, p_.uv, values_of<T>(p_.uv, image), rows.uv, first);
    if (writes(p_, DIBR_RENDER_UV)) {
      store_few<2>(rows.uv, first, row.columns, 2, static_cast<T*>(p_.uv.output) + 2 * pixel);
    }
  }

  void write_colors(int64_t image, UvRows<T>& rows) const {
    if (writes(p_, DIBR_RENDER_COLOR) && rows.count > 0) {
      with_storage(p_.texture_dtype, [&](auto s) {
        using S = decltype(s);
        sample_runs(texture_of<S>(p_, image), rows.runs, rows.count, rows.uv, static_cast<S*>(p_.color));
      });
    }
    rows.count = 0;
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
  bool is_resolved_, is_weighed_;  // some output is made of depths and barycentrics, or needs only barycentrics
  std::optional<BackgroundColor<T>> background_;
  std::optional<SoftMasks<T>> masks_;
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
