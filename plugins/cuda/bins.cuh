// Bins on the device: for every tile of every image the faces that can touch it, ascending in face index. Count, scan,
// fill, sort; the workspace depends on shapes only. A tile whose list does not fit, or is longer than one block can
// sort, has no list and walks all faces in index order: slower, never wrong.
#pragma once

#include "abi/arena.h"
#include "cuda/mesh.cuh"

namespace dibr::cuda {

constexpr int kTile = 16;
constexpr int kTilePixels = kTile * kTile;
constexpr int kSortable = 4096;

// A PixelBox in half the space: image sides are at most 32768, so a coordinate fits an int16.
struct FaceBox {
  int16_t x0, y0, x1, y1;
};

__device__ inline FaceBox pack(const PixelBox& b) {
  return {int16_t(b.x0), int16_t(b.y0), int16_t(b.x1), int16_t(b.y1)};
}
__device__ inline bool is_empty(const FaceBox& b) { return b.x0 > b.x1; }
__device__ inline bool contains(const FaceBox& b, int x, int y) {
  return b.x0 <= x && x <= b.x1 && b.y0 <= y && y <= b.y1;
}

struct Bins {
  int64_t batch, faces;
  int32_t height, width, columns, rows;
  int64_t capacity;
  FaceBox* boxes;    // [B, F]
  unsigned* counts;  // [B, tiles]; while filling, how many entries a tile has so far
  int64_t* starts;   // [B, tiles + 1]
  int32_t* entries;  // [B, capacity]

  Bins(int64_t b, int64_t f, int64_t h, int64_t w, Arena& arena)
      : batch(b), faces(f), height(int32_t(h)), width(int32_t(w)) {
    columns = (width + kTile - 1) / kTile;
    rows = (height + kTile - 1) / kTile;
    capacity = 8 * faces + 256 * tiles();
    boxes = arena.take<FaceBox>(batch * faces);
    counts = arena.take<unsigned>(batch * tiles());
    starts = arena.take<int64_t>(batch * (tiles() + 1));
    entries = arena.take<int32_t>(batch * capacity);
  }
  DIBR_HD int64_t tiles() const { return int64_t(columns) * rows; }
};

// Where one tile lies, and its faces: a list, or all faces of the image.
struct Tile {
  int64_t image;
  int x0, y0;
  bool listed;
  const int32_t* list;
  FaceRange all;
  int64_t count;

  // The i-th face that the tile has to look at.
  __device__ int32_t face(int64_t i) const { return listed ? list[i] : int32_t(all.start + i); }
};

template <class P>
__device__ Tile tile_at(const Bins& bins, const P& p, int64_t index) {
  const int64_t image = index / bins.tiles(), tile = index % bins.tiles();
  const int64_t* starts = bins.starts + image * (bins.tiles() + 1) + tile;
  Tile t;
  t.image = image;
  t.x0 = int(tile % bins.columns) * kTile;
  t.y0 = int(tile / bins.columns) * kTile;
  t.listed = starts[1] <= bins.capacity && starts[1] - starts[0] <= kSortable;
  t.list = bins.entries + image * bins.capacity + (t.listed ? starts[0] : 0);
  t.all = faces_of(p, image);
  t.count = t.listed ? starts[1] - starts[0] : t.all.count;
  return t;
}

// A thread's pixel, where a block draws a tile with a thread for each.
template <class T>
struct TilePixel {
  int x, y;
  bool inside;    // of the image
  int64_t index;  // of the pixel in [B, H, W]
  T px, py;       // its centre in NDC

  __device__ TilePixel(const Bins& bins, const Tile& tile) {
    x = tile.x0 + int(threadIdx.x) % kTile;
    y = tile.y0 + int(threadIdx.x) / kTile;
    inside = x < bins.width && y < bins.height;
    index = (tile.image * bins.height + y) * bins.width + x;
    px = pixel_x<T>(x, bins.width);
    py = pixel_y<T>(y, bins.height);
  }
};

// Calls visit(tile) for the tiles a face touches. A warp shares out the tiles of its large faces, so that one face over
// the whole image does not hold up a single thread. Every lane must call it.
template <class Visit>
__device__ void for_each_tile(const Bins& bins, const FaceBox& box, const Visit& visit) {
  constexpr int kOwn = 4;
  const int x0 = box.x0 / kTile, y0 = box.y0 / kTile;
  const int columns = is_empty(box) ? 0 : box.x1 / kTile - x0 + 1;
  const int count = is_empty(box) ? 0 : columns * (box.y1 / kTile - y0 + 1);
  for (int i = 0; count <= kOwn && i < count; ++i) {
    visit(int64_t(y0 + i / columns) * bins.columns + x0 + i % columns, lane_index());
  }
  unsigned large = __ballot_sync(kFullWarp, count > kOwn);
  while (large != 0) {
    const int lane = __ffs(int(large)) - 1;
    large &= large - 1;
    const int its_x0 = __shfl_sync(kFullWarp, x0, lane), its_y0 = __shfl_sync(kFullWarp, y0, lane);
    const int its_columns = __shfl_sync(kFullWarp, columns, lane), its_count = __shfl_sync(kFullWarp, count, lane);
    for (int i = lane_index(); i < its_count; i += kWarp) {
      visit(int64_t(its_y0 + i / its_columns) * bins.columns + its_x0 + i % its_columns, lane);
    }
  }
}

// box_of(image, face) gives the pixels that a face can touch.
template <class P, class BoxOf>
__global__ void count_kernel(Bins bins, P p, BoxOf box_of) {
  const int64_t padded = (bins.faces + kWarp - 1) / kWarp * kWarp;
  for (int64_t i = thread_index(); i < bins.batch * padded; i += thread_stride()) {
    const int64_t image = i / padded, face = i % padded;
    const FaceRange range = faces_of(p, image);
    FaceBox box = {1, 1, 0, 0};
    if (face >= range.start && face < range.start + range.count && has_vertices(p, face)) {
      box = pack(box_of(p, image, face));
    }
    if (face < bins.faces) bins.boxes[image * bins.faces + face] = box;
    unsigned* counts = bins.counts + image * bins.tiles();
    for_each_tile(bins, box, [&](int64_t tile, int) { atomicAdd(counts + tile, 1u); });
  }
}

// Exclusive sum of an image's counts by one block, which then clears them for the fill.
static __global__ void scan_kernel(Bins bins) {
  __shared__ int64_t sums[kBlock];
  const int t = int(threadIdx.x);
  for (int64_t image = blockIdx.x; image < bins.batch; image += gridDim.x) {
    unsigned* counts = bins.counts + image * bins.tiles();
    int64_t* starts = bins.starts + image * (bins.tiles() + 1);
    int64_t carry = 0;
    for (int64_t base = 0; base < bins.tiles(); base += kBlock) {
      const bool inside = base + t < bins.tiles();
      const int64_t count = inside ? counts[base + t] : 0;
      sums[t] = count;
      __syncthreads();
      for (int d = 1; d < kBlock; d *= 2) {
        const int64_t below = t >= d ? sums[t - d] : 0;
        __syncthreads();
        sums[t] += below;
        __syncthreads();
      }
      if (inside) {
        starts[base + t] = carry + sums[t] - count;
        counts[base + t] = 0;
      }
      carry += sums[kBlock - 1];
      __syncthreads();
    }
    if (t == 0) starts[bins.tiles()] = carry;
  }
}

static __global__ void fill_lists_kernel(Bins bins) {
  const int64_t padded = (bins.faces + kWarp - 1) / kWarp * kWarp;
  for (int64_t i = thread_index(); i < bins.batch * padded; i += thread_stride()) {
    const int64_t image = i / padded, face = i % padded;
    FaceBox box = {1, 1, 0, 0};
    if (face < bins.faces) box = bins.boxes[image * bins.faces + face];
    unsigned* counts = bins.counts + image * bins.tiles();
    const int64_t* starts = bins.starts + image * (bins.tiles() + 1);
    int32_t* entries = bins.entries + image * bins.capacity;
    const int64_t first = face - lane_index();
    for_each_tile(bins, box, [&](int64_t tile, int lane) {
      const int64_t position = starts[tile] + atomicAdd(counts + tile, 1u);
      if (position < bins.capacity) entries[position] = int32_t(first + lane);
    });
  }
}

// Sorts each tile's list by face index, so that nothing downstream depends on the order in which atomics were served.
static __global__ void sort_kernel(Bins bins) {
  __shared__ int32_t keys[kSortable];
  for (int64_t i = blockIdx.x; i < bins.batch * bins.tiles(); i += gridDim.x) {
    const int64_t image = i / bins.tiles(), tile = i % bins.tiles();
    const int64_t* starts = bins.starts + image * (bins.tiles() + 1) + tile;
    const int64_t length = starts[1] - starts[0];
    const bool listed = starts[1] <= bins.capacity && length <= kSortable;
    int32_t* list = bins.entries + image * bins.capacity + starts[0];
    int padded = 1;
    while (listed && padded < length) padded *= 2;
    const int work = listed ? padded : 0;
    for (int k = int(threadIdx.x); k < work; k += kBlock) keys[k] = k < length ? list[k] : INT32_MAX;
    __syncthreads();
    for (int size = 2; size <= work; size *= 2) {
      for (int step = size / 2; step > 0; step /= 2) {
        for (int k = int(threadIdx.x); k < work; k += kBlock) {
          const int other = k ^ step;
          const bool ascending = (k & size) == 0;
          if (other > k && (keys[k] > keys[other]) == ascending) {
            const int32_t key = keys[k];
            keys[k] = keys[other];
            keys[other] = key;
          }
        }
        __syncthreads();
      }
    }
    for (int k = int(threadIdx.x); k < work && k < length; k += kBlock) list[k] = keys[k];
    __syncthreads();
  }
}

template <class P, class BoxOf>
void build_bins(const Bins& bins, const P& p, const BoxOf& box_of, cudaStream_t stream) {
  const int64_t all_faces = bins.batch * ((bins.faces + kWarp - 1) / kWarp * kWarp);
  fill(bins.counts, 0u, bins.batch * bins.tiles(), stream);
  if (all_faces > 0) DIBR_LAUNCH((count_kernel<P, BoxOf>), grid_for(all_faces), kBlock, 0, stream, bins, p, box_of);
  DIBR_LAUNCH(scan_kernel, grid_for(bins.batch, 1), kBlock, 0, stream, bins);
  if (all_faces > 0) DIBR_LAUNCH(fill_lists_kernel, grid_for(all_faces), kBlock, 0, stream, bins);
  DIBR_LAUNCH(sort_kernel, grid_for(bins.batch * bins.tiles(), 1), kBlock, 0, stream, bins);
}

}  // namespace dibr::cuda
