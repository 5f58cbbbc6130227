/* The C ABI of libdibr: the one native renderer behind the torch, ONNX Runtime and TensorRT doors.
 *
 * Every op is a pair (workspace size, launch). The caller owns all memory: inputs, outputs and workspace, all on the
 * device that dibr_launch names. A launch never allocates device memory, never synchronises and never reads back, so
 * it may be captured into a CUDA graph. Outputs are written completely and never read; they need no initialisation.
 * Forward and backward are named alike. Shapes are in brackets, row-major and contiguous; T is the params' dtype.
 *
 * Conventions (pixel centres, clip space, depth, edges, ties) are those of docs/conventions.md.
 */
#ifndef DIBR_DIBR_H
#define DIBR_DIBR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DIBR_API
#else
#define DIBR_API __attribute__((visibility("default")))
#endif

/* Version of the op schema that exported models name; also the SOVERSION of the library. */
#define DIBR_SCHEMA_VERSION 1

typedef enum dibr_status {
  DIBR_OK = 0,
  DIBR_INVALID_ARGUMENT = 1,    /* a size, pointer, flag or index is wrong; nothing usable was written */
  DIBR_UNSUPPORTED = 2,         /* a dtype or device that this op or this build does not offer */
  DIBR_WORKSPACE_TOO_SMALL = 3, /* workspace_bytes is below what the op's *_workspace_size gives */
  DIBR_CUDA_ERROR = 4,          /* a kernel could not be launched */
  DIBR_INTERNAL = 5
} dibr_status;

typedef enum dibr_dtype { DIBR_FLOAT32 = 0, DIBR_FLOAT64 = 1, DIBR_FLOAT16 = 2, DIBR_BFLOAT16 = 3 } dibr_dtype;
typedef enum dibr_device { DIBR_CPU = 0, DIBR_CUDA = 1 } dibr_device;
typedef enum dibr_cull { DIBR_CULL_NONE = 0, DIBR_CULL_BACK = 1 } dibr_cull;
typedef enum dibr_filter {
  DIBR_FILTER_NEAREST = 0,
  DIBR_FILTER_BILINEAR = 1,
  DIBR_FILTER_TRILINEAR = 2 /* bilinear on two levels of a mip chain, blended by the mip level */
} dibr_filter;
typedef enum dibr_wrap { DIBR_WRAP_CLAMP = 0, DIBR_WRAP_REPEAT = 1, DIBR_WRAP_MIRROR = 2 } dibr_wrap;

/* Calls task(task_state, i) once for every i in [0, count), in any order on any thread, and returns when all are done.
 */
typedef void (*dibr_task)(void* task_state, int64_t index);
typedef void (*dibr_parallel_for)(void* state, int64_t count, dibr_task task, void* task_state);

/* Where and with what an op runs. Results do not depend on parallel_for or on how many threads it uses. */
typedef struct dibr_launch {
  dibr_device device;
  void* stream;                   /* CUDA only: cudaStream_t */
  dibr_parallel_for parallel_for; /* CPU only: the caller's thread pool; NULL runs on the calling thread */
  void* parallel_for_state;
  void* workspace; /* aligned to 16 bytes; NULL where the size is 0 */
  uint64_t workspace_bytes;
} dibr_launch;

/* Rasterize: which face is visible at each pixel centre, and where in it.
 * An absent optional pointer is NULL. */
typedef struct dibr_rasterize_params {
  dibr_dtype dtype; /* FLOAT32 or FLOAT64 */
  int64_t batch;    /* B >= 0 */
  int64_t vertices; /* V >= 0 */
  int64_t faces;    /* F >= 0 */
  int64_t height;   /* H >= 1 */
  int64_t width;    /* W >= 1 */
  int32_t perspective_correct;
  dibr_cull cull;
  int32_t depth_clip;
  const void* positions;       /* T [B, V, 4] clip space (x, y, z, w) */
  const int32_t* face_indices; /* [F, 3] vertex indices, counter-clockwise = front */
  const int32_t* face_ranges;  /* optional [B, 2] (start, count) into face_indices */
  const int32_t* face_valid;   /* optional [B, F], 0 = absent */
  int32_t* face_index;         /* out [B, H, W], -1 = background */
  void* barycentrics;          /* out T [B, H, W, 3], 0 on background */
  void* depth;                 /* out, optional T [B, H, W] NDC z/w, 1 on background */
} dibr_rasterize_params;

/* Gradient of barycentrics and depth with respect to positions; coverage itself has none. */
typedef struct dibr_rasterize_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, vertices, faces, height, width;
  int32_t perspective_correct;
  const void* positions;         /* T [B, V, 4] */
  const int32_t* face_indices;   /* [F, 3] */
  const int32_t* face_index;     /* [B, H, W] as the forward wrote it */
  const void* barycentrics;      /* optional T [B, H, W, 3] as the forward wrote them; else they are computed again */
  const void* grad_barycentrics; /* optional T [B, H, W, 3] */
  const void* grad_depth;        /* optional T [B, H, W] */
  void* grad_positions;          /* out T [B, V, 4] */
} dibr_rasterize_backward_params;

/* Interpolate: out = sum_k barycentrics_k * attributes[vertex k of the pixel's face], 0 on background. */
typedef struct dibr_interpolate_params {
  dibr_dtype dtype;            /* of attributes and output; with FLOAT16 or BFLOAT16 barycentrics are float32 */
  int64_t batch;               /* B */
  int64_t attribute_batch;     /* A: B or 1 (shared by the batch) */
  int64_t vertices;            /* V */
  int64_t faces;               /* F */
  int64_t height, width;       /* H, W */
  int64_t channels;            /* D >= 0 */
  const void* attributes;      /* T [A, V, D] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_index;   /* [B, H, W] */
  const void* barycentrics;    /* T [B, H, W, 3] */
  void* output;                /* out T [B, H, W, D] */
} dibr_interpolate_params;

typedef struct dibr_interpolate_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, attribute_batch, vertices, faces, height, width, channels;
  const void* attributes;      /* T [A, V, D] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_index;   /* [B, H, W] */
  const void* barycentrics;    /* T [B, H, W, 3] */
  const void* grad_output;     /* T [B, H, W, D] */
  void* grad_attributes;       /* out, optional T [A, V, D] */
  void* grad_barycentrics;     /* out, optional T [B, H, W, 3] */
} dibr_interpolate_backward_params;

/* The gradient of Interpolate where its barycentrics are those that Rasterize made of `positions`: what
 * interpolate_backward gives for the attributes and rasterize_backward, fed with its grad_barycentrics, for the
 * positions. On the CPU that is one pass, with no gradient of barycentrics in between. */
typedef struct dibr_interpolate_raster_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, attribute_batch, vertices, faces, height, width, channels;
  int64_t raster_vertices; /* Vr */
  int32_t perspective_correct;
  const void* attributes;             /* T [A, V, D] */
  const int32_t* face_indices;        /* [F, 3] into attributes */
  const int32_t* face_index;          /* [B, H, W] as Rasterize wrote it */
  const void* barycentrics;           /* T [B, H, W, 3] as Rasterize wrote them */
  const void* positions;              /* T [B, Vr, 4] that were rasterised */
  const int32_t* raster_face_indices; /* [F, 3] into positions */
  const void* grad_output;            /* T [B, H, W, D] */
  void* grad_attributes;              /* out, optional T [A, V, D] */
  void* grad_positions;               /* out T [B, Vr, 4] */
} dibr_interpolate_raster_backward_params;

/* SoftMask (Chen et al. 2019, section 3.1, with the reference implementation's box and knum):
 * 1 on covered pixels; elsewhere 1 - prod_k (1 - exp(-sigmainv * d_k^2)) over the first knum faces, in index order,
 * whose 2D bounding box enlarged by boxlen contains the pixel centre; d_k is the distance to the face's boundary. */
typedef struct dibr_soft_mask_params {
  dibr_dtype dtype;
  int64_t batch, vertices, faces, height, width;
  double sigmainv;             /* > 0, 1 / NDC^2 */
  double boxlen;               /* in [0, 1e30], NDC */
  int64_t knum;                /* >= 1 */
  const void* positions;       /* T [B, V, 4] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_ranges;  /* optional [B, 2] */
  const int32_t* face_index;   /* [B, H, W] */
  void* mask;                  /* out T [B, H, W] */
  int32_t keep;                /* CPU: leave in the workspace what the backward takes as `kept` */
} dibr_soft_mask_params;

typedef struct dibr_soft_mask_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, vertices, faces, height, width;
  double sigmainv, boxlen;
  int64_t knum;
  const void* positions;       /* T [B, V, 4] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_ranges;  /* optional [B, 2] */
  const int32_t* face_index;   /* [B, H, W] */
  const void* grad_mask;       /* T [B, H, W] */
  void* grad_positions;        /* out T [B, V, 4] */
  const void* kept;            /* optional, CPU: a workspace that dibr_soft_mask with the same inputs and keep = 1 has
                                  left; with it nothing is searched again, and the gradient has the same bits */
} dibr_soft_mask_backward_params;

/* Texture: sample texture at uv. v = 0 is the top row, texel centres at (i + 0.5) / n, wrap applies to texel indices.
 * A non-finite uv samples 0.
 * Trilinear: level k of the mip chain has max(1, n >> k) texels along an axis of n, each the mean of the area it covers
 * on the level before; a sample blends bilinear samples of the levels around mip_level, which is clamped to the chain.
 * NaN for a mip level samples 0. */
typedef struct dibr_texture_params {
  dibr_dtype dtype;                      /* of texture and output; with FLOAT16 or BFLOAT16 uv is float32 */
  int64_t batch;                         /* B */
  int64_t texture_batch;                 /* A: B or 1 */
  int64_t channels;                      /* C >= 0 */
  int64_t texture_height, texture_width; /* Ht, Wt >= 1 */
  int64_t height, width;                 /* H, W >= 1 */
  dibr_filter filter;
  dibr_wrap wrap;
  const void* texture;   /* T [A, C, Ht, Wt] */
  const void* uv;        /* T [B, H, W, 2] */
  const void* mip_level; /* T [B, H, W] with FILTER_TRILINEAR, float32 where uv is; else unused */
  void* output;          /* out T [B, H, W, C] */
} dibr_texture_params;

typedef struct dibr_texture_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, texture_batch, channels, texture_height, texture_width, height, width;
  dibr_filter filter;
  dibr_wrap wrap;
  const void* texture;     /* T [A, C, Ht, Wt] */
  const void* uv;          /* T [B, H, W, 2] */
  const void* mip_level;   /* T [B, H, W] with FILTER_TRILINEAR; else unused */
  const void* grad_output; /* T [B, H, W, C] */
  void* grad_texture;      /* out, optional T [A, C, Ht, Wt] */
  void* grad_uv;           /* out, optional T [B, H, W, 2] */
  void* grad_mip_level;    /* out, optional T [B, H, W]; 0 without FILTER_TRILINEAR */
} dibr_texture_backward_params;

/* Antialias (Laine et al. 2020, section 3.5): colours of adjacent pixels blended where the silhouette edge of the
 * nearer one's face passes between their centres. */
typedef struct dibr_antialias_params {
  dibr_dtype dtype; /* of image and output; with FLOAT16 or BFLOAT16 positions and barycentrics are float32 */
  int64_t batch, vertices, faces, height, width;
  int64_t channels;            /* C >= 0 */
  const void* image;           /* T [B, H, W, C] */
  const void* positions;       /* T [B, V, 4] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_ranges;  /* optional [B, 2] */
  const int32_t* face_index;   /* [B, H, W] */
  const void* barycentrics;    /* T [B, H, W, 3] */
  void* output;                /* out T [B, H, W, C] */
} dibr_antialias_params;

typedef struct dibr_antialias_backward_params {
  dibr_dtype dtype;
  int32_t deterministic; /* CUDA: no float atomics, bit-identical in any order; the CPU always is */
  int64_t batch, vertices, faces, height, width, channels;
  const void* image;           /* T [B, H, W, C] */
  const void* positions;       /* T [B, V, 4] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_ranges;  /* optional [B, 2] */
  const int32_t* face_index;   /* [B, H, W] */
  const void* barycentrics;    /* T [B, H, W, 3] */
  const void* grad_output;     /* T [B, H, W, C] */
  void* grad_image;            /* out, optional T [B, H, W, C] */
  void* grad_positions;        /* out, optional T [B, V, 4]; 0 in z */
} dibr_antialias_backward_params;

/* Render (inference): Rasterize and what reads its raster, in one pass that writes what is asked for and nothing else:
 * Interpolate, Texture and SoftMask. Each output is, bit for bit on one device, what these ops give one after another.
 */
#define DIBR_RENDER_ATTRIBUTES 3
typedef enum dibr_render_output {
  DIBR_RENDER_COLOR = 1 << 0, /* the texture sampled at the interpolated uvs */
  DIBR_RENDER_MASK = 1 << 1,  /* SoftMask */
  DIBR_RENDER_FACE_INDEX = 1 << 2,
  DIBR_RENDER_DEPTH = 1 << 3,
  DIBR_RENDER_BARYCENTRICS = 1 << 4,
  DIBR_RENDER_UV = 1 << 5,               /* the interpolated uvs themselves */
  DIBR_RENDER_FIRST_ATTRIBUTES = 1 << 6, /* attributes[k]: shifted left by k */
  DIBR_RENDER_ALL = (1 << (6 + DIBR_RENDER_ATTRIBUTES)) - 1
} dibr_render_output;
/* What is interpolated over the raster. */
typedef struct dibr_render_attributes {
  int64_t batch;               /* A: B or 1 (shared by the batch) */
  int64_t vertices;            /* V: their own */
  int64_t channels;            /* D >= 0 */
  const void* values;          /* [A, V, D] */
  const int32_t* face_indices; /* [F, 3] into these vertices */
  void* output;                /* out [B, H, W, D] */
} dibr_render_attributes;

typedef struct dibr_render_params {
  dibr_dtype dtype;           /* T: FLOAT32 or FLOAT64 */
  dibr_dtype texture_dtype;   /* of texture and color: T, or FLOAT16 or BFLOAT16 where T is FLOAT32 */
  dibr_dtype attribute_dtype; /* of attributes, as texture_dtype */
  uint32_t outputs;           /* dibr_render_output's; what only the others need is ignored */
  int64_t batch, vertices, faces, height, width;
  int32_t perspective_correct;
  dibr_cull cull;
  int32_t depth_clip;
  const void* positions;       /* T [B, V, 4] */
  const int32_t* face_indices; /* [F, 3] */
  const int32_t* face_ranges;  /* optional [B, 2] */
  const int32_t* face_valid;   /* optional [B, F]; Rasterize alone heeds it */
  double sigmainv, boxlen;     /* MASK, as in dibr_soft_mask_params */
  int64_t knum;
  dibr_render_attributes uv; /* COLOR and UV: of T, with 2 channels */
  int64_t texture_batch, texture_channels, texture_height, texture_width;
  dibr_filter filter;
  dibr_wrap wrap;
  const void* texture; /* COLOR: [A, C, Ht, Wt] */
  dibr_render_attributes attributes[DIBR_RENDER_ATTRIBUTES];
  void* color;         /* out [B, H, W, C] */
  void* mask;          /* out T [B, H, W] */
  int32_t* face_index; /* out [B, H, W] */
  void* depth;         /* out T [B, H, W] */
  void* barycentrics;  /* out T [B, H, W, 3] */
} dibr_render_params;

/* For every op X: dibr_X_workspace_size writes the bytes that dibr_X needs, from sizes alone (its pointers may be
 * NULL), and dibr_X runs it. Both check their arguments. */
#define DIBR_DECLARE_OP(name)                                                                               \
  DIBR_API dibr_status dibr_##name##_workspace_size(const dibr_##name##_params* params, dibr_device device, \
                                                    uint64_t* bytes);                                       \
  DIBR_API dibr_status dibr_##name(const dibr_##name##_params* params, const dibr_launch* launch);

DIBR_DECLARE_OP(rasterize)
DIBR_DECLARE_OP(rasterize_backward)
DIBR_DECLARE_OP(interpolate)
DIBR_DECLARE_OP(interpolate_backward)
DIBR_DECLARE_OP(interpolate_raster_backward)
DIBR_DECLARE_OP(soft_mask)
DIBR_DECLARE_OP(soft_mask_backward)
DIBR_DECLARE_OP(texture)
DIBR_DECLARE_OP(texture_backward)
DIBR_DECLARE_OP(antialias)
DIBR_DECLARE_OP(antialias_backward)
DIBR_DECLARE_OP(render)

/* One sentence about this thread's last failure: op, argument, expected, actual. Never NULL. */
DIBR_API const char* dibr_last_error(void);
DIBR_API int32_t dibr_schema_version(void);
/* 1 when this build has kernels for the device, whether or not the machine has one. */
DIBR_API int32_t dibr_has_device(dibr_device device);

#ifdef __cplusplus
}
#endif
#endif
