// The vertices of a SoftMask on the screen, each computed once for all faces around it: where it is, and what pixels
// the enlarged boxes reach because of it.
#pragma once

#include <algorithm>
#include <cstring>

#include "abi/arena.h"
#include "core/soft_mask.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// The pixels that an enlarged box can contain the centres of: -first column, -first row, last column, last row, clamped
// to the image. So boxes unite by the larger of each; a box beside the image ends before it begins.
struct MaskReach {
  int16_t v[4];

  // What a vertex has around which no face takes part: none does whose box begins at column -1.
  static constexpr MaskReach none() { return {{1, 0, 0, 0}}; }

  int x0() const { return -v[0]; }
  int y0() const { return -v[1]; }
  int x1() const { return v[2]; }
  int y1() const { return v[3]; }
  bool meets(const MaskReach& b) const {
#if defined(__SSE2__)
    const __m128i own = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(v));
    const __m128i other = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.v));
    // Sides are at most 32768: no sum overflows.
    return (_mm_movemask_epi8(_mm_add_epi16(own, _mm_shuffle_epi32(other, 0xe1))) & 0xaa) == 0;
#else
    return ((v[0] + b.v[2]) | (v[1] + b.v[3]) | (v[2] + b.v[0]) | (v[3] + b.v[1])) >= 0;
#endif
  }
};

// Bit i: box i of sixteen meets the other one.
inline unsigned meeting_boxes(const MaskReach* boxes, const MaskReach& other) {
#if defined(__AVX2__)
  // Four numbers of 16 bits side by side: no sum of a box that meets the other has its sign set.
  const MaskReach swapped = {{other.v[2], other.v[3], other.v[0], other.v[1]}};
  long long ends;
  static_assert(sizeof ends == sizeof swapped);
  std::memcpy(&ends, swapped.v, sizeof ends);
  constexpr long long kSigns = -0x7fff7fff7fff8000ll;
#endif
  unsigned bits = 0;
#if defined(__AVX512F__)
  for (int i = 0; i < 16; i += 8) {
    const __m512i sums = _mm512_add_epi16(_mm512_loadu_si512(boxes + i), _mm512_set1_epi64(ends));
    bits |= unsigned(_mm512_testn_epi64_mask(sums, _mm512_set1_epi64(kSigns))) << i;
  }
#elif defined(__AVX2__)
  for (int i = 0; i < 16; i += 4) {
    const __m256i own = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(boxes + i));
    const __m256i signs = _mm256_and_si256(_mm256_add_epi16(own, _mm256_set1_epi64x(ends)), _mm256_set1_epi64x(kSigns));
    const __m256i are_none = _mm256_cmpeq_epi64(signs, _mm256_setzero_si256());
    bits |= unsigned(_mm256_movemask_pd(_mm256_castsi256_pd(are_none))) << i;
  }
#else
  for (int i = 0; i < 16; ++i) bits |= unsigned(boxes[i].meets(other)) << i;
#endif
  return bits;
}

// The union of some.
class UnitedReach {
 public:
#if defined(__SSE2__)
  explicit UnitedReach(const MaskReach& first) : v_(load(first)) {}
  void include(const MaskReach& other) { v_ = _mm_max_epi16(v_, load(other)); }
  MaskReach get() const {
    MaskReach out;
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out.v), v_);
    return out;
  }

 private:
  static __m128i load(const MaskReach& reach) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(reach.v)); }

  __m128i v_;
#else
  explicit UnitedReach(const MaskReach& first) : all_(first) {}
  void include(const MaskReach& other) {
    for (int k = 0; k < 4; ++k) all_.v[k] = std::max(all_.v[k], other.v[k]);
  }
  MaskReach get() const { return all_; }

 private:
  MaskReach all_;
#endif
};

// The reach of a face, from those of its vertices.
inline MaskReach reach_of_face(const MaskReach* reaches, const int32_t* vertices) {
  UnitedReach out(reaches[vertices[0]]);
  out.include(reaches[vertices[1]]);
  out.include(reaches[vertices[2]]);
  return out.get();
}

template <class T>
class MaskVertices {
 public:
  MaskVertices(int64_t batch, int64_t vertices, int64_t height, int64_t width, Arena& arena) : vertices_(vertices) {
    points_ = arena.take<T>(batch * vertices * 2);
    reaches_ = arena.take<MaskReach>(batch * vertices);
    sides_[0] = T(width);
    sides_[1] = T(height);
  }

  // Of one image.
  const T* points(int64_t image) const { return points_ + image * vertices_ * 2; }        // [V, 2]: x and y in NDC
  const MaskReach* reaches(int64_t image) const { return reaches_ + image * vertices_; }  // [V]

  // Places the vertices [begin, end) of all images. positions [B, V, 4].
  void place(const T* positions, T boxlen, int64_t begin, int64_t end) const {
    const Scale scale(sides_, boxlen);
    for (int64_t i = begin; i < end; i += kEight) {
      place_eight(positions + 4 * i, scale, int(std::min<int64_t>(end - i, kEight)), points_ + 2 * i, reaches_ + i);
    }
  }

 private:
  // A MaskReach from a vertex, twice: v = clamp(factor * (x, y, x, y) + offset), rounded down. All is higher by the
  // image's side, so that nothing is negative.
  struct Scale {
    T factor[kEight], offset[kEight], least[kEight], most[kEight];
    int32_t side[kEight];

    Scale(const T* sides, T boxlen) {
      // A twentieth of a pixel is far more than rounding can do to the border of a box in the image.
      const T margin = T(0.05), half = T(0.5);
      for (int lane = 0; lane < kEight; ++lane) {
        const bool is_y = lane % 2 == 1, is_first = lane % 4 < 2;
        const T s = sides[is_y];
        // Rows run down. A centre's place is ((1 +- n) * side - 1) / 2; that of a first pixel is negated.
        factor[lane] = half * s * (is_y != is_first ? T(-1) : T(1));
        offset[lane] = half * ((is_first ? boxlen - T(1) : boxlen + T(1)) * s + (is_first ? T(1) : T(-1))) + margin + s;
        least[lane] = is_first ? T(0) : s - T(1);
        most[lane] = is_first ? s : s + s - T(1);
        side[lane] = int32_t(s);
      }
    }
  };

  void place_eight(const T* positions, const Scale& scale, int count, T* points, MaskReach* reaches) const {
    if (count < kEight) return place_few(positions, scale, count, points, reaches);
    Eight<T> x, y, z, w;
    load_fours(positions, &x, &y, &z, &w);
    const LaneFlags<T, kEight> placed = project_mask_vertex<T>(x, y, z, w, &x, &y);
    store_pairs(keep(placed, x), keep(placed, y), points);
    for (int i = 0; i < kEight; i += 2) {
      const Eight<T> v = load_pairs_twice(points + 2 * i) * Eight<T>::load(scale.factor) + Eight<T>::load(scale.offset);
      store_rounded_down(minimum(maximum(v, Eight<T>::load(scale.least)), Eight<T>::load(scale.most)), scale.side,
                         reaches[i].v);
    }
    for (unsigned bits = placed.bits() ^ 0xff; bits != 0; bits &= bits - 1) {
      reaches[__builtin_ctz(bits)] = MaskReach::none();
    }
  }

  void place_few(const T* positions, const Scale& scale, int count, T* points, MaskReach* reaches) const {
    T in[4 * kEight] = {}, out[2 * kEight];
    MaskReach out_reaches[kEight];
    std::copy_n(positions, 4 * count, in);
    place_eight(in, scale, kEight, out, out_reaches);
    std::copy_n(out, 2 * count, points);
    std::copy_n(out_reaches, count, reaches);
  }

  int64_t vertices_;
  T sides_[2];          // width, height
  T* points_;           // [B, V, 2]
  MaskReach* reaches_;  // [B, V]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
