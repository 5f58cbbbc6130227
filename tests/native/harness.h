// What the native tests need: expectations that are counted, thread pools of any size, and runs of the C ABI.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dibr/dibr.h"

namespace dibr::test {

inline int expectations = 0;
inline int failures = 0;

inline bool expect(bool holds, const std::string& what) {
  ++expectations;
  if (!holds) {
    ++failures;
    std::printf("FAILED: %s\n", what.c_str());
  }
  return holds;
}

// A dibr_parallel_for on that many threads, which take tasks as they get free; or the calling thread alone, from the
// last task to the first.
struct Threads {
  int count = 1;
  bool backwards = false;

  static void parallel_for(void* self, int64_t count, dibr_task task, void* task_state) {
    if (static_cast<Threads*>(self)->backwards) {
      for (int64_t i = count; i-- > 0;) task(task_state, i);
      return;
    }
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      for (int64_t i = next++; i < count; i = next++) task(task_state, i);
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < static_cast<Threads*>(self)->count; ++t) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
  }
};

// Memory of exactly this many bytes, so that the address sanitizer sees the first byte past its end.
class Bytes {
 public:
  Bytes(uint64_t size, unsigned char fill) : size_(size), data_(size > 0 ? std::malloc(size) : nullptr, std::free) {
    if (size_ > 0) std::memset(data_.get(), fill, size_);
  }
  void* data() const { return data_.get(); }
  uint64_t size() const { return size_; }
  bool operator==(const Bytes& other) const {
    return size_ == other.size_ && (size_ == 0 || std::memcmp(data(), other.data(), size_) == 0);
  }

 private:
  uint64_t size_;
  std::unique_ptr<void, void (*)(void*)> data_;
};

// Runs one op with a workspace of exactly the size it asks for; `left` receives the workspace as the op leaves it.
template <class Params>
dibr_status run(const Params& params, dibr_status (*workspace_size)(const Params*, dibr_device, uint64_t*),
                dibr_status (*op)(const Params*, const dibr_launch*), Threads threads, unsigned char fill = 0xA5,
                Bytes* left = nullptr) {
  uint64_t bytes = 0;
  const dibr_status measured = workspace_size(&params, DIBR_CPU, &bytes);
  if (measured != DIBR_OK) return measured;
  Bytes workspace(bytes, fill);
  dibr_launch launch{};
  launch.device = DIBR_CPU;
  launch.parallel_for = threads.count > 1 || threads.backwards ? Threads::parallel_for : nullptr;
  launch.parallel_for_state = &threads;
  launch.workspace = workspace.data();
  launch.workspace_bytes = workspace.size();
  const dibr_status status = op(&params, &launch);
  if (left != nullptr) *left = std::move(workspace);
  return status;
}

void test_ordinary();
void test_degenerate();
void test_bad_input();
// A line for each output of the scenes of the first two: a digest of its bytes, and what it is.
void print_digests();

}  // namespace dibr::test
