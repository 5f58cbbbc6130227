// Antialias on the CPU: one pass finds the blend of every pair of pixels, the next applies them; faces that share an
// edge are found through chains of half-edges.
#include "core/antialias.h"

#include "abi/backend.h"
#include "abi/dispatch.h"
#include "cpu/mesh.h"
#include "cpu/scatter.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {
namespace {

template <class P>
EdgeMap edge_map(const P& p, Arena& arena) {
  const int64_t half_edges = 3 * p.faces;
  return {half_edges, arena.take<int32_t>(half_edges), arena.take<int32_t>(half_edges)};
}

// Chains every half-edge. Their order within a chain is that of the threads; nothing depends on it.
template <class P>
void build_edge_map(const P& p, const dibr_launch& launch, const EdgeMap& map) {
  constexpr int64_t kBlock = 1 << 12;
  parallel_for_blocks(launch, p.faces, kBlock,
                      [&](int64_t begin, int64_t end) { std::fill(map.heads + 3 * begin, map.heads + 3 * end, -1); });
  parallel_for_blocks(launch, p.faces, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t face = begin; face < end; ++face) {
      const int32_t* v = p.face_indices + 3 * face;
      if (!has_edges(v)) continue;
      for (int k = 0; k < 3; ++k) {
        const int32_t half_edge = int32_t(3 * face + k);
        int32_t* head = map.heads + map.bucket(v[edge_begin(k)], v[edge_end(k)]);
        map.next[half_edge] = __atomic_exchange_n(head, half_edge, __ATOMIC_RELAXED);
      }
    }
  });
}

// The workspace: which faces share edges, and (right, below) of every pixel.
template <class T, class P>
struct Outlines {
  const P& p;
  EdgeMap edges;
  T* blends;

  Outlines(const P& params, Arena& arena)
      : p(params),
        edges(edge_map(params, arena)),
        blends(arena.take<T>(2 * params.batch * params.height * params.width)) {}

  OutlineView<T> view(int64_t image) const {
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
            edges};
  }

  void find(const dibr_launch& launch) const {
    build_edge_map(p, launch, edges);
    parallel_for(launch, p.batch * p.height, [&](int64_t i) {
      const OutlineView<T> image = view(i / p.height);
      T* out = blends + 2 * i * p.width;
      for (int64_t x = 0; x < p.width; ++x) {
        out[2 * x] = blend_of_pair(image, {i % p.height, x}, true);
        out[2 * x + 1] = blend_of_pair(image, {i % p.height, x}, false);
      }
    });
  }

  PixelBlends<T> at(int64_t image, int64_t row, int64_t column) const {
    return blends_at(blends + 2 * image * p.height * p.width, row, column, p.width);
  }
};

// Calls body(element, pixel's blends) for every channel of every pixel.
template <class T, class P, class Body>
void for_each_channel(const Outlines<T, P>& outlines, const dibr_launch& launch, const Body& body) {
  const P& p = outlines.p;
  parallel_for(launch, p.batch * p.height, [&](int64_t i) {
    for (int64_t x = 0; x < p.width; ++x) {
      const PixelBlends<T> blends = outlines.at(i / p.height, i % p.height, x);
      const int64_t first = (i * p.width + x) * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) body(first + c, blends);
    }
  });
}

template <class P>
dibr_status check_indices(const char* op, const P& p, const dibr_launch& launch) {
  if (const dibr_status status = check_faces(op, p, launch)) return status;
  if (const dibr_status status = check_face_ranges(op, p)) return status;
  return check_face_index(op, p, launch);
}

template <class S>
dibr_status forward(const dibr_antialias_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  if (const dibr_status status = check_indices("antialias", p, launch)) return status;
  Arena arena(launch.workspace);
  const Outlines<T, dibr_antialias_params> outlines(p, arena);
  outlines.find(launch);
  for_each_channel(outlines, launch, [&](int64_t i, const PixelBlends<T>& blends) {
    const S* image = static_cast<const S*>(p.image) + i;
    store(antialiased(blends, image, p.channels, p.width * p.channels), static_cast<S*>(p.output) + i);
  });
  return DIBR_OK;
}

template <class T>
using BackwardOutlines = Outlines<T, dibr_antialias_backward_params>;

template <class T>
Scatter<T> position_scatter(const dibr_antialias_backward_params& p, Arena& arena) {
  return Scatter<T>(p.batch, p.vertices * 4, p.height, p.batch * p.height * p.width * 4, arena);
}

template <class T>
void add_pair_gradient(const BackwardOutlines<T>& outlines, int64_t image, const PixelPlace& place, bool horizontal,
                       T* sum) {
  const dibr_antialias_backward_params& p = outlines.p;
  const int64_t pixel = (image * p.height + place.row) * p.width + place.column;
  const T blend = outlines.blends[2 * pixel + (horizontal ? 0 : 1)];
  if (!is_blend(blend)) return;
  const int64_t offset = (horizontal ? 1 : p.width) * p.channels;
  const T grad = blend_gradient(blend, static_cast<const T*>(p.image) + pixel * p.channels,
                                static_cast<const T*>(p.grad_output) + pixel * p.channels, offset, p.channels);
  const OutlineView<T> view = outlines.view(image);
  const Crossing<T> crossing = crossing_of_pair(view, place, horizontal);
  const EdgeGradient<T> gradient = crossing_gradient(view, place, horizontal, crossing, grad);
  const int32_t* v = p.face_indices + 3 * int64_t(crossing.face);
  T* begin = sum + 4 * int64_t(v[edge_begin(crossing.corner)]);
  T* end = sum + 4 * int64_t(v[edge_end(crossing.corner)]);
  for (int c = 0; c < 3; ++c) {
    begin[c == 2 ? 3 : c] += gradient.begin[c];
    end[c == 2 ? 3 : c] += gradient.end[c];
  }
}

template <class T>
dibr_status backward(const dibr_antialias_backward_params& p, const dibr_launch& launch) {
  if (const dibr_status status = check_indices("antialias_backward", p, launch)) return status;
  Arena arena(launch.workspace);
  const BackwardOutlines<T> outlines(p, arena);
  const Scatter<T> scatter = position_scatter<T>(p, arena);
  outlines.find(launch);
  if (p.grad_image != nullptr) {
    for_each_channel(outlines, launch, [&](int64_t i, const PixelBlends<T>& blends) {
      static_cast<T*>(p.grad_image)[i] =
          antialiased_gradient(blends, static_cast<const T*>(p.grad_output) + i, p.channels, p.width * p.channels);
    });
  }
  if (p.grad_positions != nullptr) {
    scatter.run(launch, static_cast<T*>(p.grad_positions), [&](int64_t image, int64_t row, T* sum) {
      for (int64_t x = 0; x < p.width; ++x) {
        add_pair_gradient(outlines, image, {row, x}, true, sum);
        add_pair_gradient(outlines, image, {row, x}, false, sum);
      }
    });
  }
  return DIBR_OK;
}

}  // namespace

dibr_status antialias_workspace(const dibr_antialias_params& p, Arena& arena) {
  dispatch_storage(p.dtype,
                   [&](auto s) { Outlines<typename ComputeOf<decltype(s)>::Type, dibr_antialias_params>(p, arena); });
  return DIBR_OK;
}
dibr_status antialias(const dibr_antialias_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) { return forward<decltype(s)>(p, launch); });
}

dibr_status antialias_backward_workspace(const dibr_antialias_backward_params& p, Arena& arena) {
  dispatch(p.dtype, [&](auto t) {
    BackwardOutlines<decltype(t)>(p, arena);
    position_scatter<decltype(t)>(p, arena);
  });
  return DIBR_OK;
}
dibr_status antialias_backward(const dibr_antialias_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) { return backward<decltype(t)>(p, launch); });
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
