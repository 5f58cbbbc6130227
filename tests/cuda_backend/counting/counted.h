// A float that counts what is done with it. The kernels are templates over their real type, so they run with this one
// as they stand; it has float's layout, and its results are float's bit for bit. Included before everything else.
#pragma once

#include <cmath>
#include <type_traits>

#include "core/half.h"
#include "core/platform.h"
#include "core/soft_mask.h"
#include "counters.h"

namespace counting {

struct Counted {
  float value;

  Counted() = default;
  template <class N, class = std::enable_if_t<std::is_arithmetic_v<N>>>
  explicit constexpr Counted(N number) : value(float(number)) {}

  explicit operator float() const { return value; }
  operator double() const { return double(value); }  // implicit, as float's is
  explicit operator int64_t() const { return int64_t(value); }
};
static_assert(sizeof(Counted) == sizeof(float) && std::is_trivial_v<Counted>);

#define COUNTED_ARITHMETIC(symbol, counter)              \
  inline Counted operator symbol(Counted a, Counted b) { \
    ++counter;                                           \
    return Counted(a.value symbol b.value);              \
  }                                                      \
  inline Counted& operator symbol## = (Counted & a, Counted b) { return a = a symbol b; }
COUNTED_ARITHMETIC(+, operations)
COUNTED_ARITHMETIC(-, operations)
COUNTED_ARITHMETIC(*, operations)
COUNTED_ARITHMETIC(/, special)
#undef COUNTED_ARITHMETIC

#define COUNTED_COMPARISON(symbol)                    \
  inline bool operator symbol(Counted a, Counted b) { \
    ++operations;                                     \
    return a.value symbol b.value;                    \
  }
COUNTED_COMPARISON(<)
COUNTED_COMPARISON(<=)
COUNTED_COMPARISON(>)
COUNTED_COMPARISON(>=)
COUNTED_COMPARISON(==)
COUNTED_COMPARISON(!=)
#undef COUNTED_COMPARISON

// What was loaded from 16 bits is a float.
inline Counted operator*(Counted a, float b) { return a * Counted(b); }

// A sign is an operand's modifier on the device.
constexpr Counted operator-(Counted a) { return Counted(-a.value); }

// The device has an instruction for it, which the host need not have.
inline Counted rounded_down(Counted a) {
  ++special;
  return Counted(dibr::rounded_down(a.value));
}

// One instruction on the device.
inline Counted fused(Counted a, Counted b, Counted c) {
  ++operations;
  return Counted(dibr::fused(a.value, b.value, c.value));
}

inline Counted exponent_from_low_bits(Counted a) {
  ++operations;
  return Counted(dibr::exponent_from_low_bits(a.value));
}

inline Counted load(Counted value) { return value; }
inline void store(Counted value, Counted* out) { *out = value; }

}  // namespace counting

namespace dibr {
template <>
struct Limits<counting::Counted> {
  static constexpr counting::Counted max_coordinate{Limits<float>::max_coordinate};
  static constexpr double min_determinant = Limits<float>::min_determinant;
  static constexpr counting::Counted max_depth{Limits<float>::max_depth};
  static constexpr counting::Counted min_length2{Limits<float>::min_length2};
};
template <>
struct Power2<counting::Counted> : Power2<float> {};
template <>
struct ComputeOf<counting::Counted> {
  using Type = counting::Counted;
};
}  // namespace dibr
