// Antialias on the GPU: a thread per half-edge chains the edges, one per pixel finds the blends of its pairs to the
// right and below, one per element gathers from its four pairs.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/antialias.h"
#include "cuda/mesh.cuh"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

// The workspace: which faces share edges, and the blends (right, below) of every pixel.
template <class T>
struct Outlines {
  EdgeMap edges;
  T* blends;

  template <class P>
  Outlines(const P& p, Arena& arena)
      : edges{3 * p.faces, arena.take<int32_t>(3 * p.faces), arena.take<int32_t>(3 * p.faces)},
        blends(arena.take<T>(2 * p.batch * p.height * p.width)) {}
};

// A pixel of the batch.
struct PixelIndex {
  int64_t image;
  PixelPlace place;
};

template <class P>
__device__ PixelIndex pixel_index(const P& p, int64_t pixel) {
  return {pixel / (p.height * p.width), {pixel / p.width % p.height, pixel % p.width}};
}

template <class T, class P>
__device__ OutlineView<T> view_of(const P& p, const Outlines<T>& outlines, int64_t image) {
  const FaceRange range = faces_of(p, image);
  const int64_t pixels = p.height * p.width;
  return {static_cast<const T*>(p.positions) + image * p.vertices * 4,
          p.vertices,
          p.face_indices,
          range.start,
          range.start + range.count,
          p.face_index + image * pixels,
          static_cast<const T*>(p.barycentrics) + image * pixels * 3,
          p.height,
          p.width,
          outlines.edges};
}

template <class T>
__device__ PixelBlends<T> blends_of(const Outlines<T>& outlines, const PixelIndex& i, int64_t height, int64_t width) {
  return blends_at(outlines.blends + 2 * i.image * height * width, i.place.row, i.place.column, width);
}

// The order within a chain is that in which the atomics were served; nothing depends on it.
template <class P>
__global__ void __launch_bounds__(kBlock) chain_edges_kernel(P p, EdgeMap edges) {
  for (int64_t i = thread_index(); i < 3 * p.faces; i += thread_stride()) {
    const int32_t* v = p.face_indices + i / 3 * 3;
    if (!has_vertices(p, i / 3) || !has_edges(v)) continue;
    const int k = int(i % 3);
    edges.next[i] = atomicExch(edges.heads + edges.bucket(v[edge_begin(k)], v[edge_end(k)]), int32_t(i));
  }
}

// Blocks of a kernel per multiprocessor: what leaves enough registers to follow a segment without local memory.
template <class T>
constexpr int kResidentBlocks = sizeof(T) == 8 ? 2 : 3;

template <class T, class P>
__global__ void __launch_bounds__(kBlock, kResidentBlocks<T>) find_blends_kernel(P p, Outlines<T> outlines) {
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    const PixelIndex i = pixel_index(p, pixel);
    const OutlineView<T> view = view_of(p, outlines, i.image);
    for (int below = 0; below < 2; ++below) {
      outlines.blends[2 * pixel + below] = blend_of_pair(view, i.place, below == 0);
    }
  }
}

template <class S>
__global__ void __launch_bounds__(kBlock)
    antialias_kernel(dibr_antialias_params p, Outlines<typename ComputeOf<S>::Type> outlines) {
  const int64_t elements = p.batch * p.height * p.width * p.channels;
  for (int64_t i = thread_index(); i < elements; i += thread_stride()) {
    const auto blends = blends_of(outlines, pixel_index(p, i / p.channels), p.height, p.width);
    store(antialiased(blends, static_cast<const S*>(p.image) + i, p.channels, p.width * p.channels),
          static_cast<S*>(p.output) + i);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    antialias_image_gradient_kernel(dibr_antialias_backward_params p, Outlines<T> outlines) {
  const int64_t elements = p.batch * p.height * p.width * p.channels;
  for (int64_t i = thread_index(); i < elements; i += thread_stride()) {
    const auto blends = blends_of(outlines, pixel_index(p, i / p.channels), p.height, p.width);
    static_cast<T*>(p.grad_image)[i] =
        antialiased_gradient(blends, static_cast<const T*>(p.grad_output) + i, p.channels, p.width * p.channels);
  }
}

template <class T, class Sink>
__global__ void __launch_bounds__(kBlock, 2)
    antialias_position_gradient_kernel(dibr_antialias_backward_params p, Outlines<T> outlines, Sink sink) {
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    for (int below = 0; below < 2; ++below) {
      const T blend = outlines.blends[2 * pixel + below];
      if (!is_blend(blend)) continue;
      const PixelIndex i = pixel_index(p, pixel);
      const int64_t offset = (below == 0 ? 1 : p.width) * p.channels;
      const T grad = blend_gradient(blend, static_cast<const T*>(p.image) + pixel * p.channels,
                                    static_cast<const T*>(p.grad_output) + pixel * p.channels, offset, p.channels);
      const OutlineView<T> view = view_of(p, outlines, i.image);
      const Crossing<T> crossing = crossing_of_pair(view, i.place, below == 0);
      const EdgeGradient<T> gradient = crossing_gradient(view, i.place, below == 0, crossing, grad);
      const int32_t* v = p.face_indices + 3 * int64_t(crossing.face);
      const int64_t begin = 4 * (i.image * p.vertices + v[edge_begin(crossing.corner)]);
      const int64_t end = 4 * (i.image * p.vertices + v[edge_end(crossing.corner)]);
      for (int c = 0; c < 3; ++c) {
        sink.add(begin + (c == 2 ? 3 : c), gradient.begin[c]);
        sink.add(end + (c == 2 ? 3 : c), gradient.end[c]);
      }
    }
  }
}

template <class T, class P>
void find_blends(const P& p, const Outlines<T>& outlines, cudaStream_t stream) {
  const int64_t half_edges = 3 * p.faces, pixels = p.batch * p.height * p.width;
  if (pixels == 0) return;
  fill(outlines.edges.heads, -1, half_edges, stream);
  if (half_edges > 0) {
    DIBR_LAUNCH((chain_edges_kernel<P>), grid_for(half_edges), kBlock, 0, stream, p, outlines.edges);
  }
  DIBR_LAUNCH((find_blends_kernel<T, P>), grid_for(pixels), kBlock, 0, stream, p, outlines);
}

template <class S>
dibr_status forward(const dibr_antialias_params& p, const dibr_launch& launch) {
  Arena arena(launch.workspace);
  const Outlines<typename ComputeOf<S>::Type> outlines(p, arena);
  const unsigned grid = grid_for(p.batch * p.height * p.width * p.channels);
  if (grid > 0) {
    find_blends(p, outlines, stream_of(launch));
    DIBR_LAUNCH((antialias_kernel<S>), grid, kBlock, 0, stream_of(launch), p, outlines);
  }
  return launched("antialias");
}

// Each pair adds once to each element of an edge's two vertices.
template <class T>
ScatterSpace<T> position_space(const dibr_antialias_backward_params& p, Arena& arena) {
  return ScatterSpace<T>(p.batch * p.vertices * 4, p.height * p.width * 2, p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_antialias_backward_params& p, const dibr_launch& launch) {
  const int64_t pixels = p.batch * p.height * p.width;
  Arena arena(launch.workspace);
  const Outlines<T> outlines(p, arena);
  const ScatterSpace<T> space = position_space<T>(p, arena);
  find_blends(p, outlines, stream_of(launch));
  if (p.grad_image != nullptr && pixels * p.channels > 0) {
    DIBR_LAUNCH((antialias_image_gradient_kernel<T>), grid_for(pixels * p.channels), kBlock, 0, stream_of(launch), p,
                outlines);
  }
  if (p.grad_positions != nullptr) {
    scatter_add(space, static_cast<T*>(p.grad_positions), p.deterministic != 0, stream_of(launch), [&](auto sink) {
      if (pixels == 0) return;
      DIBR_LAUNCH((antialias_position_gradient_kernel<T, decltype(sink)>), grid_for(pixels), kBlock, 0,
                  stream_of(launch), p, outlines, sink);
    });
  }
  return launched("antialias_backward");
}

}  // namespace

dibr_status antialias_workspace(const dibr_antialias_params& p, Arena& arena) {
  dispatch_storage(p.dtype, [&](auto s) { Outlines<typename ComputeOf<decltype(s)>::Type>(p, arena); });
  return DIBR_OK;
}
dibr_status antialias(const dibr_antialias_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) { return forward<decltype(s)>(p, launch); });
}

dibr_status antialias_backward_workspace(const dibr_antialias_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) {
    Outlines<decltype(t)>(p, arena);
    position_space<decltype(t)>(p, arena);
  });
  return DIBR_OK;
}
dibr_status antialias_backward(const dibr_antialias_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cuda
