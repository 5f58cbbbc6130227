// CUDA's built-in vector types, with the alignment that nvcc gives them, and the built-in index variables.
#pragma once

#include "qualifiers.h"

#define CUDA_ON_HOST_VECTOR_TYPES(Scalar, name, align2, align4)                     \
  struct __align__(align2) name##2 { Scalar x, y; };                                \
  struct name##3 { Scalar x, y, z; };                                               \
  struct __align__(align4) name##4 { Scalar x, y, z, w; };                          \
  inline name##2 make_##name##2(Scalar x, Scalar y) { return {x, y}; }              \
  inline name##3 make_##name##3(Scalar x, Scalar y, Scalar z) { return {x, y, z}; } \
  inline name##4 make_##name##4(Scalar x, Scalar y, Scalar z, Scalar w) { return {x, y, z, w}; }

CUDA_ON_HOST_VECTOR_TYPES(unsigned char, uchar, 2, 4)
CUDA_ON_HOST_VECTOR_TYPES(unsigned short, ushort, 4, 8)
CUDA_ON_HOST_VECTOR_TYPES(int, int, 8, 16)
CUDA_ON_HOST_VECTOR_TYPES(unsigned, uint, 8, 16)
CUDA_ON_HOST_VECTOR_TYPES(float, float, 8, 16)
CUDA_ON_HOST_VECTOR_TYPES(double, double, 16, 16)
#undef CUDA_ON_HOST_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

inline CUDA_ON_HOST_PER_WORKER uint3 threadIdx;
inline CUDA_ON_HOST_PER_WORKER uint3 blockIdx;
inline CUDA_ON_HOST_PER_WORKER dim3 blockDim;
inline CUDA_ON_HOST_PER_WORKER dim3 gridDim;
constexpr int warpSize = 32;
