// The two 16-bit float types as storage, with conversion to and from float (round to nearest even). There is no
// arithmetic and no implicit conversion, since torch's builds switch CUDA's off: kernels convert, compute in float,
// convert back.
#pragma once

#include <cstdint>
#include <cstring>

#include "qualifiers.h"

struct __align__(2) __half {
  unsigned short bits;
};
struct __align__(2) __nv_bfloat16 {
  unsigned short bits;
};

namespace cuda_on_host {

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Drops the low `shift` bits, rounding to nearest and ties to even.
inline uint32_t round_shift(uint32_t value, int shift) {
  const uint32_t kept = value >> shift;
  const uint32_t dropped = value & ((uint32_t(1) << shift) - 1);
  const uint32_t tie = uint32_t(1) << (shift - 1);
  return kept + (dropped > tie || (dropped == tie && (kept & 1)));
}

inline uint16_t half_bits(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return uint16_t(0x7FFF);           // CUDA's canonical NaN
  if (magnitude >= 0x47800000u) return uint16_t(sign | 0x7C00u);  // 2^16 and above, infinity included
  if (magnitude < 0x33000000u) return uint16_t(sign);             // below 2^-25
  const uint32_t exponent = magnitude >> 23;
  if (exponent < 113) {  // subnormal in half: multiples of 2^-24
    const uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
    return uint16_t(sign | round_shift(mantissa, int(126 - exponent)));
  }
  return uint16_t(sign |
                  round_shift(magnitude - (112u << 23), 13));  // a carry grows the exponent, at the top to infinity
}

inline float half_value(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7FFFu;
  if (magnitude >= 0x7C00u) return bit_cast<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  if (magnitude < 0x400u) {
    const float value = float(magnitude) * 0x1p-24f;
    return sign ? -value : value;
  }
  return bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

inline uint16_t bfloat16_bits(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return uint16_t(0x7FFF);
  return uint16_t(round_shift(bits, 16));
}

}  // namespace cuda_on_host

inline __half __float2half_rn(float value) { return {cuda_on_host::half_bits(value)}; }
inline __half __float2half(float value) { return __float2half_rn(value); }
inline float __half2float(__half value) { return cuda_on_host::half_value(value.bits); }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }

inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {cuda_on_host::bfloat16_bits(value)}; }
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return cuda_on_host::bit_cast<float>(uint32_t(value.bits) << 16); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
