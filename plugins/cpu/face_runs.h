// Walks an image by runs: neighbouring pixels of a row that show the same face. What is summed over a face's pixels is
// kept for a while, since the rows below show it too, before it is spread to the vertices.
#pragma once

#include <memory>

#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// One row of a strip: the pixels [begin, end), counted from the first image's corner, at most kWidth of them.
class StripRow {
 public:
  static constexpr int kWidth = 128;
  struct Run {
    int32_t face, offset, count;  // count pixels from begin() + offset on
  };

  // face_index has `pixels` elements in all.
  StripRow(const int32_t* face_index, int64_t pixels, int64_t begin, int64_t end, LowestFault& fault)
      : begin_(begin), end_(end) {
    for (int64_t i = begin; i < end; i += kWord) {
      // What the masks need lies before and behind these pixels too, but for the first and the last of all.
      if (i > 0 && i + kWord <= std::min(end, pixels)) {
        find_runs(face_index + i, i, fault);
      } else {
        int32_t copied[1 + kWord];
        std::fill_n(copied, 1 + kWord, -1);
        std::copy(face_index + i, face_index + std::min(end, i + kWord), copied + 1);
        find_runs(copied + 1, i, fault);
      }
    }
  }

  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  bool is_covered() const { return covered_ == end_ - begin_; }  // everywhere
  const Run* runs() const { return runs_; }
  int count() const { return count_; }

 private:
  static constexpr int kWord = 64;

  // What holds for pixels i is bit i.
  struct Masks {
    uint64_t covered = 0, repeats = 0;  // the pixel before shows the same
    bool invalid = false;
  };

  static Masks masks_of(const int32_t* face_index) {
    using Lanes = Pack<int32_t>;
    Masks out;
    for (int i = 0; i < kWord; i += Lanes::kLanes) {
      const Lanes here = Lanes::load(face_index + i);
      out.covered |= uint64_t((here >= Lanes(0)).lanes()) << i;
      out.repeats |= uint64_t((here == Lanes::load(face_index + i - 1)).lanes()) << i;
      out.invalid = out.invalid || (here < Lanes(-1)).any();
    }
    return out;
  }

  // Of kWord pixels, the first of which is pixel `begin`.
  void find_runs(const int32_t* face_index, int64_t begin, LowestFault& fault) {
    const Masks masks = masks_of(face_index);
    if (masks.invalid) report(face_index, begin, fault);
    covered_ += __builtin_popcountll(masks.covered);
    const uint64_t starts = ~masks.repeats | 1;
    for (uint64_t left = starts & masks.covered; left != 0; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      const int count = 1 + __builtin_ctzll(starts >> i >> 1 | uint64_t(1) << (kWord - 1 - i));
      runs_[count_++] = {face_index[i], int32_t(begin - begin_) + i, count};
    }
  }

  static void report(const int32_t* face_index, int64_t begin, LowestFault& fault) {
    for (int i = 0; i < kWord; ++i) {
      if (face_index[i] < -1) return fault.report(begin + i);
    }
  }

  int64_t begin_, end_;
  int64_t covered_ = 0;
  int count_ = 0;
  Run runs_[kWidth];
};

// Element i of an array, or one behind it, will be asked for soon.
template <class T>
DIBR_HD void prefetch(const T* array, int64_t i) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(array) + uintptr_t(i) * sizeof(T)));
}

// Calls visit(row) with a StripRow for all that the rows from first_row on, before last_row, consist of. Strips are
// narrow enough for the faces of one row to be remembered at the next. A negative index that is not -1 is reported.
// The next row of a strip lies too far away for the processor to foresee.
template <class Visit>
void for_each_strip_row(const int32_t* face_index, int64_t pixels, int64_t width, int64_t first_row, int64_t last_row,
                        LowestFault& fault, const Visit& visit) {
  for (int64_t x = 0; x < width; x += StripRow::kWidth) {
    for (int64_t row = first_row; row < last_row; ++row) {
      const int64_t begin = row * width + x, end = row * width + std::min(x + StripRow::kWidth, width);
      for (int64_t i = begin + width; i < end + width; i += 16) prefetch(face_index, i);
      visit(StripRow(face_index, pixels, begin, end, fault));
    }
  }
}

// What is known about the faces met last. Which are forgotten, and when, follows from the order of the faces alone.
template <class Known>
class RecentFaces {
 public:
  // This thread's, empty between calls; made at the first one.
  static RecentFaces& of_thread() {
    static thread_local const std::unique_ptr<RecentFaces> own(new RecentFaces);
    return *own;
  }

  // Those of a face; where they are new, end(face, known) sees off the ones in their place, and start(known) makes
  // them.
  template <class Start, class End>
  Known& of(int32_t face, const Start& start, const End& end) {
    Slot& slot = slots_[size_t(face) % kSlots];
    if (__builtin_expect(slot.face != face, 0)) {
      if (slot.face >= 0) end(slot.face, slot.known);
      slot.face = face;
      start(slot.known);
    }
    return slot.known;
  }
  template <class End>
  void forget_all(const End& end) {
    for (Slot& slot : slots_) {
      if (slot.face >= 0) end(slot.face, slot.known);
      slot.face = -1;
    }
  }

 private:
  static constexpr size_t kSlots = 512;
  struct Slot {
    Known known;
    int32_t face = -1;
  };
  Slot slots_[kSlots];
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
