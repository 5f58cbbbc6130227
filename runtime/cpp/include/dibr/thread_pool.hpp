// Threads for libdibr, which has none of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "dibr/dibr.h"

namespace dibr {

// Runs the tasks of any number of callers at the same time; the calling thread always helps.
class ThreadPool {
 public:
  // threads: that work on one call, the calling one included; 0 = one per core.
  explicit ThreadPool(int threads = 0) {
    const unsigned cores = std::thread::hardware_concurrency();
    const int wanted = threads > 0 ? threads : static_cast<int>(cores > 0 ? cores : 1);
    try {
      while (size() < wanted) workers_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { stop(); }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(task_state, i) once for every i in [0, count), and returns when all are done.
  void parallel_for(std::int64_t count, dibr_task task, void* task_state) {
    if (workers_.empty() || count <= 1) {
      for (std::int64_t i = 0; i < count; ++i) task(task_state, i);
      return;
    }
    Job job{count, task, task_state};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      jobs_.push_back(&job);
    }
    job_waits_.notify_all();
    job.run();
    std::unique_lock<std::mutex> lock(mutex_);
    forget(&job);
    job_left_.wait(lock, [&] { return job.helpers == 0; });
  }

  // A dibr_parallel_for whose state is a ThreadPool*.
  static void callback(void* pool, std::int64_t count, dibr_task task, void* task_state) {
    static_cast<ThreadPool*>(pool)->parallel_for(count, task, task_state);
  }

 private:
  struct Job {
    const std::int64_t count;
    const dibr_task task;
    void* const task_state;
    int helpers = 0;  // workers inside of run(), under the pool's mutex
    std::atomic<std::int64_t> next{0};

    Job(std::int64_t count, dibr_task task, void* task_state) : count(count), task(task), task_state(task_state) {}
    void run() {
      for (std::int64_t i = next++; i < count; i = next++) task(task_state, i);
    }
  };

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      job_waits_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      Job* job = jobs_.front();
      ++job->helpers;
      lock.unlock();
      job->run();
      lock.lock();
      forget(job);  // nothing of it is left to begin
      if (--job->helpers == 0) job_left_.notify_all();
    }
  }

  void forget(Job* job) {
    for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
      if (*it == job) {
        jobs_.erase(it);
        return;
      }
    }
  }

  void stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    job_waits_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  std::mutex mutex_;
  std::condition_variable job_waits_, job_left_;
  std::deque<Job*> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace dibr
