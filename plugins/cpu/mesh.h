// Topology as the ops see it: which faces belong to an image, and the checks that keep every index in range.
#pragma once

#include "abi/error.h"
#include "cpu/parallel.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

struct FaceRange {
  int64_t start, count;
};

template <class P>
FaceRange faces_of(const P& p, int64_t image) {
  if (p.face_ranges == nullptr) return {0, p.faces};
  return {p.face_ranges[2 * image], p.face_ranges[2 * image + 1]};
}

// A launch that is done before another thread has woken up and fetched what it needs is the caller's alone: below some
// 80 us, which follows from its pixels and faces.
template <class P>
dibr_launch alone_if_small(const P& p, dibr_launch launch) {
  constexpr int64_t kPixelsOfFace = 16, kPixels = 40000;
  if (p.batch * (p.height * p.width + kPixelsOfFace * p.faces) <= kPixels) launch.parallel_for = nullptr;
  return launch;
}

// The phase that finds the first of values[0, count) outside of [lowest, highest], where lowest is 0 or -1. The
// first loop has no way out and no truth values, so that the compiler makes vectors of it: a difference is negative
// where a value is outside.
inline auto find_fault(const int32_t* values, int64_t count, int32_t lowest, int64_t highest, LowestFault& fault) {
  const uint32_t low = uint32_t(lowest), high = uint32_t(highest);
  return phase_of_blocks(count, 1 << 14, [=, &fault](int64_t begin, int64_t end) {
    uint32_t signs = 0;
    for (int64_t i = begin; i < end; ++i) signs |= (uint32_t(values[i]) - low) | (high - uint32_t(values[i]));
    if (int32_t(signs) >= 0) return;
    for (int64_t i = begin; i < end; ++i) {
      if (values[i] < lowest || values[i] > highest) return fault.report(i);
    }
  });
}

// Finds the first corner of `faces` faces that is no vertex; `name` is that of face_indices.
class CornerCheck {
 public:
  CornerCheck(const char* op, const char* name, const int32_t* face_indices, int64_t faces, int64_t vertices)
      : op_(op), name_(name), face_indices_(face_indices), faces_(faces), vertices_(vertices) {}
  template <class P>
  CornerCheck(const char* op, const P& p) : CornerCheck(op, "faces", p.face_indices, p.faces, p.vertices) {}

  auto phase() { return find_fault(face_indices_, 3 * faces_, 0, vertices_ - 1, fault_); }
  bool found() const { return fault_.found(); }
  // The error, if there is one.
  dibr_status status() const {
    if (!found()) return DIBR_OK;
    const long long i = fault_.position();
    return fail(DIBR_INVALID_ARGUMENT, "%s: %s[%lld, %lld] = %d is out of range for %lld vertices", op_, name_, i / 3,
                i % 3, face_indices_[i], static_cast<long long>(vertices_));
  }

 private:
  const char *op_, *name_;
  const int32_t* face_indices_;
  int64_t faces_, vertices_;
  LowestFault fault_;
};

template <class P>
dibr_status check_faces(const char* op, const P& p, const dibr_launch& launch) {
  CornerCheck corners(op, p);
  run_phase(launch, corners.phase());
  return corners.status();
}

template <class P>
dibr_status check_face_ranges(const char* op, const P& p) {
  for (int64_t b = 0; p.face_ranges != nullptr && b < p.batch; ++b) {
    const FaceRange range = faces_of(p, b);
    if (range.start < 0 || range.count < 0 || range.start + range.count > p.faces) {
      return fail(DIBR_INVALID_ARGUMENT,
                  "%s: face_ranges[%lld] = (start %lld, count %lld) is out of range for %lld faces", op,
                  static_cast<long long>(b), static_cast<long long>(range.start), static_cast<long long>(range.count),
                  static_cast<long long>(p.faces));
    }
  }
  return DIBR_OK;
}

// The error for the lowest pixel whose face_index is out of range, if there is one.
template <class P>
dibr_status face_index_status(const char* op, const P& p, const LowestFault& fault) {
  if (!fault.found()) return DIBR_OK;
  const long long i = fault.position(), w = p.width, h = p.height;
  return fail(DIBR_INVALID_ARGUMENT, "%s: face_index[%lld, %lld, %lld] = %d is out of range for %lld faces", op,
              i / (w * h), i / w % h, i % w, p.face_index[i], static_cast<long long>(p.faces));
}

template <class P>
dibr_status check_face_index(const char* op, const P& p, const dibr_launch& launch) {
  LowestFault fault;
  run_phase(launch, find_fault(p.face_index, p.batch * p.height * p.width, -1, p.faces - 1, fault));
  return face_index_status(op, p, fault);
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
