// 16-bit floats as storage: attributes and textures may be kept in them at inference, arithmetic is always float32.
#pragma once

#include <cstring>

#include "core/platform.h"

namespace dibr {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

DIBR_HD float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
DIBR_HD uint32_t bits_from_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

DIBR_HD float load(float value) { return value; }
DIBR_HD double load(double value) { return value; }
DIBR_HD float load(BFloat16 value) { return float_from_bits(uint32_t(value.bits) << 16); }
DIBR_HD float load(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Shifting the exponent into place leaves it 112 too low; the product mends that and makes subnormals exact.
  return float_from_bits(sign | bits_from_float(float_from_bits(magnitude << 13) * 5.192296858534828e33f));
}

DIBR_HD void store(float value, float* out) { *out = value; }
DIBR_HD void store(double value, double* out) { *out = value; }
// Both round to nearest, ties to even.
DIBR_HD void store(float value, BFloat16* out) {
  const uint32_t bits = bits_from_float(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out->bits = uint16_t(nan ? (bits >> 16 | 0x40u) : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DIBR_HD void store(float value, Half* out) {
  const uint32_t bits = bits_from_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    out->bits = uint16_t(sign | 0x7e00u);
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    out->bits = uint16_t(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 lets the float adder round to a multiple of 2^-24
    out->bits = uint16_t(sign | (bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u));
  } else {
    out->bits = uint16_t(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
  }
}

// The type that a stored value is computed in.
template <class S>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};

}  // namespace dibr
