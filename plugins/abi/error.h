// The thread's last error, and the statuses that carry one.
#pragma once

#include "dibr/dibr.h"

namespace dibr {

// Stores a printf-formatted sentence for dibr_last_error and returns status.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
dibr_status fail(dibr_status status, const char* format, ...);

}  // namespace dibr
