// SoftMask on the CPU, in three steps: note which blocks of pixels have some that nothing covers, choose the faces near
// those, and look at each tile with its faces. The backward finds them again, unless the forward was asked to keep
// them.
#include "core/soft_mask.h"

#include <optional>

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/soft_mask_faces.h"
#include "cpu/soft_mask_tile.h"
#include "cpu/sparse_scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

// The images of a launch cut into tiles.
struct Tiles {
  int64_t height, width, columns, rows;

  template <class P>
  explicit Tiles(const P& p)
      : height(p.height),
        width(p.width),
        columns((p.width + kTile - 1) / kTile),
        rows((p.height + kTile - 1) / kTile) {}

  int64_t count() const { return columns * rows; }
  TileArea area(int64_t tile) const {
    const int64_t x = tile % columns * kTile, y = tile / columns * kTile;
    return {x, y, std::min(x + kTile, width), std::min(y + kTile, height)};
  }
};

// What forward and backward know of a launch, in its workspace.
template <class T, class P>
struct Scene {
  const P& p;
  MaskVertices<T> vertices;
  MaskFaces near;

  Scene(const P& params, Arena& arena)
      : p(params),
        vertices(p.batch, p.vertices, p.height, p.width, arena),
        near(p.batch, p.vertices, p.faces, p.height, p.width, arena) {}

  const T* positions() const { return static_cast<const T*>(p.positions); }
  MaskImage<T> image(int64_t image) const {
    return {vertices.points(image), p.face_indices, p.height, p.width, SoftMaskRules<T>(p.sigmainv, p.boxlen, p.knum)};
  }
};

// Looks at one band of rows: checks face_index, notes which cells have an uncovered pixel, and where there is a mask
// [B, H, W], writes what it is without faces.
template <class T, class P>
void scan_band(const P& p, const MaskFaces& near, int64_t image, int64_t band, LowestFault& fault, T* mask) {
  static thread_local std::vector<int32_t> covering_of_thread;
  if (covering_of_thread.size() < size_t(p.width + kTile)) covering_of_thread.resize(size_t(p.width + kTile));
  int32_t* __restrict covering = covering_of_thread.data();
  std::fill_n(covering + p.width, kTile, 0);
  const int64_t y0 = band * MaskFaces::kCell, y1 = std::min(y0 + MaskFaces::kCell, p.height);
  // i is in [-1, faces) where neither i + 1 nor faces - 1 - i has its sign set.
  const uint32_t last = uint32_t(p.faces - 1);
  uint32_t signs = 0;
  for (int64_t y = y0; y < y1; ++y) {
    const int64_t first = (image * p.height + y) * p.width;
    const int32_t* face_index = p.face_index + first;
    const int32_t kept = y == y0 ? 0 : -1;
    const auto look = [&](const auto& show) {
      for (int64_t x = 0; x < p.width; ++x) {
        const int32_t i = face_index[x];
        signs |= (uint32_t(i) + 1u) | (last - uint32_t(i));
        covering[x] = (covering[x] & kept) | i;
        show(x, i);
      }
    };
    if (mask == nullptr) {
      look([](int64_t, int32_t) {});
    } else {
      T* __restrict row = mask + first;
      look([=](int64_t x, int32_t i) { row[x] = i < 0 ? T(0) : T(1); });
    }
  }
  if (int32_t(signs) < 0) fault.report((image * p.height + y0) * p.width);
  near.note_uncovered(image, band, covering);
}

// Whether an index out of range was met, somewhere near one of these.
struct Faults {
  LowestFault pixel, vertex;

  bool found() const { return pixel.found() || vertex.found(); }
  // The error, if there is one.
  template <class P>
  dibr_status status(const char* op, const P& p, const dibr_launch& launch) const {
    if (!found()) return DIBR_OK;
    if (const dibr_status status = check_faces(op, p, launch)) return status;
    return check_face_index(op, p, launch);
  }
};

// The phases that place the vertices and choose the faces; mask as in scan_band.
template <class T, class P>
auto prepare(const Scene<T, P>& scene, T* mask, Faults& faults) {
  constexpr int64_t kBands = 4, kVertices = 4096;
  const P& p = scene.p;
  const int64_t tasks = (scene.near.bands() + kBands - 1) / kBands;
  const Phase scan = {p.batch * tasks, [=, &p, &scene, &faults](int64_t i) {
                        const int64_t begin = i % tasks * kBands, end = std::min(begin + kBands, scene.near.bands());
                        for (int64_t band = begin; band < end; ++band) {
                          scan_band(p, scene.near, i / tasks, band, faults.pixel, mask);
                        }
                      }};
  const auto place = phase_of_blocks(p.batch * p.vertices, kVertices, [&p, &scene](int64_t begin, int64_t end) {
    scene.vertices.place(scene.positions(), T(p.boxlen), begin, end);
  });
  return std::tuple_cat(tuple_of(together(scan, place)),
                        scene.near.choose(
                            p.face_indices, [&p](int64_t image) { return faces_of(p, image); },
                            [&scene](int64_t image) { return scene.vertices.reaches(image); }, faults.vertex));
}

// The places that a launch with p.keep has beyond a Scene in its workspace, for its tiles' visits.
template <class P>
KeptTiles kept_tiles(const P& p, Arena& arena) {
  return KeptTiles(p.batch * Tiles(p).count(), p.batch * p.height * p.width, arena);
}

template <class T>
void mask_one_tile(const Scene<T, dibr_soft_mask_params>& scene, int64_t image, const TileArea& area,
                   TileNotes* notes) {
  static thread_local FacesOfTile faces;
  if (!scene.near.of_tile(image, area, &faces)) return;
  const auto& p = scene.p;
  const int64_t first = (image * p.height + area.y0) * p.width + area.x0;
  mask_tile(scene.image(image), area, uncovered_pixels(area, p.face_index + first, p.width), faces,
            static_cast<T*>(p.mask) + first, p.width, notes);
}

template <class T>
dibr_status forward(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_face_ranges("soft_mask", p)) return status;
  Arena arena(launch.workspace);
  const Scene<T, dibr_soft_mask_params> scene(p, arena);
  std::optional<KeptTiles> kept;
  if (p.keep) kept.emplace(kept_tiles(p, arena));
  if (kept) kept->clear();
  const Tiles tiles(p);
  const auto mask_tiles = [&](int64_t i) {
    const int64_t image = i / tiles.count();
    const TileArea area = tiles.area(i % tiles.count());
    if (!kept) return mask_one_tile(scene, image, area, nullptr);
    static thread_local TileNotes notes;
    notes.clear();
    mask_one_tile(scene, image, area, &notes);
    kept->keep(i, notes);
  };
  Faults faults;
  run_phases(
      launch, [&] { return !faults.found(); }, prepare(scene, static_cast<T*>(p.mask), faults),
      Phase{p.batch * tiles.count(), mask_tiles});
  return faults.status("soft_mask", p, launch);
}

template <class T>
SparseScatter<T> point_scatter(const dibr_soft_mask_backward_params& p, Arena& arena) {
  return SparseScatter<T>(p.batch, p.vertices, Tiles(p).count(), arena);
}

// From the gradients with respect to points, (x, y), of the vertices [begin, end) of an image to those with respect to
// positions. No sums: all are 0.
template <class T>
void write_gradients(const Scene<T, dibr_soft_mask_backward_params>& scene, int64_t image, int64_t begin, int64_t end,
                     const T* sums) {
  const int64_t first = 4 * (image * scene.p.vertices + begin);
  T* out = static_cast<T*>(scene.p.grad_positions) + first;
  std::fill_n(out, 4 * (end - begin), T(0));
  if (sums == nullptr) return;
  const T* points = scene.vertices.points(image) + 2 * begin;
  for (int64_t i = 0; i < end - begin; ++i) {
    // A vertex that no face uses may be anywhere.
    if (sums[2 * i] == T(0) && sums[2 * i + 1] == T(0)) continue;
    mask_vertex_gradient(sums[2 * i], sums[2 * i + 1], points[2 * i], points[2 * i + 1],
                         scene.positions()[first + 4 * i + 3], out + 4 * i);
  }
}

// Adds one tile's gradient; kept is NULL where nothing was.
template <class T>
void add_tile(const Scene<T, dibr_soft_mask_backward_params>& scene, const KeptTiles* kept, const Tiles& tiles,
              int64_t image, int64_t tile, const TouchedVectors<T>& sums) {
  static thread_local TileGradient<T> gradient_of_thread;
  static thread_local FacesOfTile faces;
  const int64_t place = image * tiles.count() + tile;
  const bool is_kept = kept != nullptr && kept->has(place);
  const TileArea area = tiles.area(tile);
  if (is_kept ? (*kept)[place].is_empty() : !scene.near.of_tile(image, area, &faces)) return;
  const auto& p = scene.p;
  const int64_t first = (image * p.height + area.y0) * p.width + area.x0;
  TileGradient<T>& gradient = gradient_of_thread;
  const MaskImage<T> of_image = scene.image(image);
  gradient.enter(of_image, area, uncovered_pixels(area, p.face_index + first, p.width),
                 static_cast<const T*>(p.grad_mask) + first, p.width);
  is_kept ? gradient.add((*kept)[place], sums) : gradient.add(faces, sums);
}

template <class T>
dibr_status backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  Arena own(launch.workspace), kept_arena(const_cast<void*>(p.kept));
  const SparseScatter<T> scatter = point_scatter<T>(p, own);
  const Scene<T, dibr_soft_mask_backward_params> scene(p, p.kept != nullptr ? kept_arena : own);
  const Tiles tiles(p);
  std::optional<KeptTiles> kept;
  const auto add_up = scatter.phases(
      [&](int64_t image, int64_t tile, const TouchedVectors<T>& sums) {
        add_tile(scene, kept ? &*kept : nullptr, tiles, image, tile, sums);
      },
      [&](int64_t image, int64_t begin, int64_t end, const T* sums) {
        write_gradients(scene, image, begin, end, sums);
      });
  Faults faults;
  const auto indices_are_good = [&] { return !faults.found(); };
  if (p.kept != nullptr) {
    kept.emplace(kept_tiles(p, kept_arena));
    run_phases(launch, indices_are_good, add_up);
    return DIBR_OK;
  }
  if (const dibr_status status = check_face_ranges("soft_mask_backward", p)) return status;
  run_phases(launch, indices_are_good, prepare<T>(scene, nullptr, faults), add_up);
  return faults.status("soft_mask_backward", p, launch);
}

}  // namespace

dibr_status soft_mask_workspace(const dibr_soft_mask_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) { Scene<decltype(t), dibr_soft_mask_params>(p, arena); });
  if (p.keep) kept_tiles(p, arena);
  return DIBR_OK;
}
dibr_status soft_mask(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, alone_if_small(p, launch)); });
}

dibr_status soft_mask_backward_workspace(const dibr_soft_mask_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) {
    point_scatter<decltype(t)>(p, arena);
    if (p.kept == nullptr) Scene<decltype(t), dibr_soft_mask_backward_params>(p, arena);
  });
  return DIBR_OK;
}
dibr_status soft_mask_backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, alone_if_small(p, launch)); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
