// Turns an op's dtype into a template argument.
#pragma once

#include "core/half.h"
#include "dibr/dibr.h"

namespace dibr {

// Calls body(T{}) with T = float or double; the ABI has refused every other dtype.
template <class Body>
auto dispatch(dibr_dtype dtype, const Body& body) {
  return dtype == DIBR_FLOAT64 ? body(double{}) : body(float{});
}

// The same with the 16-bit storage types too.
template <class Body>
auto dispatch_storage(dibr_dtype dtype, const Body& body) {
  if (dtype == DIBR_FLOAT16) return body(Half{});
  if (dtype == DIBR_BFLOAT16) return body(BFloat16{});
  return dispatch(dtype, body);
}

}  // namespace dibr
