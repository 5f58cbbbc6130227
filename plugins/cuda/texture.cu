// Texture on the GPU: one thread per pixel, all channels; texel gradients are scattered. Trilinear builds the mip chain
// first, one thread per texel, and its backward gathers the gradients of the levels down to the texture.
#include "abi/backend.h"
#include "abi/dispatch.h"
#include "core/mipmap.h"
#include "core/texture.h"
#include "cuda/scatter.cuh"

namespace dibr::cuda {
namespace {

template <class P>
__device__ int64_t texture_offset(const P& p, int64_t pixel) {
  const int64_t source = p.texture_batch == 1 ? 0 : pixel / (p.height * p.width);
  return source * p.channels * p.texture_height * p.texture_width;
}

template <class T, class P>
__device__ bool footprint_at(const P& p, int64_t pixel, Footprint<T>* out) {
  const T* uv = static_cast<const T*>(p.uv) + 2 * pixel;
  if (!is_finite_uv(uv[0], uv[1])) return false;
  *out = texture_footprint(uv[0], uv[1], p.texture_height, p.texture_width, p.filter, p.wrap);
  return true;
}

template <class S>
__global__ void __launch_bounds__(kBlock) texture_kernel(dibr_texture_params p) {
  using T = typename ComputeOf<S>::Type;
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint = {};
    const bool samples = footprint_at(p, pixel, &footprint);
    const S* texture = static_cast<const S*>(p.texture) + texture_offset(p, pixel);
    S* out = static_cast<S*>(p.output) + pixel * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) {
      store(samples ? sample_plane(footprint, texture + c * plane) : T(0), out + c);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock) uv_gradient_kernel(dibr_texture_backward_params p) {
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint;
    T grad_u = T(0), grad_v = T(0);
    if (p.filter == DIBR_FILTER_BILINEAR && footprint_at(p, pixel, &footprint)) {
      const T* texture = static_cast<const T*>(p.texture) + texture_offset(p, pixel);
      const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) {
        T slope_x, slope_y;
        plane_gradient(footprint, texture + c * plane, &slope_x, &slope_y);
        grad_u += grad[c] * slope_x * T(p.texture_width);
        grad_v += grad[c] * slope_y * T(p.texture_height);
      }
    }
    static_cast<T*>(p.grad_uv)[2 * pixel] = grad_u;
    static_cast<T*>(p.grad_uv)[2 * pixel + 1] = grad_v;
  }
}

template <class T, class Sink>
__global__ void __launch_bounds__(kBlock) texel_gradient_kernel(dibr_texture_backward_params p, Sink sink) {
  const int64_t plane = p.texture_height * p.texture_width;
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    Footprint<T> footprint;
    if (!footprint_at(p, pixel, &footprint)) continue;
    const int64_t offset = texture_offset(p, pixel);
    const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int k = 0; k < 4; ++k) {
        const T share = footprint.weight[k] * grad[c];
        if (share != T(0)) sink.add(offset + c * plane + footprint.offset[k], share);
      }
    }
  }
}

template <class S>
dibr_status forward(const dibr_texture_params& p, const dibr_launch& launch) {
  const unsigned grid = grid_for(p.batch * p.height * p.width);
  if (grid > 0) DIBR_LAUNCH((texture_kernel<S>), grid, kBlock, 0, stream_of(launch), p);
  return launched("texture");
}

template <class T>
ScatterSpace<T> texel_space(const dibr_texture_backward_params& p, Arena& arena) {
  return ScatterSpace<T>(p.texture_batch * p.channels * p.texture_height * p.texture_width,
                         p.batch * p.height * p.width * 4, p.deterministic != 0, arena);
}

template <class T>
dibr_status backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const int64_t pixels = p.batch * p.height * p.width;
  const unsigned grid = grid_for(pixels);
  if (p.grad_uv != nullptr && grid > 0) {
    DIBR_LAUNCH((uv_gradient_kernel<T>), grid, kBlock, 0, stream_of(launch), p);
  }
  if (p.grad_texture != nullptr) {
    Arena arena(launch.workspace);
    scatter_add(texel_space<T>(p, arena), static_cast<T*>(p.grad_texture), p.deterministic != 0, stream_of(launch),
                [&](auto sink) {
                  if (grid == 0) return;
                  DIBR_LAUNCH((texel_gradient_kernel<T, decltype(sink)>), grid, kBlock, 0, stream_of(launch), p, sink);
                });
  }
  if (p.grad_mip_level != nullptr) fill(static_cast<T*>(p.grad_mip_level), T(0), pixels, stream_of(launch));
  return launched("texture_backward");
}

// --- Trilinear. Planes are those of all images and channels; a level's begin at `plane_offset`.

template <class P>
MipChain chain_of(const P& p) {
  return make_mip_chain(p.texture_height, p.texture_width);
}

template <class P>
int64_t planes_of(const P& p) {
  return p.texture_batch * p.channels;
}

// Where a plane lies in an array [A, levels, C, h, w] that begins with level `begin`.
__device__ inline int64_t plane_offset(const MipChain& chain, int begin, int level, int64_t channels, int64_t plane) {
  const int64_t image = plane / channels, channel = plane % channels;
  const int64_t before = image * (chain.texels() - chain.offset[begin]) + chain.offset[level] - chain.offset[begin];
  return channels * before + channel * chain.texels_at(level);
}

// Fills level + 1 from a level.
template <class T, class S>
__global__ void __launch_bounds__(kBlock)
    reduce_kernel(MipChain chain, int level, const S* texture, T* reduced, int64_t channels, int64_t planes) {
  const int64_t texels = chain.texels_at(level + 1);
  for (int64_t i = thread_index(); i < planes * texels; i += thread_stride()) {
    const int64_t plane = i / texels, texel = i % texels;
    reduced[plane_offset(chain, 1, level + 1, channels, plane) + texel] =
        level == 0 ? reduced_texel<T>(chain, level, texture + plane * chain.texels_at(0), texel)
                   : reduced_texel<T>(chain, level, reduced + plane_offset(chain, 1, level, channels, plane), texel);
  }
}

template <class T, class S, class P>
void reduce_textures(const P& p, const MipChain& chain, T* reduced, cudaStream_t stream) {
  for (int level = 0; level + 1 < chain.levels; ++level) {
    const unsigned grid = grid_for(planes_of(p) * chain.texels_at(level + 1));
    if (grid == 0) return;
    DIBR_LAUNCH((reduce_kernel<T, S>), grid, kBlock, 0, stream, chain, level, static_cast<const S*>(p.texture), reduced,
                p.channels, planes_of(p));
  }
}

template <class T, class P>
__device__ bool mip_sample_at(const P& p, const MipChain& chain, int64_t pixel, MipSample<T>* out) {
  const T* uv = static_cast<const T*>(p.uv) + 2 * pixel;
  const T mip_level = static_cast<const T*>(p.mip_level)[pixel];
  if (!is_finite_sample(uv[0], uv[1], mip_level)) return false;
  *out = mip_sample(chain, uv[0], uv[1], mip_level, p.wrap);
  return true;
}

template <class T, class S, class P>
__device__ MipTexture<T, S> mip_texture(const P& p, const MipChain& chain, const T* reduced, int64_t pixel) {
  const int64_t source = p.texture_batch == 1 ? 0 : pixel / (p.height * p.width);
  return {static_cast<const S*>(p.texture) + texture_offset(p, pixel),
          reduced + source * p.channels * chain.reduced_texels(), p.channels};
}

template <class S, class T>
__global__ void __launch_bounds__(kBlock) trilinear_kernel(dibr_texture_params p, MipChain chain, const T* reduced) {
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    MipSample<T> sample = {};
    const bool samples = mip_sample_at(p, chain, pixel, &sample);
    const MipTexture<T, S> texture = mip_texture<T, S>(p, chain, reduced, pixel);
    S* out = static_cast<S*>(p.output) + pixel * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) store(samples ? texture.value(chain, sample, c) : T(0), out + c);
  }
}

// Gradients of uv and mip level.
template <class T>
__global__ void __launch_bounds__(kBlock)
    lookup_gradient_kernel(dibr_texture_backward_params p, MipChain chain, const T* reduced) {
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    MipSample<T> sample;
    T grad_u = T(0), grad_v = T(0), grad_level = T(0);
    if (mip_sample_at(p, chain, pixel, &sample)) {
      const MipTexture<T, T> texture = mip_texture<T, T>(p, chain, reduced, pixel);
      const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) {
        for (int part = 0; part < sample.count(); ++part) {
          texture.add_gradient(chain, sample.first + part, sample.footprint[part], c, grad[c] * sample.weight(part),
                               &grad_u, &grad_v);
        }
        if (sample.varies) grad_level += grad[c] * texture.slope(chain, sample, c);
      }
    }
    if (p.grad_uv != nullptr) {
      static_cast<T*>(p.grad_uv)[2 * pixel] = grad_u;
      static_cast<T*>(p.grad_uv)[2 * pixel + 1] = grad_v;
    }
    if (p.grad_mip_level != nullptr) static_cast<T*>(p.grad_mip_level)[pixel] = grad_level;
  }
}

// Gradients of the texels of every level, [A, levels, C, h, w].
template <class T, class Sink>
__global__ void __launch_bounds__(kBlock)
    level_gradient_kernel(dibr_texture_backward_params p, MipChain chain, Sink sink) {
  for (int64_t pixel = thread_index(); pixel < p.batch * p.height * p.width; pixel += thread_stride()) {
    MipSample<T> sample;
    if (!mip_sample_at(p, chain, pixel, &sample)) continue;
    const int64_t image = p.texture_batch == 1 ? 0 : pixel / (p.height * p.width);
    const T* grad = static_cast<const T*>(p.grad_output) + pixel * p.channels;
    for (int part = 0; part < sample.count(); ++part) {
      const int level = sample.first + part;
      for (int64_t c = 0; c < p.channels; ++c) {
        const int64_t begin = plane_offset(chain, 0, level, p.channels, image * p.channels + c);
        for (int k = 0; k < 4; ++k) {
          const T share = sample.weight(part) * sample.footprint[part].weight[k] * grad[c];
          if (share != T(0)) sink.add(begin + sample.footprint[part].offset[k], share);
        }
      }
    }
  }
}

// Adds to a level what the level after it gathered; level 0 goes to `out`.
template <class T>
__global__ void __launch_bounds__(kBlock)
    gather_level_kernel(MipChain chain, int level, T* gradients, T* out, int64_t channels, int64_t planes) {
  const int64_t texels = chain.texels_at(level);
  for (int64_t i = thread_index(); i < planes * texels; i += thread_stride()) {
    const int64_t plane = i / texels, texel = i % texels;
    T* own = gradients + plane_offset(chain, 0, level, channels, plane) + texel;
    T sum = *own;
    if (level + 1 < chain.levels) {
      sum += reduced_gradient<T>(chain, level, gradients + plane_offset(chain, 0, level + 1, channels, plane), texel);
    }
    *(level == 0 ? out + i : own) = sum;
  }
}

template <class T, class P>
T* take_reduced(const P& p, const MipChain& chain, Arena& arena) {
  return arena.take<T>(planes_of(p) * chain.reduced_texels());
}

template <class S>
dibr_status trilinear_forward(const dibr_texture_params& p, const dibr_launch& launch) {
  using T = typename ComputeOf<S>::Type;
  const MipChain chain = chain_of(p);
  Arena arena(launch.workspace);
  T* reduced = take_reduced<T>(p, chain, arena);
  reduce_textures<T, S>(p, chain, reduced, stream_of(launch));
  const unsigned grid = grid_for(p.batch * p.height * p.width);
  if (grid > 0) DIBR_LAUNCH((trilinear_kernel<S, T>), grid, kBlock, 0, stream_of(launch), p, chain, reduced);
  return launched("texture");
}

template <class T>
struct LevelSpace {
  T* reduced;
  T* gradients;
  ScatterSpace<T> scatter;
};

template <class T>
LevelSpace<T> level_space(const dibr_texture_backward_params& p, const MipChain& chain, Arena& arena) {
  const int64_t elements = planes_of(p) * chain.texels();
  T* reduced = take_reduced<T>(p, chain, arena);
  T* gradients = arena.take<T>(elements);
  return {reduced, gradients, ScatterSpace<T>(elements, p.batch * p.height * p.width * 4, p.deterministic != 0, arena)};
}

template <class T>
dibr_status trilinear_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  const MipChain chain = chain_of(p);
  const cudaStream_t stream = stream_of(launch);
  const unsigned grid = grid_for(p.batch * p.height * p.width);
  Arena arena(launch.workspace);
  const LevelSpace<T> space = level_space<T>(p, chain, arena);
  if ((p.grad_uv != nullptr || p.grad_mip_level != nullptr) && grid > 0) {
    reduce_textures<T, T>(p, chain, space.reduced, stream);
    DIBR_LAUNCH((lookup_gradient_kernel<T>), grid, kBlock, 0, stream, p, chain, space.reduced);
  }
  if (p.grad_texture == nullptr) return launched("texture_backward");
  scatter_add(space.scatter, space.gradients, p.deterministic != 0, stream, [&](auto sink) {
    if (grid == 0) return;
    DIBR_LAUNCH((level_gradient_kernel<T, decltype(sink)>), grid, kBlock, 0, stream, p, chain, sink);
  });
  for (int level = chain.levels - 1; level >= 0; --level) {
    const unsigned texel_grid = grid_for(planes_of(p) * chain.texels_at(level));
    if (texel_grid == 0) break;
    DIBR_LAUNCH((gather_level_kernel<T>), texel_grid, kBlock, 0, stream, chain, level, space.gradients,
                static_cast<T*>(p.grad_texture), p.channels, planes_of(p));
  }
  return launched("texture_backward");
}

}  // namespace

dibr_status texture_workspace(const dibr_texture_params& p, Arena& arena) {
  if (p.filter != DIBR_FILTER_TRILINEAR) return DIBR_OK;
  return dispatch_storage(p.dtype, [&](auto s) {
    take_reduced<typename ComputeOf<decltype(s)>::Type>(p, chain_of(p), arena);
    return DIBR_OK;
  });
}
dibr_status texture(const dibr_texture_params& p, const dibr_launch& launch) {
  return dispatch_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    return p.filter == DIBR_FILTER_TRILINEAR ? trilinear_forward<S>(p, launch) : forward<S>(p, launch);
  });
}

dibr_status texture_backward_workspace(const dibr_texture_backward_params& p, Arena& arena) {
  return dispatch(p.dtype, [&](auto t) {
    using T = decltype(t);
    if (p.filter == DIBR_FILTER_TRILINEAR) {
      level_space<T>(p, chain_of(p), arena);
    } else {
      texel_space<T>(p, arena);
    }
    return DIBR_OK;
  });
}
dibr_status texture_backward(const dibr_texture_backward_params& p, const dibr_launch& launch) {
  return dispatch(p.dtype, [&](auto t) {
    using T = decltype(t);
    return p.filter == DIBR_FILTER_TRILINEAR ? trilinear_backward<T>(p, launch) : backward<T>(p, launch);
  });
}

}  // namespace dibr::cuda
