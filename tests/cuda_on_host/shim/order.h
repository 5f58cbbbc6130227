// The order in which the blocks of a grid and the threads of a block run:
// CUDA_ON_HOST_ORDER=forward|reverse|random:SEED.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "qualifiers.h"

namespace cuda_on_host {

struct Order {
  enum Kind { kForward, kReverse, kRandom };
  Kind kind = kForward;
  uint64_t seed = 0;
};

[[noreturn]] inline void reject_environment(const char* name, const char* expected, const char* value) {
  std::fprintf(stderr, "cuda_on_host: %s must be %s, got \"%s\"\n", name, expected, value);
  std::abort();
}

// A whole number >= minimum from `text`, or an abort that names the environment variable.
inline uint64_t parse_number(const char* name, const char* expected, const char* value, const char* text,
                             uint64_t minimum) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || number < minimum) reject_environment(name, expected, value);
  return number;
}

inline Order order_from_environment() {
  const char* const name = "CUDA_ON_HOST_ORDER";
  const char* const expected = "forward, reverse or random:SEED";
  const char* const value = std::getenv(name);
  if (!value || !*value || !std::strcmp(value, "forward")) return {};
  if (!std::strcmp(value, "reverse")) return {Order::kReverse, 0};
  if (std::strncmp(value, "random:", 7) != 0) reject_environment(name, expected, value);
  return {Order::kRandom, parse_number(name, expected, value, value + 7, 0)};
}

// Fills `items` with a permutation of 0 .. count-1; `stream` tells the permutations of one seed apart.
template <class Index>
CUDA_ON_HOST_UNSANITIZED void fill_order(const Order& order, uint64_t stream, Index* items, size_t count) {
  for (size_t i = 0; i < count; ++i) items[i] = Index(order.kind == Order::kReverse ? count - 1 - i : i);
  if (order.kind != Order::kRandom) return;
  uint64_t state = order.seed * 0x9E3779B97F4A7C15ull + stream * 0xD1B54A32D192ED03ull;
  for (size_t i = count; i > 1; --i) {  // Fisher-Yates, driven by SplitMix64 (Steele, Lea, Flood 2014)
    uint64_t random = state += 0x9E3779B97F4A7C15ull;
    random = (random ^ random >> 30) * 0xBF58476D1CE4E5B9ull;
    random = (random ^ random >> 27) * 0x94D049BB133111EBull;
    random ^= random >> 31;
    const size_t j = random % i;
    const Index kept = items[i - 1];
    items[i - 1] = items[j];
    items[j] = kept;
  }
}

}  // namespace cuda_on_host
