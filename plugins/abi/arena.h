// Lays arrays out in one workspace: the same calls compute its size (base = NULL) and cut it up.
#pragma once

#include <cstdint>

namespace dibr {

class Arena {
 public:
  explicit Arena(void* base = nullptr) : base_(static_cast<char*>(base)) {}

  // An array of count elements; NULL while only measuring.
  template <class T>
  T* take(int64_t count) {
    uint64_t bytes = 0;
    const uint64_t begin = used_;
    overflow_ = overflow_ || count < 0 || __builtin_mul_overflow(uint64_t(count), sizeof(T), &bytes) ||
                bytes > UINT64_MAX / 2 || __builtin_add_overflow(used_, (bytes + 15) / 16 * 16, &used_);
    return base_ == nullptr || overflow_ ? nullptr : reinterpret_cast<T*>(base_ + begin);
  }

  uint64_t used() const { return used_; }
  bool overflow() const { return overflow_; }

 private:
  char* base_;
  uint64_t used_ = 0;
  bool overflow_ = false;
};

}  // namespace dibr
