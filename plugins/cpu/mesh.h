// Topology as the ops see it: which faces belong to an image, and the checks that keep every index in range.
#pragma once

#include "abi/error.h"
#include "cpu/parallel.h"

namespace dibr::cpu {

struct FaceRange {
  int64_t start, count;
};

template <class P>
FaceRange faces_of(const P& p, int64_t image) {
  if (p.face_ranges == nullptr) return {0, p.faces};
  return {p.face_ranges[2 * image], p.face_ranges[2 * image + 1]};
}

template <class P>
dibr_status check_faces(const char* op, const P& p, const dibr_launch& launch) {
  constexpr int64_t kBlock = 1 << 16;
  LowestFault fault;
  const int64_t count = 3 * p.faces;
  parallel_for(launch, (count + kBlock - 1) / kBlock, [&](int64_t block) {
    for (int64_t i = block * kBlock; i < std::min(count, (block + 1) * kBlock); ++i) {
      if (p.face_indices[i] < 0 || p.face_indices[i] >= p.vertices) return fault.report(i);
    }
  });
  if (!fault.found()) return DIBR_OK;
  const long long i = fault.position();
  return fail(DIBR_INVALID_ARGUMENT, "%s: faces[%lld, %lld] = %d is out of range for %lld vertices", op, i / 3, i % 3,
              p.face_indices[i], static_cast<long long>(p.vertices));
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

template <class P>
dibr_status check_face_index(const char* op, const P& p, const dibr_launch& launch) {
  LowestFault fault;
  parallel_for(launch, p.batch * p.height, [&](int64_t row) {
    for (int64_t i = row * p.width; i < (row + 1) * p.width; ++i) {
      if (p.face_index[i] < -1 || p.face_index[i] >= p.faces) return fault.report(i);
    }
  });
  if (!fault.found()) return DIBR_OK;
  const long long i = fault.position(), w = p.width, h = p.height;
  return fail(DIBR_INVALID_ARGUMENT, "%s: face_index[%lld, %lld, %lld] = %d is out of range for %lld faces", op,
              i / (w * h), i / w % h, i % w, p.face_index[i], static_cast<long long>(p.faces));
}

}  // namespace dibr::cpu
