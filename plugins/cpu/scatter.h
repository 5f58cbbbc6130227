// Deterministic scatter-add. The units of work (rows) that feed one output array are cut into runs by shapes alone;
// each run adds into an array of its own, and these are summed in order. So neither the number of threads nor the order
// in which they work changes a bit of the result.
#pragma once

#include <cstring>

#include "abi/arena.h"
#include "cpu/parallel.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Which blocks of a private array of vectors are in use. NULL: all of them.
template <class T>
class BlocksInUse {
 public:
  static constexpr int64_t kVectors = 64;

  BlocksInUse() = default;
  BlocksInUse(T* sums, int64_t elements, int64_t width, uint8_t* in_use)
      : sums_(sums), elements_(elements), block_(kVectors * width), in_use_(in_use) {}

  // Vector i will be added to.
  void touch(int64_t i) const {
    if (in_use_ == nullptr || in_use_[i / kVectors]) return;
    in_use_[i / kVectors] = 1;
    const int64_t begin = i / kVectors * block_;
    std::memset(sums_ + begin, 0, size_t(std::min(block_, elements_ - begin)) * sizeof(T));
  }

 private:
  T* sums_ = nullptr;
  int64_t elements_ = 0, block_ = 0;
  uint8_t* in_use_ = nullptr;
};

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
  // With a width the elements are vectors of so many; only those that are touched are cleared and added up.
  Scatter(Runs runs, int64_t groups, int64_t elements, int64_t units, Arena& arena, int64_t width = 0)
      : groups_(groups), elements_(elements), units_(units), runs_(runs.of_each_group), width_(width) {
    if (runs_ <= 1) return;
    private_ = arena.take<T>(groups * runs_ * elements);
    if (width_ > 0) in_use_ = arena.take<uint8_t>(groups * runs_ * blocks());
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
    if (in_use_ != nullptr) {
      std::fill_n(in_use_ + part * blocks(), blocks(), uint8_t(0));
      return sum;
    }
    if (elements_ > 0) std::memset(sum, 0, size_t(elements_) * sizeof(T));
    return sum;
  }
  // Of an array that `cleared` has returned.
  BlocksInUse<T> in_use(int64_t part) const {
    if (in_use_ == nullptr) return {};
    return {private_ + part * elements_, elements_, width_, in_use_ + part * blocks()};
  }
  // Nothing where out is NULL.
  auto add_up(T* out) const {
    const int64_t per_task = in_use_ != nullptr ? kBlocks * BlocksInUse<T>::kVectors * width_ : kBlock;
    const int64_t tasks = runs_ > 1 && out != nullptr ? (elements_ + per_task - 1) / per_task : 0;
    return Phase{groups_ * tasks, [=](int64_t i) {
                   const int64_t group = i / tasks, begin = i % tasks * per_task;
                   const int64_t end = std::min(begin + per_task, elements_);
                   in_use_ != nullptr ? add_up_in_use(group, begin, end, out) : add_up_all(group, begin, end, out);
                 }};
  }

 private:
  static constexpr int64_t kRuns = 16, kFewRuns = 4;
  static constexpr int64_t kBlock = 4096, kBlocks = 16;

  int64_t block() const { return BlocksInUse<T>::kVectors * width_; }  // elements
  int64_t blocks() const { return (elements_ + block() - 1) / block(); }

  void add_up_all(int64_t group, int64_t begin, int64_t end, T* out) const {
    const T* sums = private_ + group * runs_ * elements_;
    T* target = out + group * elements_;
    std::copy(sums + begin, sums + end, target + begin);
    for (int64_t run = 1; run < runs_; ++run) {
      for (int64_t e = begin; e < end; ++e) target[e] += sums[run * elements_ + e];
    }
  }

  // `begin` is where a block begins.
  void add_up_in_use(int64_t group, int64_t begin, int64_t end, T* out) const {
    for (; begin < end; begin += block()) add_up_block(group, begin, std::min(begin + block(), end), out);
  }
  void add_up_block(int64_t group, int64_t begin, int64_t end, T* out) const {
    T* target = out + group * elements_;
    std::fill(target + begin, target + end, T(0));
    for (int64_t run = group * runs_; run < (group + 1) * runs_; ++run) {
      if (!in_use_[run * blocks() + begin / block()]) continue;
      const T* sums = private_ + run * elements_;
      for (int64_t e = begin; e < end; ++e) target[e] += sums[e];
    }
  }

  int64_t groups_, elements_, units_, runs_;
  int64_t width_ = 0;
  T* private_ = nullptr;
  uint8_t* in_use_ = nullptr;  // [groups, runs, blocks]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
