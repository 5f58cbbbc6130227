// Scatter (cpu/scatter.h) for sums that most units of work leave alone: an array of its own is cleared, and later added
// to the others, only where a run has touched it. Deterministic in the same way.
#pragma once

#include <cstring>

#include "abi/arena.h"
#include "cpu/parallel.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Vectors of four T, of which a run touches some.
template <class T>
class TouchedVectors {
 public:
  static constexpr int64_t kBlock = 64;

  TouchedVectors(T* vectors, uint8_t* touched) : vectors_(vectors), touched_(touched) {}

  // Vector i, all 0 at first.
  T* operator[](int64_t i) const {
    uint8_t& touched = touched_[i / kBlock];
    if (!touched) {
      touched = 1;
      std::memset(vectors_ + 4 * (i / kBlock * kBlock), 0, 4 * kBlock * sizeof(T));
    }
    return vectors_ + 4 * i;
  }

 private:
  T* vectors_;
  uint8_t* touched_;  // one for every kBlock vectors
};

template <class T>
class SparseScatter {
 public:
  // `groups` outputs of `vectors` times four T each; `units` units of work feed each.
  SparseScatter(int64_t groups, int64_t vectors, int64_t units, Arena& arena)
      : groups_(groups), vectors_(vectors), units_(units), blocks_((vectors + kBlock - 1) / kBlock) {
    runs_ = std::clamp<int64_t>((kRuns + groups - 1) / std::max<int64_t>(groups, 1), 1, std::max<int64_t>(units, 1));
    sums_ = arena.take<T>(groups * runs_ * blocks_ * kBlock * 4);
    touched_ = arena.take<uint8_t>(groups * runs_ * blocks_);
  }

  // body(group, unit, sums) adds unit's share to sums, TouchedVectors. Overwrites out [groups, vectors, 4].
  template <class Body>
  void run(const dibr_launch& launch, T* out, const Body& body) const {
    parallel_for(launch, groups_ * runs_, [&](int64_t i) {
      if (blocks_ > 0) std::memset(touched_ + i * blocks_, 0, size_t(blocks_));
      const TouchedVectors<T> sums(sums_ + i * blocks_ * kBlock * 4, touched_ + i * blocks_);
      const Range part = part_of(units_, runs_, i % runs_);
      for (int64_t unit = part.begin; unit < part.end; ++unit) body(i / runs_, unit, sums);
    });
    reduce(launch, out);
  }

 private:
  static constexpr int64_t kRuns = 16;
  static constexpr int64_t kBlock = TouchedVectors<T>::kBlock;

  void reduce(const dibr_launch& launch, T* out) const {
    constexpr int64_t kTask = 64;
    const int64_t tasks = (blocks_ + kTask - 1) / kTask;
    parallel_for(launch, groups_ * tasks, [&](int64_t i) {
      const int64_t group = i / tasks, first = i % tasks * kTask;
      for (int64_t block = first; block < std::min(first + kTask, blocks_); ++block) reduce_block(group, block, out);
    });
  }

  void reduce_block(int64_t group, int64_t block, T* out) const {
    const int64_t begin = 4 * block * kBlock, count = std::min(4 * kBlock, 4 * vectors_ - begin);
    T* target = out + 4 * group * vectors_ + begin;
    std::memset(target, 0, size_t(count) * sizeof(T));
    for (int64_t run = group * runs_; run < (group + 1) * runs_; ++run) {
      if (!touched_[run * blocks_ + block]) continue;
      const T* sums = sums_ + run * blocks_ * kBlock * 4 + begin;
      for (int64_t e = 0; e < count; ++e) target[e] += sums[e];
    }
  }

  int64_t groups_, vectors_, units_, blocks_, runs_ = 1;
  T* sums_;           // [groups, runs, blocks * kBlock, 4], valid where touched
  uint8_t* touched_;  // [groups, runs, blocks]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
