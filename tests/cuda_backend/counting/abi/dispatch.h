// In place of plugins/abi/dispatch.h, for the CUDA sources only: float32 runs as the float that counts.
#pragma once

#include "core/half.h"
#include "counted.h"
#include "dibr/dibr.h"

namespace dibr {

template <class Body>
auto dispatch(dibr_dtype, const Body& body) {
  return body(counting::Counted{});
}

template <class Body>
auto dispatch_storage(dibr_dtype, const Body& body) {
  return body(counting::Counted{});
}

}  // namespace dibr
