// Runs blocks: threads as fibres, barriers, warp operations, and the reports of what would hang or be undefined on a
// device.
//
// Under ThreadSanitizer every CUDA thread is a fibre of its own and switching orders nothing: only __syncthreads
// (within a block) and __syncwarp (within a warp) do, as on a device. A shuffle or a vote does not order memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "context.h"
#include "counters.h"
#include "order.h"
#include "qualifiers.h"
#include "vector_types.h"

namespace cuda_on_host {

constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kMaxWarpsPerBlock = kMaxThreadsPerBlock / warpSize;

enum class ThreadState : uint8_t { kNotStarted, kRunnable, kAtBarrier, kAtWarpOperation, kExited };

enum class WarpOperation : uint8_t {
  kSync,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kMatchAny,
  kReduce
};

// Where a kernel calls a barrier or a warp operation.
struct CallSite {
  const char* file = nullptr;
  int line = 0;

  CUDA_ON_HOST_UNSANITIZED bool operator==(const CallSite& other) const {
    return line == other.line && (file == other.file || !std::strcmp(file, other.file));
  }
};

using Combine = uint64_t (*)(uint64_t, uint64_t);

struct WarpRequest {
  WarpOperation operation = WarpOperation::kSync;
  unsigned mask = 0;
  uint64_t value = 0;         // the lane's operand, in its low bits
  int argument = 0;           // of a shuffle: source lane, distance or lane mask
  int width = warpSize;       // of a shuffle: lanes per segment
  Combine combine = nullptr;  // of a reduction
};

struct DeviceThread {
  uint3 index = {};
  ThreadState state = ThreadState::kNotStarted;
  Fibre* fibre = nullptr;
  CallSite site;  // of the latest barrier or warp operation
  WarpRequest request;
  uint64_t result = 0;
};

// What a worker needs of a launch; the kernel's arguments hide behind `run_thread`.
struct LaunchBody {
  void (*run_thread)(const void* arguments) = nullptr;
  const void* arguments = nullptr;
  const char* kernel = "";
};

class Worker;
inline CUDA_ON_HOST_PER_WORKER Worker* current_worker = nullptr;

class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    for (int i = 0; i < fibre_count_; ++i) delete fibres_[i];
  }

  // Runs the block blockIdx of size blockDim to its end.
  CUDA_ON_HOST_UNSANITIZED void run_block(const LaunchBody& body, const Order& order, uint64_t block_number,
                                          void* dynamic_shared) {
    body_ = body;
    dynamic_shared_ = dynamic_shared;
    start_threads(order, block_number);
    while (exited_ < thread_count_) {
      const bool progress = run_every_runnable_thread();
      if (at_barrier_ == thread_count_) {
        release_barrier();
      } else if (!progress && exited_ < thread_count_) {
        report_stuck_warp_operation();
      }
    }
    CUDA_ON_HOST_TSAN(__tsan_acquire(&end_token_);)
  }

  // __syncthreads and its voting kin: returns for how many threads `predicate` is true.
  CUDA_ON_HOST_UNSANITIZED int barrier(bool predicate, CallSite site) {
    DeviceThread& thread = *current_thread_;
    thread.site = site;
    thread.request.mask = 0;
    thread.state = ThreadState::kAtBarrier;
    if (exited_) fail("__syncthreads after a thread of the block has exited", thread, first_in(ThreadState::kExited));
    if (at_barrier_++ == 0) first_at_barrier_ = &thread;
    if (!(first_at_barrier_->site == site)) fail("divergent __syncthreads", *first_at_barrier_, &thread);
    votes_ += predicate;
    CUDA_ON_HOST_TSAN(char* const token = &barrier_tokens_[barrier_parity_]; __tsan_release(token);)
    switch_context(thread.fibre->context, own_context_);
    CUDA_ON_HOST_TSAN(__tsan_acquire(token);)
    return vote_result_;
  }

  // Any *_sync operation of a warp: waits for the lanes of the mask, returns this lane's result.
  CUDA_ON_HOST_UNSANITIZED uint64_t warp_operation(const WarpRequest& request, CallSite site) {
    DeviceThread& thread = *current_thread_;
    const int number = int(&thread - threads_);
    const int warp = number / warpSize;
    const unsigned lane_bit = 1u << number % warpSize;
    thread.request = request;
    thread.site = site;
    if (!(request.mask & lane_bit)) fail("warp operation by a lane that its own mask leaves out", thread);
    if (request.width < 1 || request.width > warpSize || (request.width & (request.width - 1)))
      fail("shuffle whose width is not a power of two up to 32", thread);
    thread.state = ThreadState::kAtWarpOperation;
    waiting_lanes_[warp] |= lane_bit;
    CUDA_ON_HOST_TSAN(char* const token = &warp_tokens_[warp][warp_parity_[warp]];
                      if (request.operation == WarpOperation::kSync) __tsan_release(token);)
    if (all_lanes_wait(warp, thread)) {
      complete_warp_operation(warp, request);
    } else {
      switch_context(thread.fibre->context, own_context_);
    }
    CUDA_ON_HOST_TSAN(if (request.operation == WarpOperation::kSync) __tsan_acquire(token);)
    return thread.result;
  }

  CUDA_ON_HOST_UNSANITIZED void* dynamic_shared() const { return dynamic_shared_; }

  // Ends the process with a report on the calling thread.
  [[noreturn]] CUDA_ON_HOST_UNSANITIZED void fail_here(const char* what) { fail(what, *current_thread_); }

 private:
  CUDA_ON_HOST_UNSANITIZED void start_threads(const Order& order, uint64_t block_number) {
    thread_count_ = int(blockDim.x * blockDim.y * blockDim.z);
    exited_ = at_barrier_ = votes_ = next_ = 0;
    fill_order(order, block_number, order_, size_t(thread_count_));
    uint3 index = {0, 0, 0};
    for (int i = 0; i < thread_count_; ++i) {
      threads_[i].index = index;
      threads_[i].state = ThreadState::kNotStarted;
      threads_[i].fibre = nullptr;
      threads_[i].site = {};
      threads_[i].request.mask = 0;
      if (++index.x == blockDim.x) {
        index.x = 0;
        if (++index.y == blockDim.y) {
          index.y = 0;
          ++index.z;
        }
      }
    }
    for (unsigned& lanes : waiting_lanes_) lanes = 0;
#if defined(__SANITIZE_THREAD__)
    own_context_.tsan_fiber = __tsan_get_current_fiber();
    while (fibre_count_ < thread_count_) new_fibre();
    __tsan_release(&start_token_);
#endif
  }

  CUDA_ON_HOST_UNSANITIZED bool run_every_runnable_thread() {
    bool progress = false;
    for (int k = 0; k < thread_count_; ++k) {
      DeviceThread& thread = threads_[order_[k]];
      if (thread.state == ThreadState::kNotStarted) {
        next_ = k + 1;
        thread.fibre = fibre_for(order_[k]);
      } else if (thread.state != ThreadState::kRunnable) {
        continue;
      }
      current_thread_ = &thread;
      threadIdx = thread.index;
      switch_context(own_context_, thread.fibre->context);
      progress = true;
    }
    return progress;
  }

  // The main function of every fibre. A thread that ends without having waited leaves its stack to the next one at
  // once.
  CUDA_ON_HOST_UNSANITIZED static void fibre_main() {
    arrive_on_new_stack(current_worker->own_context_);
    for (;;) {
      Worker& worker = *current_worker;
      Fibre* const fibre = worker.current_thread_->fibre;
      worker.run_current_thread();
      if (worker.start_next_thread_on(fibre)) continue;
      worker.retire(fibre);
      switch_context(fibre->context, worker.own_context_);
    }
  }

  CUDA_ON_HOST_UNSANITIZED void run_current_thread() {
    current_thread_->state = ThreadState::kRunnable;
    CUDA_ON_HOST_TSAN(__tsan_acquire(&start_token_);)
    body_.run_thread(body_.arguments);
    CUDA_ON_HOST_TSAN(__tsan_release(&end_token_);)
    current_thread_->state = ThreadState::kExited;
    ++exited_;
    if (at_barrier_) fail("thread exits while others wait in __syncthreads", *current_thread_, first_at_barrier_);
  }

  CUDA_ON_HOST_UNSANITIZED bool start_next_thread_on([[maybe_unused]] Fibre* fibre) {
#if !defined(__SANITIZE_THREAD__)  // there a fibre is the identity of a thread
    for (; next_ < thread_count_; ++next_) {
      DeviceThread& thread = threads_[order_[next_]];
      if (thread.state != ThreadState::kNotStarted) continue;
      thread.fibre = fibre;
      current_thread_ = &thread;
      threadIdx = thread.index;
      return true;
    }
#endif
    return false;
  }

  CUDA_ON_HOST_UNSANITIZED Fibre* fibre_for([[maybe_unused]] int thread_number) {
#if defined(__SANITIZE_THREAD__)
    return fibres_[thread_number];
#else
    return idle_count_ ? idle_fibres_[--idle_count_] : new_fibre();
#endif
  }

  CUDA_ON_HOST_UNSANITIZED void retire([[maybe_unused]] Fibre* fibre) {
#if !defined(__SANITIZE_THREAD__)
    idle_fibres_[idle_count_++] = fibre;
#endif
  }

  CUDA_ON_HOST_UNSANITIZED Fibre* new_fibre() { return fibres_[fibre_count_++] = new Fibre(fibre_main); }

  CUDA_ON_HOST_UNSANITIZED void release_barrier() {
    vote_result_ = votes_;
    votes_ = at_barrier_ = 0;
    barrier_parity_ ^= 1;
    ++current_counters->barriers;
    for (int i = 0; i < thread_count_; ++i) threads_[i].state = ThreadState::kRunnable;
  }

  CUDA_ON_HOST_UNSANITIZED bool all_lanes_wait(int warp, const DeviceThread& thread) const {
    const unsigned mask = thread.request.mask;
    if ((waiting_lanes_[warp] & mask) != mask) return false;
    for (int lane = 0; lane < warpSize; ++lane) {
      if (mask >> lane & 1 && !joins(threads_[warp * warpSize + lane], thread)) return false;
    }
    return true;
  }

  // Whether `lane` waits in the same operation as `thread`.
  CUDA_ON_HOST_UNSANITIZED static bool joins(const DeviceThread& lane, const DeviceThread& thread) {
    return lane.request.operation == thread.request.operation && lane.request.mask == thread.request.mask &&
           lane.site == thread.site;
  }

  CUDA_ON_HOST_UNSANITIZED void complete_warp_operation(int warp, const WarpRequest& request) {
    DeviceThread* const lanes = threads_ + warp * warpSize;
    for (int lane = 0; lane < warpSize; ++lane) {
      if (!(request.mask >> lane & 1)) continue;
      lanes[lane].result = lane_result(lanes, lane);
      lanes[lane].state = ThreadState::kRunnable;
    }
    waiting_lanes_[warp] &= ~request.mask;
    if (request.operation == WarpOperation::kSync) warp_parity_[warp] ^= 1;
    ++current_counters->warp_operations;
  }

  CUDA_ON_HOST_UNSANITIZED uint64_t lane_result(DeviceThread* lanes, int lane) {
    const WarpRequest& request = lanes[lane].request;
    const int first = lane & ~(request.width - 1);
    const int end = first + request.width;
    const int argument = request.argument;
    switch (request.operation) {
      case WarpOperation::kSync:
        return 0;
      case WarpOperation::kShuffle:
        return shuffled(lanes, lane, first + (argument & (request.width - 1)));
      case WarpOperation::kShuffleUp:
        return shuffled(lanes, lane, lane - argument < first ? lane : lane - argument);
      case WarpOperation::kShuffleDown:
        return shuffled(lanes, lane, lane + argument >= end ? lane : lane + argument);
      case WarpOperation::kShuffleXor:
        return shuffled(lanes, lane, (lane ^ argument) >= end ? lane : lane ^ argument);
      case WarpOperation::kBallot:
      case WarpOperation::kMatchAny:
        return lanes_that_agree(lanes, request);
      case WarpOperation::kReduce:
        return reduced(lanes, request);
    }
    __builtin_unreachable();
  }

  CUDA_ON_HOST_UNSANITIZED uint64_t shuffled(DeviceThread* lanes, int lane, int source) {
    if (source < 0 || source >= warpSize || !(lanes[lane].request.mask >> source & 1))
      fail("shuffle reads a lane that its mask leaves out", lanes[lane]);
    return lanes[source].request.value;
  }

  CUDA_ON_HOST_UNSANITIZED static uint64_t lanes_that_agree(const DeviceThread* lanes, const WarpRequest& request) {
    const uint64_t wanted = request.operation == WarpOperation::kBallot ? 1 : request.value;
    uint64_t agreeing = 0;
    for (int lane = 0; lane < warpSize; ++lane) {
      if (request.mask >> lane & 1 && lanes[lane].request.value == wanted) agreeing |= uint64_t(1) << lane;
    }
    return agreeing;
  }

  CUDA_ON_HOST_UNSANITIZED static uint64_t reduced(const DeviceThread* lanes, const WarpRequest& request) {
    int lane = __builtin_ctz(request.mask);
    uint64_t total = lanes[lane].request.value;
    while (++lane < warpSize) {
      if (request.mask >> lane & 1) total = request.combine(total, lanes[lane].request.value);
    }
    return total;
  }

  // Nobody can run and no barrier is complete: some warp waits for lanes that cannot come any more.
  [[noreturn]] CUDA_ON_HOST_UNSANITIZED void report_stuck_warp_operation() {
    DeviceThread& thread = *first_in(ThreadState::kAtWarpOperation);
    const int warp_start = int(&thread - threads_) / warpSize * warpSize;
    for (int lane = 0; lane < warpSize; ++lane) {
      if (!(thread.request.mask >> lane & 1)) continue;
      if (warp_start + lane >= thread_count_)
        fail("warp operation whose mask names a lane that the block lacks", thread);
      DeviceThread& other = threads_[warp_start + lane];
      if (other.state != ThreadState::kAtWarpOperation || !joins(other, thread))
        fail("warp operation whose mask names a lane that never arrives", thread, &other);
    }
    fail("deadlock", thread);
  }

  CUDA_ON_HOST_UNSANITIZED DeviceThread* first_in(ThreadState state) {
    for (int i = 0; i < thread_count_; ++i) {
      if (threads_[i].state == state) return &threads_[i];
    }
    return nullptr;
  }

  [[noreturn]] CUDA_ON_HOST_UNSANITIZED void fail(const char* what, const DeviceThread& thread,
                                                  const DeviceThread* other = nullptr) const {
    std::fprintf(stderr, "cuda_on_host: %s in %s, block (%u, %u, %u)\n", what, body_.kernel, blockIdx.x, blockIdx.y,
                 blockIdx.z);
    describe(thread);
    if (other) describe(*other);
    std::abort();
  }

  CUDA_ON_HOST_UNSANITIZED static void describe(const DeviceThread& thread) {
    std::fprintf(stderr, "  thread (%u, %u, %u) ", thread.index.x, thread.index.y, thread.index.z);
    const char* const doing = thread.state == ThreadState::kExited            ? "has exited"
                              : thread.state == ThreadState::kAtBarrier       ? "waits in __syncthreads"
                              : thread.state == ThreadState::kAtWarpOperation ? "waits in a warp operation"
                                                                              : "runs";
    std::fprintf(stderr, "%s", doing);
    if (thread.site.file) std::fprintf(stderr, ", %s:%d", thread.site.file, thread.site.line);
    if (thread.request.mask) std::fprintf(stderr, ", mask 0x%08x", thread.request.mask);
    std::fprintf(stderr, "\n");
  }

  LaunchBody body_;
  void* dynamic_shared_ = nullptr;
  Context own_context_;

  DeviceThread threads_[kMaxThreadsPerBlock];
  int order_[kMaxThreadsPerBlock];
  int thread_count_ = 0;
  int exited_ = 0;
  int next_ = 0;  // position in order_ before which every thread has started
  DeviceThread* current_thread_ = nullptr;

  int at_barrier_ = 0;
  DeviceThread* first_at_barrier_ = nullptr;
  int votes_ = 0;
  int vote_result_ = 0;
  unsigned waiting_lanes_[kMaxWarpsPerBlock] = {};

  Fibre* fibres_[kMaxThreadsPerBlock];
  Fibre* idle_fibres_[kMaxThreadsPerBlock];
  int fibre_count_ = 0;
  int idle_count_ = 0;

  // Addresses that stand for happens-before edges under ThreadSanitizer. Two per barrier, in turn: a thread that is
  // late to acquire must not see what others released at the next one.
  int barrier_parity_ = 0;
  int warp_parity_[kMaxWarpsPerBlock] = {};
  char start_token_ = 0;
  char end_token_ = 0;
  char barrier_tokens_[2] = {};
  char warp_tokens_[kMaxWarpsPerBlock][2] = {};
};

}  // namespace cuda_on_host
