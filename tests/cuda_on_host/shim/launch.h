// A kernel launch: DIBR_LAUNCH calls configure(...)(arguments...), which mirrors kernel<<<...>>>(arguments...).
// Launches are synchronous, whatever the stream.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>

#include "counters.h"
#include "order.h"
#include "runtime_api.h"
#include "shared_memory.h"
#include "worker.h"

namespace cuda_on_host {

template <class T>
T* dynamic_shared_memory() {
  static_assert(alignof(T) <= 16, "dynamic shared memory is aligned to 16 bytes");
  return static_cast<T*>(current_worker->dynamic_shared());
}

struct LaunchConfiguration {
  dim3 grid;
  dim3 block;
  size_t shared_bytes;

  size_t block_count() const { return size_t(grid.x) * grid.y * grid.z; }
  uint3 block_index(size_t number) const {
    return {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
  }
  bool fits_a_device() const {
    return block.x && block.y && block.z <= 64 && size_t(block.x) * block.y * block.z - 1 < kMaxThreadsPerBlock &&
           grid.x - 1 < 0x7FFFFFFFu && grid.y - 1 < 65535u && grid.z - 1 < 65535u;
  }
};

// A block's dynamic shared memory: poisoned, and no larger than asked for, so that AddressSanitizer knows its end.
class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) {
    if (bytes && posix_memalign(&memory_, 16, bytes) != 0) std::abort();
    poison(memory_, bytes);
  }
  ~DynamicShared() { std::free(memory_); }
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

#if defined(CUDA_ON_HOST_MT)
// Workers between launches: their stacks are costly to make, above all under ThreadSanitizer.
class WorkerPool {
 public:
  static WorkerPool& instance() {
    static WorkerPool pool;
    return pool;
  }
  std::unique_ptr<Worker> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.empty()) return std::make_unique<Worker>();
    std::unique_ptr<Worker> worker = std::move(idle_.back());
    idle_.pop_back();
    return worker;
  }
  void give_back(std::unique_ptr<Worker> worker) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(worker));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
};
#endif

struct Launch {
  LaunchConfiguration configuration;
  LaunchBody body;
  const SharedVariables& shared_variables;
  Order order;
  std::vector<unsigned> block_order;

  // Runs every `step`-th block from position `first` of the order, on the calling thread.
  void run_blocks(Worker& worker, size_t first, size_t step) {
    Counters counters;
    current_worker = &worker;
    current_counters = &counters;
    gridDim = configuration.grid;
    blockDim = configuration.block;
    const std::vector<Span> static_shared = shared_variables.spans();
    for (size_t position = first; position < block_order.size(); position += step) {
      const unsigned number = block_order[position];
      blockIdx = configuration.block_index(number);
      for (const Span& span : static_shared) poison(span.memory, span.bytes);
      const DynamicShared dynamic_shared(configuration.shared_bytes);
      worker.run_block(body, order, number + 1, dynamic_shared.get());
      ++counters.blocks;
    }
    counters.threads = counters.blocks * configuration.block.x * configuration.block.y * configuration.block.z;
    counters.launches = first == 0;
    CounterRegistry::instance().add(body.kernel, counters);
    current_worker = nullptr;
  }

#if defined(CUDA_ON_HOST_MT)
  void run() {
    const size_t count = std::min(worker_count(), block_order.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < count; ++i) {
      threads.emplace_back([this, i, count] {
        std::unique_ptr<Worker> worker = WorkerPool::instance().take();
        run_blocks(*worker, i, count);
        WorkerPool::instance().give_back(std::move(worker));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // Four by default: races between blocks show reliably with that many.
  static size_t worker_count() {
    const char* const name = "CUDA_ON_HOST_WORKERS";
    const char* const value = std::getenv(name);
    if (!value || !*value) return 4;
    return parse_number(name, "a number above 0", value, value, 1);
  }
#else
  // Launches from several threads of the caller run in turn: shared memory and the index variables are plain globals
  // here.
  void run() {
    static std::mutex mutex;
    static Worker worker;
    const std::lock_guard<std::mutex> lock(mutex);
    run_blocks(worker, 0, 1);
  }
#endif
};

template <class... Parameters>
class ConfiguredKernel {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                "kernel parameters are copied to the device as bytes");
  static_assert((!std::is_reference_v<Parameters> && ...), "a kernel parameter cannot be a reference");
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "kernel parameters take at most 4096 bytes");

 public:
  ConfiguredKernel(std::string name, void (*kernel)(Parameters...), LaunchConfiguration configuration)
      : name_(std::move(name)), kernel_(kernel), configuration_(configuration) {}

  void operator()(Parameters... parameters) const {
    if (const cudaError_t error = check(); error != cudaSuccess) return set_last_error(error);
    const Closure closure = {kernel_, {parameters...}};
    const LaunchBody body = {run_thread, &closure, name_.c_str()};
    Launch launch = {configuration_, body, SharedVariables::beside(address()), order_from_environment(), {}};
    launch.block_order.resize(configuration_.block_count());
    fill_order(launch.order, 0, launch.block_order.data(), launch.block_order.size());
    launch.run();
  }

 private:
  struct Closure {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  };

  const void* address() const { return reinterpret_cast<const void*>(kernel_); }

  cudaError_t check() const {
    if (!configuration_.fits_a_device()) return cudaErrorInvalidConfiguration;
    return configuration_.shared_bytes > max_dynamic_shared_bytes(address()) ? cudaErrorInvalidValue : cudaSuccess;
  }

  static void run_thread(const void* arguments) {
    const Closure& closure = *static_cast<const Closure*>(arguments);
    std::apply(closure.kernel, closure.parameters);
  }

  std::string name_;
  void (*kernel_)(Parameters...);
  LaunchConfiguration configuration_;
};

// The kernel's spelling without the parentheses that keep a macro from splitting template arguments.
inline std::string kernel_name(const char* spelling) {
  std::string name = spelling;
  if (name.size() > 2 && name.front() == '(' && name.back() == ')') name = name.substr(1, name.size() - 2);
  return name;
}

template <class... Parameters>
ConfiguredKernel<Parameters...> configure(const char* spelling, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                          size_t shared_bytes, cudaStream_t stream) {
  require_stream(spelling, stream);
  return {kernel_name(spelling), kernel, {grid, block, shared_bytes}};
}

}  // namespace cuda_on_host
