// SoftMask on the CPU, in three steps: note which blocks of pixels have some that nothing covers, choose the faces near
// those, and look at each tile with its faces. The backward finds them again instead of storing them.
#include "core/soft_mask.h"

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

template <class T, class P>
MaskImage<T> image_of(const P& p, int64_t image) {
  return {static_cast<const T*>(p.positions) + image * p.vertices * 4, p.face_indices, p.height, p.width,
          SoftMaskRules<T>(p.sigmainv, p.boxlen, p.knum)};
}

template <class P>
MaskFaces faces_near(const P& p, Arena& arena) {
  return MaskFaces(p.batch, p.vertices, p.faces, p.height, p.width, arena);
}

// Looks at one band of rows: checks face_index, and notes which cells have an uncovered pixel.
template <class P, class UseRow>
void scan_band(const P& p, const MaskFaces& near, int64_t image, int64_t band, LowestFault& fault,
               const UseRow& use_row) {
  static thread_local std::vector<int32_t> covering_of_thread;
  std::vector<int32_t>& covering = covering_of_thread;
  covering.assign(size_t(p.width), 0);
  const int64_t y0 = band * MaskFaces::kCell, y1 = std::min(y0 + MaskFaces::kCell, p.height);
  const int64_t first = (image * p.height + y0) * p.width;
  // i is in [-1, faces) where neither i + 1 nor faces - 1 - i has its sign set.
  const uint32_t last = uint32_t(p.faces - 1);
  uint32_t signs = 0;
  for (int64_t y = y0; y < y1; ++y) {
    const int64_t pixel = (image * p.height + y) * p.width;
    const int32_t* face_index = p.face_index + pixel;
    int32_t* __restrict out = covering.data();
    for (int64_t x = 0; x < p.width; ++x) {
      const uint32_t i = uint32_t(face_index[x]);
      signs |= (i + 1u) | (last - i);
      out[x] |= face_index[x];
    }
    use_row(face_index, pixel);
  }
  if (int32_t(signs) < 0) fault.report(first);
  near.note_uncovered(image, band, covering.data());
}

// Chooses the faces. use_row(face_index, pixel) sees every row of pixels besides, from its first one.
template <class T, class P, class UseRow>
dibr_status prepare(const char* op, const P& p, const dibr_launch& launch, const MaskFaces& near,
                    const UseRow& use_row) {
  if (const dibr_status status = check_face_ranges(op, p)) return status;
  LowestFault bad_pixel, bad_vertex;
  constexpr int64_t kBands = 4, kVertices = 4096;
  const int64_t tasks = (near.bands() + kBands - 1) / kBands;
  const int64_t vertices = p.batch * p.vertices, vertex_tasks = (vertices + kVertices - 1) / kVertices;
  parallel_for(launch, p.batch * tasks + vertex_tasks, [&](int64_t i) {
    if (i < p.batch * tasks) {
      const int64_t begin = i % tasks * kBands, end = std::min(begin + kBands, near.bands());
      for (int64_t band = begin; band < end; ++band) scan_band(p, near, i / tasks, band, bad_pixel, use_row);
    } else {
      const int64_t begin = (i - p.batch * tasks) * kVertices;
      near.note_reach(static_cast<const T*>(p.positions), T(p.boxlen), begin, std::min(begin + kVertices, vertices));
    }
  });
  near.choose(launch, p.face_indices, [&](int64_t image) { return faces_of(p, image); }, bad_vertex);
  if (bad_vertex.found()) return check_faces(op, p, launch);
  if (bad_pixel.found()) return check_face_index(op, p, launch);
  return DIBR_OK;
}

template <class T>
dibr_status forward(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const MaskFaces near = faces_near(p, arena);
  T* mask = static_cast<T*>(p.mask);
  const dibr_status status = prepare<T>("soft_mask", p, launch, near, [&](const int32_t* face_index, int64_t pixel) {
    T* __restrict row = mask + pixel;
    for (int64_t x = 0; x < p.width; ++x) row[x] = face_index[x] < 0 ? T(0) : T(1);
  });
  if (status != DIBR_OK) return status;
  const Tiles tiles(p);
  parallel_for(launch, p.batch * tiles.count(), [&](int64_t i) {
    const int64_t image = i / tiles.count();
    const TileArea area = tiles.area(i % tiles.count());
    static thread_local FacesOfTile faces;
    if (!near.of_tile(image, area, &faces)) return;
    const int64_t first = (image * p.height + area.y0) * p.width + area.x0;
    const MaskPixels<T, int32_t> pixels = {area, p.face_index + first, p.width, mask + first, p.width};
    mask_tile(image_of<T>(p, image), pixels, faces.faces.data(), int64_t(faces.faces.size()), faces.cells);
  });
  return DIBR_OK;
}

// The pixels of a tile through which a gradient comes.
template <class T>
OpenPixels pulled_pixels(const dibr_soft_mask_backward_params& p, const TileArea& area, int64_t first) {
  const T* grad_mask = static_cast<const T*>(p.grad_mask) + first;
  OpenPixels open;
  for (int64_t y = 0; y < area.y1 - area.y0; ++y) {
    uint32_t bits = 0;
    for (int64_t x = 0; x < area.x1 - area.x0; ++x) {
      const int64_t i = y * p.width + x;
      bits |= uint32_t((p.face_index[first + i] < 0) & (grad_mask[i] != T(0))) << x;
    }
    open.rows[y] = bits;
  }
  return open;
}

template <class T>
SparseScatter<T> position_scatter(const dibr_soft_mask_backward_params& p, Arena& arena) {
  return SparseScatter<T>(p.batch, p.vertices, Tiles(p).count(), arena);
}

template <class T>
dibr_status backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const MaskFaces near = faces_near(p, arena);
  const SparseScatter<T> scatter = position_scatter<T>(p, arena);
  const dibr_status status = prepare<T>("soft_mask_backward", p, launch, near, [](const int32_t*, int64_t) {});
  if (status != DIBR_OK) return status;
  const Tiles tiles(p);
  scatter.run(launch, static_cast<T*>(p.grad_positions),
              [&](int64_t image, int64_t tile, const TouchedVectors<T>& sums) {
                static thread_local TileGradient<T> gradient_of_thread;
                const TileArea area = tiles.area(tile);
                static thread_local FacesOfTile faces;
                if (!near.of_tile(image, area, &faces)) return;
                const int64_t first = (image * p.height + area.y0) * p.width + area.x0;
                OpenPixels open = pulled_pixels<T>(p, area, first);
                open.keep(faces.cells);
                if (!open.any()) return;
                gradient_of_thread.add(image_of<T>(p, image), area, open, static_cast<const T*>(p.grad_mask) + first,
                                       p.width, faces.faces.data(), int64_t(faces.faces.size()), sums);
              });
  return DIBR_OK;
}

}  // namespace

dibr_status soft_mask_workspace(const dibr_soft_mask_params& p, Arena& arena) {
  faces_near(p, arena);
  return DIBR_OK;
}
dibr_status soft_mask(const dibr_soft_mask_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return forward<decltype(t)>(p, launch); });
}

dibr_status soft_mask_backward_workspace(const dibr_soft_mask_backward_params& p, Arena& arena) {
  faces_near(p, arena);
  dispatch(p.dtype, [&](auto t) { position_scatter<decltype(t)>(p, arena); });
  return DIBR_OK;
}
dibr_status soft_mask_backward(const dibr_soft_mask_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
