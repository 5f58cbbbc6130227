// Deterministic scatter-add. The units of work (rows) that feed one output array are cut into runs by shapes alone;
// each run adds into an array of its own, and these are summed in order. So neither the number of threads nor the order
// in which they work changes a bit of the result.
#pragma once

#include <cstring>

#include "abi/arena.h"
#include "cpu/parallel.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

template <class T>
class Scatter {
 public:
  // `groups` outputs of `elements` each; `units` units of work feed each. Private arrays are as many as it takes to
  // keep threads busy, few where they would have more than `budget` elements in all, since they must be cleared and
  // added up, and none where one alone has.
  Scatter(int64_t groups, int64_t elements, int64_t units, int64_t budget, Arena& arena)
      : Scatter(Runs{runs_within(groups, elements, units, budget)}, groups, elements, units, arena) {}

  struct Runs {
    int64_t of_each_group;
  };
  Scatter(Runs runs, int64_t groups, int64_t elements, int64_t units, Arena& arena)
      : groups_(groups), elements_(elements), units_(units), runs_(runs.of_each_group) {
    if (runs_ > 1) private_ = arena.take<T>(groups * runs_ * elements);
  }
  static int64_t runs_within(int64_t groups, int64_t elements, int64_t units, int64_t budget) {
    const int64_t wanted = (kRuns + groups - 1) / std::max<int64_t>(groups, 1);
    const int64_t affordable = budget / std::max<int64_t>(groups * elements, 1);
    const int64_t least = affordable >= 1 ? (kFewRuns + groups - 1) / std::max<int64_t>(groups, 1) : 1;
    return std::clamp<int64_t>(std::min(wanted, std::max(affordable, least)), 1, std::max<int64_t>(units, 1));
  }

  // body(group, unit, sum) adds unit's share to sum[elements]. Overwrites out [groups, elements].
  template <class Body>
  void run(const dibr_launch& launch, T* out, const Body& body) const {
    const auto add_part = [&](int64_t group, int64_t begin, int64_t end, T* sum) {
      for (int64_t unit = begin; unit < end; ++unit) body(group, unit, sum);
    };
    run_phases(launch, [] { return true; }, phases(out, add_part));
  }

  // The same as phases: body(group, begin, end, sum) adds the shares of the units from begin to end, which are one
  // thread's.
  template <class Body>
  auto phases(T* out, const Body& body) const {
    const Phase add_parts = {parts(), [=](int64_t i) {
                               const Range part = units_of(i);
                               body(i / runs_, part.begin, part.end, cleared(i, out));
                             }};
    return std::make_tuple(add_parts, add_up(out));
  }

  // The pieces of `phases`, for work that feeds several outputs: parts [0, parts()), each with its units and an array.
  int64_t parts() const { return groups_ * runs_; }
  Range units_of(int64_t part) const { return part_of(units_, runs_, part % runs_); }
  T* cleared(int64_t part, T* out) const {
    T* sum = (runs_ > 1 ? private_ : out) + part * elements_;
    if (elements_ > 0) std::memset(sum, 0, size_t(elements_) * sizeof(T));
    return sum;
  }
  // Nothing where out is NULL.
  auto add_up(T* out) const {
    const int64_t blocks = runs_ > 1 && out != nullptr ? (elements_ + kBlock - 1) / kBlock : 0;
    return Phase{groups_ * blocks, [=](int64_t i) {
                   const int64_t group = i / blocks, begin = i % blocks * kBlock;
                   const int64_t end = std::min(begin + kBlock, elements_);
                   const T* sums = private_ + group * runs_ * elements_;
                   T* target = out + group * elements_;
                   std::copy(sums + begin, sums + end, target + begin);
                   for (int64_t run = 1; run < runs_; ++run) {
                     for (int64_t e = begin; e < end; ++e) target[e] += sums[run * elements_ + e];
                   }
                 }};
  }

 private:
  static constexpr int64_t kRuns = 16, kFewRuns = 4;
  static constexpr int64_t kBlock = 4096;

  int64_t groups_, elements_, units_, runs_;
  T* private_ = nullptr;
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
