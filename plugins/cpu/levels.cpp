// Picks the instruction set: each op of the CPU backend exists once per level, compiled from the same sources, with the
// same results bit for bit, but for the soft mask of the baseline, which rounds products and sums apart.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "abi/backend.h"
#include "abi/error.h"

namespace dibr::cpu {

#define DIBR_DECLARE_LEVEL(level) \
  namespace level {               \
  DIBR_DECLARE_BACKEND            \
  }

DIBR_DECLARE_LEVEL(baseline)
#if DIBR_CPU_HAS_AVX
DIBR_DECLARE_LEVEL(avx2)
DIBR_DECLARE_LEVEL(avx512)
#endif

namespace {

enum Level { kBaseline, kAvx2, kAvx512, kUnknown };
constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};
constexpr const char* kVariable = "DIBR_CPU_LEVEL";

bool machine_has(Level level) {
#if DIBR_CPU_HAS_AVX
  if (level == kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == kAvx512) {
    return machine_has(kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  }
#endif
  return level == kBaseline;
}

// The one that the environment names, else the best that the machine has.
Level choose_level() {
  const char* wanted = std::getenv(kVariable);
  for (const Level level : {kAvx512, kAvx2, kBaseline}) {
    const bool allowed = wanted == nullptr || *wanted == '\0' || std::strcmp(wanted, kNames[level]) == 0;
    if (allowed && machine_has(level)) return level;
  }
  return kUnknown;
}

// Calls body with the chosen level.
template <class Body>
dibr_status at_level(const char* op, const Body& body) {
  static const Level level = choose_level();
  if (level != kUnknown) return body(level);
  return fail(DIBR_UNSUPPORTED, "%s: the environment variable %s must be baseline, avx2 or avx512 and on this machine",
              op, kVariable);
}

}  // namespace

#if DIBR_CPU_HAS_AVX
#define DIBR_CALL_LEVEL(level, call) (level == kAvx512 ? avx512::call : level == kAvx2 ? avx2::call : baseline::call)
#else
#define DIBR_CALL_LEVEL(level, call) baseline::call
#endif

// backend.h lists the ops: here each becomes the call of its chosen level.
#undef DIBR_DECLARE_BACKEND_OP
#define DIBR_DECLARE_BACKEND_OP(name)                                                                                  \
  dibr_status name##_workspace(const dibr_##name##_params& p, Arena& arena) {                                          \
    return at_level(#name,                                                                                             \
                    [&]([[maybe_unused]] Level level) { return DIBR_CALL_LEVEL(level, name##_workspace(p, arena)); }); \
  }                                                                                                                    \
  dibr_status name(const dibr_##name##_params& p, const dibr_launch& launch) {                                         \
    return at_level(#name, [&]([[maybe_unused]] Level level) { return DIBR_CALL_LEVEL(level, name(p, launch)); });     \
  }

DIBR_DECLARE_BACKEND

}  // namespace dibr::cpu
