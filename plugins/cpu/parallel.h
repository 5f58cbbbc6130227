// Runs loops on the caller's threads, several one after another where they follow from each other, and finds bad
// indices on the way.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <thread>
#include <tuple>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "dibr/dibr.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One loop: body(i) for every i in [0, count), in any order. Which work belongs to which i must depend on shapes alone,
// so that results do not depend on the number of threads.
template <class Body>
struct Phase {
  int64_t count;
  Body body;
};
template <class Body>
Phase(int64_t, Body) -> Phase<Body>;

// Calls body(begin, end) for runs of `block` things, and a shorter last one, that together are [0, count).
template <class Body>
auto phase_of_blocks(int64_t count, int64_t block, const Body& body) {
  return Phase{(count + block - 1) / block, [=](int64_t i) { body(i * block, std::min(count, (i + 1) * block)); }};
}

// Loops that may run at the same time.
template <class A>
Phase<A> together(const Phase<A>& a) {
  return a;
}
template <class A, class... Others>
auto together(const Phase<A>& a, const Others&... others) {
  const auto b = together(others...);
  return Phase{a.count + b.count, [=](int64_t i) { i < a.count ? a.body(i) : b.body(i - a.count); }};
}

// Phases that run one after another in one loop of the launch: its threads, which may sleep between loops, wake up
// once. Threads take a phase's tasks while there are any, many at a time as long as there are many, so that they seldom
// meet, and one by one in the end. One that comes to a new phase waits for the end of the phase before, so only for
// threads that are at work, and nothing depends on how many there are, or when they come. One half of the threads takes
// a phase's tasks from the first on, the other from the last: of two threads each comes, launch after launch, to the
// same tasks, whose memory its caches have.
template <class Proceed, class... Bodies>
class PhaseRun {
 public:
  PhaseRun(const Proceed& proceed, const std::tuple<Phase<Bodies>...>& phases) : proceed_(proceed), phases_(phases) {
    int64_t end = 0, *next_end = ends_ + 1;
    Taken* taken = taken_;
    const auto note = [&](int64_t count) {
      *next_end++ = end += count;
      taken->unit = count / kMostUnits + 1;
      taken->units = (count + taken->unit - 1) / taken->unit;
      ++taken;
      widest_ = std::max(widest_, count);
    };
    std::apply([&](const auto&... phase) { (note(phase.count), ...); }, phases);
    while (last_ > 0 && count(last_) == 0) --last_;
  }

  // The launch's tasks are as many threads as can be at work.
  void run(const dibr_launch& launch) {
    threads_ = std::min(widest_, kMostThreads);
    if (launch.parallel_for == nullptr || threads_ <= 1) {
      work(kFront);
    } else {
      const auto work_as = [](void* self, int64_t thread) {
        PhaseRun* run = static_cast<PhaseRun*>(self);
        run->work(2 * thread < run->threads_ ? kFront : kBack);
      };
      launch.parallel_for(launch.parallel_for_state, threads_, work_as, this);
    }
    if (out_of_memory_) throw std::bad_alloc();
  }

 private:
  static constexpr int kPhases = sizeof...(Bodies);
  static constexpr int64_t kMostThreads = 256, kMostUnits = int64_t(1) << 31;
  // One that comes alone takes no more than the share of so many, which may come later.
  static constexpr int64_t kMostThreadsOfUse = 64;
  static constexpr int kLine = 64;  // bytes that threads fetch from each other at once

  enum Side { kFront, kBack };
  static int64_t front_of(uint64_t sides) { return int64_t(sides & 0xffffffffu); }
  static int64_t back_of(uint64_t sides) { return int64_t(sides >> 32); }
  // Of a phase's tasks, how many units are taken from the first on, and, in the upper half, from the last. A unit is
  // one task, and more only where their number would not fit.
  struct alignas(kLine) Taken {
    std::atomic<uint64_t> of_sides{0};
    int64_t unit = 1, units = 0;

    int64_t left(uint64_t sides) const { return units - front_of(sides) - back_of(sides); }
  };

  int64_t count(int phase) const { return ends_[phase + 1] - ends_[phase]; }
  bool is_taken(int phase) const { return taken_[phase].left(taken_[phase].of_sides) == 0; }

  void work(Side side) {
    if (is_taken(last_)) return;
    ++at_work_;
    for (int phase = 0; phase <= last_; ++phase) {
      if (is_taken(phase)) continue;
      if (!enter(phase)) return;
      done_ += work_in(phase, side);
    }
  }

  // Returns how many tasks it has done. It leaves none out, whatever is found meanwhile: so the lowest fault is found
  // by any number of threads.
  int64_t work_in(int phase, Side side) {
    Taken& taken = taken_[phase];
    int64_t done = 0;
    for (uint64_t sides = taken.of_sides; taken.left(sides) > 0;) {
      const int64_t many = std::min(taken.left(sides) / (2 * at_work_), taken.units / kMostThreadsOfUse);
      const int64_t taking = std::max<int64_t>(many, 1);
      const uint64_t after = sides + (uint64_t(taking) << (side == kFront ? 0 : 32));
      if (!taken.of_sides.compare_exchange_weak(sides, after)) continue;
      const int64_t first = side == kFront ? front_of(sides) : taken.units - back_of(sides) - taking;
      const int64_t begin = first * taken.unit, end = std::min((first + taking) * taken.unit, count(phase));
      do_tasks(phase, {begin, end, side == kFront}, std::index_sequence_for<Bodies...>{});
      done += end - begin;
      sides = taken.of_sides;
    }
    return done;
  }

  static void pause() {
#if defined(__SSE2__)
    _mm_pause();
#endif
  }

  // Waits for the phases before. False where the rest is to be left out.
  bool enter(int phase) {
    constexpr int kShortWait = 2000;  // some 40 us: longer than most tasks, shorter than a nap
    for (int turns = 0; done_ < ends_[phase] && !stopped_; ++turns) {
      turns < kShortWait ? pause() : std::this_thread::yield();
    }
    if (out_of_memory_ || !proceed_()) stopped_ = true;
    return !stopped_;
  }

  struct Tasks {
    int64_t begin, end;
    bool upwards;
  };
  template <size_t... kIndex>
  void do_tasks(int phase, const Tasks& tasks, std::index_sequence<kIndex...>) {
    ((phase == int(kIndex) ? do_tasks(std::get<kIndex>(phases_).body, tasks) : void()), ...);
  }
  // No exception may cross the caller's C callback; scratch memory is the only thing that can throw. Not inlined: what
  // the compiler makes of a body should not depend on the phases beside it.
  template <class Body>
  __attribute__((noinline)) void do_tasks(const Body& body, const Tasks& tasks) {
    try {
      const int64_t first = tasks.upwards ? tasks.begin : tasks.end - 1, step = tasks.upwards ? 1 : -1;
      for (int64_t i = 0; i < tasks.end - tasks.begin; ++i) body(first + i * step);
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    }
  }

  const Proceed& proceed_;
  const std::tuple<Phase<Bodies>...>& phases_;
  int64_t ends_[kPhases + 1] = {};  // of tasks, which are counted through all phases: phase k ends at ends_[k + 1]
  int last_ = kPhases - 1;          // that has tasks
  int64_t widest_ = 0, threads_ = 1;
  std::atomic<bool> stopped_{false}, out_of_memory_{false};
  std::atomic<int64_t> at_work_{0};  // threads that have come
  alignas(kLine) std::atomic<int64_t> done_{0};
  Taken taken_[kPhases];
};

template <class Body>
std::tuple<Phase<Body>> tuple_of(const Phase<Body>& phase) {
  return {phase};
}
template <class... Bodies>
const std::tuple<Phase<Bodies>...>& tuple_of(const std::tuple<Phase<Bodies>...>& phases) {
  return phases;
}

// Runs phases, and tuples of them, one after another on the launch's threads. A thread that comes to a phase asks
// proceed(): once it is false, the phases after those that have begun are left out.
template <class Proceed, class... Parts>
void run_phases(const dibr_launch& launch, const Proceed& proceed, const Parts&... parts) {
  const auto phases = std::tuple_cat(tuple_of(parts)...);
  PhaseRun(proceed, phases).run(launch);
}

template <class Body>
void run_phase(const dibr_launch& launch, const Phase<Body>& phase) {
  run_phases(launch, [] { return true; }, phase);
}
template <class Body>
void parallel_for(const dibr_launch& launch, int64_t count, const Body& body) {
  run_phase(launch, Phase{count, body});
}
template <class Body>
void parallel_for_blocks(const dibr_launch& launch, int64_t count, int64_t block, const Body& body) {
  run_phase(launch, phase_of_blocks(count, block, body));
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
