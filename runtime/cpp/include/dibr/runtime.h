/* The C ABI of libdibr_runtime: exported models from C and C++, without Python and without torch.
 *
 * A bundle or .onnx file that `dibr export` wrote is opened once as a session and run many times, by any number of
 * threads at the same time; what a session does not own is copied or read before a call returns. ONNX Runtime is found
 * when the first session is opened and is no part of this library. dibr/runtime.hpp is the same for C++.
 *
 * Every function that can fail returns a dibr_runtime_status, and leaves one sentence for dibr_runtime_last_error where
 * it is not DIBR_RUNTIME_OK; what it would have written is then untouched. No exception leaves this library.
 * Strings are UTF-8 and end in 0. docs/cpp.md is the manual.
 */
#ifndef DIBR_RUNTIME_H
#define DIBR_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DIBR_RUNTIME_API
#else
#define DIBR_RUNTIME_API __attribute__((visibility("default")))
#endif

/* Version of this interface, also the SOVERSION of the library: a caller compiled for another one must not use it. */
#define DIBR_RUNTIME_ABI 1
DIBR_RUNTIME_API int32_t dibr_runtime_abi(void);

typedef enum dibr_runtime_status {
  DIBR_RUNTIME_OK = 0,
  DIBR_RUNTIME_INVALID_ARGUMENT = 1, /* the caller passed something wrong: a name, dtype, shape, size or pointer */
  DIBR_RUNTIME_NOT_FOUND = 2,        /* there is no such file */
  DIBR_RUNTIME_ABSENT = 3,           /* a library, driver or provider is not on this machine, or not for this model */
  DIBR_RUNTIME_REFUSED = 4,          /* a file is damaged, not what its manifest says, or needs newer versions */
  DIBR_RUNTIME_FAILED = 5,           /* a model could not be run, or a file could not be written */
  DIBR_RUNTIME_OUT_OF_MEMORY = 6,
  DIBR_RUNTIME_INTERNAL = 7
} dibr_runtime_status;

/* One sentence about this thread's last failure, valid until its next one. Never NULL. */
DIBR_RUNTIME_API const char* dibr_runtime_last_error(void);

/* Type of the elements of a tensor. */
typedef enum dibr_element {
  DIBR_ELEMENT_FLOAT16 = 1,
  DIBR_ELEMENT_BFLOAT16 = 2,
  DIBR_ELEMENT_FLOAT32 = 3,
  DIBR_ELEMENT_FLOAT64 = 4,
  DIBR_ELEMENT_INT8 = 5,
  DIBR_ELEMENT_UINT8 = 6,
  DIBR_ELEMENT_INT16 = 7,
  DIBR_ELEMENT_UINT16 = 8,
  DIBR_ELEMENT_INT32 = 9,
  DIBR_ELEMENT_UINT32 = 10,
  DIBR_ELEMENT_INT64 = 11,
  DIBR_ELEMENT_UINT64 = 12,
  DIBR_ELEMENT_BOOL = 13 /* one byte, 0 or 1 */
} dibr_element;

/* Bytes of one element; 0 for what is no dibr_element. */
DIBR_RUNTIME_API size_t dibr_element_size(dibr_element element);
/* As numpy names it, for example "float32"; "" for what is no dibr_element. */
DIBR_RUNTIME_API const char* dibr_element_name(dibr_element element);

/* --- Sessions --- */

typedef struct dibr_session dibr_session;
typedef struct dibr_result dibr_result;

/* Where and how to run. Zero everywhere but in struct_size means: as good as this machine can. */
typedef struct dibr_session_options {
  size_t struct_size; /* sizeof(dibr_session_options) */
  /* "cpu", "cuda": ONNX Runtime. "tensorrt": an engine of the bundle, where this library was built with TensorRT.
   * "auto" or NULL: tensorrt where it opens, else cuda where it opens, else cpu. */
  const char* provider;
  /* ONNX Runtime's shared library, or a folder with it. NULL: the one that the environment variable
   * DIBR_ONNXRUNTIME_LIBRARY names, else libonnxruntime.so.1 or libonnxruntime.so as the dynamic linker finds it. */
  const char* onnxruntime_library;
  /* libdibr_onnxruntime.so. NULL: the one beside this library. */
  const char* operator_library;
  /* TensorRT's shared library. NULL: libnvinfer.so of the engine's major version, as the dynamic linker finds it. */
  const char* tensorrt_library;
  int32_t threads;   /* that one operator may use on the CPU; 0 = one per core. Our ops' results do not depend on it */
  int32_t device;    /* number of the CUDA device */
  int32_t instances; /* tensorrt: runs that may be on the device at the same time; 0 = 1 */
} dibr_session_options;

/* Opens a bundle (a folder or .zip) or a bare .onnx file. Of a bundle the manifest is checked before anything else is
 * read, then each file that is used: length, SHA-256, versions, and that the model has the inputs and outputs that the
 * manifest names. What was checked is what is loaded. options may be NULL. */
DIBR_RUNTIME_API dibr_runtime_status dibr_session_open(const char* path, const dibr_session_options* options,
                                                       dibr_session** session);
/* Once no thread runs it. Results stay valid. NULL is allowed. */
DIBR_RUNTIME_API void dibr_session_close(dibr_session* session);

/* Where it runs: "cpu", "cuda" or "tensorrt". */
DIBR_RUNTIME_API const char* dibr_session_provider(const dibr_session* session);
/* Why better providers were passed over by "auto", one sentence a line; "" where none was. */
DIBR_RUNTIME_API const char* dibr_session_notes(const dibr_session* session);

/* An input or output of a model. The session owns what it points to. */
typedef struct dibr_tensor_info {
  const char* name;
  const char* meaning; /* of the manifest, in words; "" where it has none */
  dibr_element element;
  int32_t rank;
  const int64_t* shape;    /* [rank]; -1 where the size is dynamic */
  const char* const* axes; /* [rank]; the name of a dynamic size, "" otherwise. One name stands for one size */
} dibr_tensor_info;

DIBR_RUNTIME_API size_t dibr_session_input_count(const dibr_session* session);
DIBR_RUNTIME_API size_t dibr_session_output_count(const dibr_session* session);
DIBR_RUNTIME_API dibr_runtime_status dibr_session_input(const dibr_session* session, size_t index,
                                                        dibr_tensor_info* info);
DIBR_RUNTIME_API dibr_runtime_status dibr_session_output(const dibr_session* session, size_t index,
                                                         dibr_tensor_info* info);

/* An array in host memory: row-major and contiguous. */
typedef struct dibr_tensor {
  const char* name; /* of the input; NULL: the input at this place of the model */
  dibr_element element;
  int32_t rank;
  const int64_t* shape; /* [rank] */
  const void* data;
  size_t bytes; /* of data: what element and shape make */
} dibr_tensor;

/* Runs the model once. inputs: every input of the model; those without a name first, in the model's order.
 * Several threads may run one session at the same time. */
DIBR_RUNTIME_API dibr_runtime_status dibr_session_run(const dibr_session* session, const dibr_tensor* inputs,
                                                      size_t count, dibr_result** result);

/* Whether the model is a bundle that says how pictures become its input: 1 or 0. */
DIBR_RUNTIME_API int32_t dibr_session_can_preprocess(const dibr_session* session);
/* A picture of any size as the model's input, by the bundle's own graph: the same bytes in every language. The result
 * has that one input, by its name, with a batch of one. pixels: uint8 [height, width, channels], row 0 at the top;
 * channels is 3 (RGB) or 4 (with transparency that is not premultiplied). */
DIBR_RUNTIME_API dibr_runtime_status dibr_session_preprocess(const dibr_session* session, const uint8_t* pixels,
                                                             int64_t height, int64_t width, int64_t channels,
                                                             dibr_result** result);

/* Whether the model is a bundle with its renderer alone beside it: 1 or 0. */
DIBR_RUNTIME_API int32_t dibr_session_has_renderer(const dibr_session* session);
/* A session of that renderer, on the CPU, with the same options: it takes what the model predicts, and a camera. It is
 * closed by itself, and may outlive the one that it came from. */
DIBR_RUNTIME_API dibr_runtime_status dibr_session_open_renderer(const dibr_session* session, dibr_session** renderer);

/* The outputs of a run, in the model's order. */
DIBR_RUNTIME_API size_t dibr_result_count(const dibr_result* result);
/* An output; the result owns what it points to. */
DIBR_RUNTIME_API dibr_runtime_status dibr_result_tensor(const dibr_result* result, size_t index, dibr_tensor* tensor);
/* NULL is allowed. */
DIBR_RUNTIME_API void dibr_result_free(dibr_result* result);

/* Reads all files of a bundle and checks them against its manifest. Loads none of them, and needs no ONNX Runtime. */
DIBR_RUNTIME_API dibr_runtime_status dibr_bundle_check(const char* path);

/* --- Files: what is written appears whole or not at all --- */

/* Reads a PNG or JPEG, turned as its EXIF data says. The result has one tensor, pixels: uint8 [H, W, 3], RGB, or
 * [H, W, 4] where the file has transparency; row 0 at the top. */
DIBR_RUNTIME_API dibr_runtime_status dibr_image_read(const char* path, dibr_result** result);

/* Reads a PNG or JPEG of any size as `dibr render` gives it to a network: turned as its EXIF data says, fitted into a
 * square by a Lanczos filter and centred on white. pixels: out uint8 [size, size, 3], RGB, row 0 at the top.
 * Equal to what dibr_deploy.runtime makes of the file by Pillow 13, byte by byte; 16-bit grey images apart. */
DIBR_RUNTIME_API dibr_runtime_status dibr_image_read_square(const char* path, int64_t size, uint8_t* pixels);

/* Writes float32 [height, width, channels] in 0..1 as PNG, channels 1 (grey) or 3 (RGB). NaN becomes 0, what lies
 * outside is clamped. */
DIBR_RUNTIME_API dibr_runtime_status dibr_image_write_png(const char* path, const float* image, int64_t height,
                                                          int64_t width, int64_t channels);

/* A textured mesh, as models that `dibr export` wrote predict it. */
typedef struct dibr_textured_mesh {
  int64_t vertex_count, face_count, uv_count;
  const float* vertices;                 /* [vertex_count, 3], world space */
  const int64_t* faces;                  /* [face_count, 3], into vertices, counter-clockwise = front */
  const float* uvs;                      /* [uv_count, 2], v = 0 is the top row of the texture */
  const int64_t* uv_faces;               /* [face_count, 3], into uvs */
  int64_t texture_height, texture_width; /* at least 1 */
  const float* texture;                  /* [3, texture_height, texture_width] in 0..1 */
} dibr_textured_mesh;

/* Writes one mesh with its texture as binary glTF 2.0 (.glb). */
DIBR_RUNTIME_API dibr_runtime_status dibr_mesh_write_glb(const char* path, const dibr_textured_mesh* mesh);

#ifdef __cplusplus
}
#endif
#endif
