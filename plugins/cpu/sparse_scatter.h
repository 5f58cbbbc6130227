// Scatter (cpu/scatter.h) for sums that most units of work leave alone: an array of its own is cleared, and later added
// to the others, only where a run has touched it. Deterministic in the same way.
#pragma once

#include <cstring>

#include "abi/arena.h"
#include "cpu/parallel.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Vectors of kWidth T, of which a run touches some.
template <class T, int kWidth = 2>
class TouchedVectors {
 public:
  static constexpr int64_t kBlock = 64;

  TouchedVectors(T* vectors, uint8_t* touched) : vectors_(vectors), touched_(touched) {}

  // Vector i, all 0 at first.
  T* operator[](int64_t i) const {
    const uint64_t block = uint64_t(i) / kBlock;  // a shift, which a signed quotient is not
    uint8_t& touched = touched_[block];
    if (!touched) {
      touched = 1;
      std::memset(vectors_ + kWidth * kBlock * block, 0, kWidth * kBlock * sizeof(T));
    }
    return vectors_ + kWidth * i;
  }

 private:
  T* vectors_;
  uint8_t* touched_;  // one for every kBlock vectors
};

template <class T, int kWidth = 2>
class SparseScatter {
 public:
  // `groups` sums of `vectors` times kWidth T each; `units` units of work feed each, `runs` runs of them.
  SparseScatter(int64_t groups, int64_t vectors, int64_t units, int64_t runs, Arena& arena)
      : groups_(groups), vectors_(vectors), units_(units), blocks_((vectors + kBlock - 1) / kBlock), runs_(runs) {
    sums_ = arena.take<T>(groups * runs_ * blocks_ * kBlock * kWidth);
    touched_ = arena.take<uint8_t>(groups * runs_ * blocks_);
  }

  SparseScatter(int64_t groups, int64_t vectors, int64_t units, Arena& arena)
      : SparseScatter(
            groups, vectors, units,
            std::clamp<int64_t>((kRuns + groups - 1) / std::max<int64_t>(groups, 1), 1, std::max<int64_t>(units, 1)),
            arena) {}

  // The phases of it. body(group, unit, sums) adds unit's share to sums, TouchedVectors. Then every vector of a group
  // is in one call of use(group, begin, end, sums): sums points to that of vector `begin`, and is NULL where all are 0.
  template <class Body, class Use>
  auto phases(const Body& body, const Use& use) const {
    const Phase add_parts = {groups_ * runs_, [=](int64_t i) {
                               if (blocks_ > 0) std::memset(touched_ + i * blocks_, 0, size_t(blocks_));
                               const TouchedVectors<T, kWidth> sums(sums_ + i * blocks_ * kBlock * kWidth,
                                                                    touched_ + i * blocks_);
                               const Range part = part_of(units_, runs_, i % runs_);
                               for (int64_t unit = part.begin; unit < part.end; ++unit) body(i / runs_, unit, sums);
                             }};
    const int64_t tasks = (blocks_ + kTask - 1) / kTask;
    const Phase add_up = {groups_ * tasks, [=](int64_t i) {
                            const int64_t group = i / tasks, first = i % tasks * kTask;
                            for (int64_t block = first; block < std::min(first + kTask, blocks_); ++block) {
                              use(group, block * kBlock, std::min((block + 1) * kBlock, vectors_),
                                  reduce(group, block));
                            }
                          }};
    return std::make_tuple(add_parts, add_up);
  }

 private:
  static constexpr int64_t kRuns = 16, kTask = 64;
  static constexpr int64_t kBlock = TouchedVectors<T, kWidth>::kBlock;

  // The sums of a block over all runs, in the first one's array that has any.
  const T* reduce(int64_t group, int64_t block) const {
    T* total = nullptr;
    for (int64_t run = group * runs_; run < (group + 1) * runs_; ++run) {
      if (!touched_[run * blocks_ + block]) continue;
      T* sums = sums_ + (run * blocks_ + block) * kBlock * kWidth;
      for (int64_t e = 0; total != nullptr && e < kWidth * kBlock; ++e) total[e] += sums[e];
      if (total == nullptr) total = sums;
    }
    return total;
  }

  int64_t groups_, vectors_, units_, blocks_, runs_;
  T* sums_;           // [groups, runs, blocks * kBlock, kWidth], valid where touched
  uint8_t* touched_;  // [groups, runs, blocks]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
