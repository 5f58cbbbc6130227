// What each kernel did, for lower bounds of its cost on a device. Read with counters(), or set
// CUDA_ON_HOST_COUNTERS=FILE to have them written as JSON when the process ends.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "qualifiers.h"

namespace cuda_on_host {

struct Counters {
  uint64_t launches = 0;
  uint64_t blocks = 0;
  uint64_t threads = 0;
  uint64_t barriers = 0;         // of a whole block
  uint64_t warp_operations = 0;  // of all lanes of a mask together
  uint64_t atomics = 0;          // of one thread
  uint64_t bytes_loaded = 0;     // through __ldg, and what helpers report with count_load()
  uint64_t bytes_stored = 0;     // through __stcs, and what helpers report with count_store()

  void add(const Counters& other) {
    launches += other.launches;
    blocks += other.blocks;
    threads += other.threads;
    barriers += other.barriers;
    warp_operations += other.warp_operations;
    atomics += other.atomics;
    bytes_loaded += other.bytes_loaded;
    bytes_stored += other.bytes_stored;
  }
};

// Keyed by the kernel as its launch spells it, without the parentheses.
using CountersByKernel = std::map<std::string, Counters>;

class CounterRegistry {
 public:
  static CounterRegistry& instance() {
    static CounterRegistry registry;
    return registry;
  }
  ~CounterRegistry() {
    if (const char* path = std::getenv("CUDA_ON_HOST_COUNTERS"); path && *path) write(path);
  }

  void add(const std::string& kernel, const Counters& counters) {
    const std::lock_guard<std::mutex> lock(mutex_);
    by_kernel_[kernel].add(counters);
  }
  CountersByKernel snapshot() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return by_kernel_;
  }
  void reset() {
    const std::lock_guard<std::mutex> lock(mutex_);
    by_kernel_.clear();
  }

 private:
  void write(const std::string& path) {
    const std::string temporary = path + ".tmp";
    std::FILE* const file = std::fopen(temporary.c_str(), "w");
    if (!file) return std::perror(("cuda_on_host: cannot write CUDA_ON_HOST_COUNTERS=" + path).c_str());
    const char* separator = "{";
    for (const auto& [kernel, c] : by_kernel_) {
      std::fprintf(file,
                   "%s\n  \"%s\": {\"launches\": %" PRIu64 ", \"blocks\": %" PRIu64 ", \"threads\": %" PRIu64
                   ", \"barriers\": %" PRIu64 ", \"warp_operations\": %" PRIu64 ", \"atomics\": %" PRIu64
                   ", \"bytes_loaded\": %" PRIu64 ", \"bytes_stored\": %" PRIu64 "}",
                   separator, kernel.c_str(), c.launches, c.blocks, c.threads, c.barriers, c.warp_operations, c.atomics,
                   c.bytes_loaded, c.bytes_stored);
      separator = ",";
    }
    std::fprintf(file, "%s\n}\n", by_kernel_.empty() ? "{" : "");
    if (std::fclose(file) != 0 || std::rename(temporary.c_str(), path.c_str()) != 0)
      std::perror(("cuda_on_host: cannot write CUDA_ON_HOST_COUNTERS=" + path).c_str());
  }

  std::mutex mutex_;
  CountersByKernel by_kernel_;
};

inline CountersByKernel counters() { return CounterRegistry::instance().snapshot(); }
inline void reset_counters() { CounterRegistry::instance().reset(); }

// Those of the launch that this worker is running; the worker adds them to the registry at its end.
inline CUDA_ON_HOST_PER_WORKER Counters* current_counters = nullptr;

CUDA_ON_HOST_UNSANITIZED inline void count_load(size_t bytes) { current_counters->bytes_loaded += bytes; }
CUDA_ON_HOST_UNSANITIZED inline void count_store(size_t bytes) { current_counters->bytes_stored += bytes; }
CUDA_ON_HOST_UNSANITIZED inline void count_atomic() { ++current_counters->atomics; }

}  // namespace cuda_on_host
