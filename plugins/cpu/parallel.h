// Runs loops on the caller's threads, and finds bad indices on the way.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "dibr/dibr.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Calls body(i) for every i in [0, count), in any order, on the launch's threads. Which work belongs to which i must
// depend on shapes alone, so that results do not depend on the number of threads.
template <class Body>
void parallel_for(const dibr_launch& launch, int64_t count, const Body& body) {
  if (count <= 0) return;
  if (launch.parallel_for == nullptr || count == 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  // No exception may cross the caller's C callback; scratch memory is the only thing that can throw.
  struct State {
    const Body* body;
    std::atomic<bool> out_of_memory{false};
  } state;
  state.body = &body;
  launch.parallel_for(
      launch.parallel_for_state, count,
      [](void* opaque, int64_t i) {
        State* s = static_cast<State*>(opaque);
        try {
          (*s->body)(i);
        } catch (const std::bad_alloc&) {
          s->out_of_memory = true;
        }
      },
      &state);
  if (state.out_of_memory) throw std::bad_alloc();
}

// Calls body(begin, end) for runs of `block` things, and a shorter last one, that together are [0, count).
template <class Body>
void parallel_for_blocks(const dibr_launch& launch, int64_t count, int64_t block, const Body& body) {
  parallel_for(launch, (count + block - 1) / block,
               [&](int64_t i) { body(i * block, std::min(count, (i + 1) * block)); });
}

// [begin, end) of part i when n things are cut into `parts` nearly equal runs.
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t n, int64_t parts, int64_t i) {
  const int64_t base = n / parts, extra = n % parts;
  const int64_t begin = i * base + std::min(i, extra);
  return {begin, begin + base + (i < extra ? 1 : 0)};
}

// Remembers the lowest offending position, whichever thread meets it.
class LowestFault {
 public:
  void report(int64_t position) {
    int64_t seen = position_.load(std::memory_order_relaxed);
    while (position < seen && !position_.compare_exchange_weak(seen, position)) {
    }
  }
  bool found() const { return position_.load() != INT64_MAX; }
  int64_t position() const { return position_.load(); }

 private:
  std::atomic<int64_t> position_{INT64_MAX};
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
