// Walks an image by runs: neighbouring pixels of a row that show the same face. What is summed over a face's pixels is
// kept for a while, since the rows below show it too, before it is spread to the vertices.
#pragma once

#include <memory>

#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Where the run that begins at `begin` ends.
inline int64_t run_end(const int32_t* face_index, int64_t begin, int64_t end) {
  using Lanes = Pack<int32_t>;
  const int32_t face = face_index[begin];
  int64_t i = begin + 1;
  for (; i + Lanes::kLanes <= end; i += Lanes::kLanes) {
    const uint32_t others =
        ~(Lanes::load(face_index + i) == Lanes(face)).lanes() & uint32_t((uint64_t(1) << Lanes::kLanes) - 1);
    if (others != 0) return i + __builtin_ctz(others);
  }
  while (i < end && face_index[i] == face) ++i;
  return i;
}

// Calls run(face, begin, end, limit) for every run in the rows from first_row on, before last_row, and gap(begin, end)
// for every run without a face. These count pixels from the first image's corner; what lies between end and limit comes
// next. Rows go in strips narrow enough for the faces of one row to be remembered at the next. A face out of range is
// reported, and skipped.
template <class Run, class Gap>
void for_each_run(const int32_t* face_index, int64_t faces, int64_t width, int64_t first_row, int64_t last_row,
                  LowestFault& fault, const Run& run, const Gap& gap) {
  constexpr int64_t kStrip = 128;
  for (int64_t x = 0; x < width; x += kStrip) {
    for (int64_t row = first_row; row < last_row; ++row) {
      const int64_t row_end = row * width + std::min(x + kStrip, width);
      for (int64_t begin = row * width + x, end; begin < row_end; begin = end) {
        end = run_end(face_index, begin, row_end);
        const int32_t face = face_index[begin];
        if (face >= 0 && face < faces) {
          run(face, begin, end, row_end);
          continue;
        }
        if (face != -1) fault.report(begin);
        gap(begin, end);
      }
    }
  }
}

// The sums of the faces met last, which are flushed to make room for others and in the end. Which are, and when,
// follows from the order of the faces alone.
template <class Sums>
class RecentFaces {
 public:
  // flush(face, sums)
  template <class Flush>
  void flush_all(const Flush& flush) {
    for (Slot& slot : slots_) {
      if (slot.face >= 0) flush(slot.face, slot.sums);
      slot.face = -1;
    }
  }
  // The sums of a face; start(sums) makes new ones.
  template <class Flush, class Start>
  Sums& of(int32_t face, const Flush& flush, const Start& start) {
    Slot& slot = slots_[size_t(face) % kSlots];
    if (slot.face != face) {
      if (slot.face >= 0) flush(slot.face, slot.sums);
      slot.face = face;
      start(slot.sums);
    }
    return slot.sums;
  }

 private:
  static constexpr size_t kSlots = 512;
  struct Slot {
    int32_t face = -1;
    Sums sums;
  };
  Slot slots_[kSlots];
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
