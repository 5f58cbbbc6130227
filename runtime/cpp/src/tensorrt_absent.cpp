// Built in place of the TensorRT backend where DIBR_TENSORRT is OFF.
#include "backend.h"
#include "failure.h"

namespace dibr::runtime {

std::unique_ptr<Backend> open_tensorrt(const Bundle& bundle, const Options&) {
  fail(DIBR_RUNTIME_ABSENT, "provider tensorrt is not in this libdibr_runtime, so that no engine of bundle ",
       bundle.path(), " can be opened: build it with DIBR_TENSORRT=ON");
}

}  // namespace dibr::runtime
