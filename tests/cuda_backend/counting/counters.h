// What each kernel did: floating-point operations, and bytes of the arrays that the caller named.
#pragma once

#include <cstdint>

namespace counting {

// Since the last launch began. An operation is one addition, subtraction, multiplication, comparison or selection of
// two floats; a division, an exponential and a floor count as special, once each.
inline uint64_t operations = 0;
inline uint64_t special = 0;

// Around every launch, by DIBR_LAUNCH.
void begin_launch(const char* kernel);
void end_launch(uint64_t atomics);

// An atomic of a thread reads and writes.
void atomic(const void* address, uint64_t bytes);

}  // namespace counting
