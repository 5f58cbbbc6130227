// Vertices on the screen, each computed once for all faces around it: what a face's box and direction follow from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

#include "abi/arena.h"
#include "core/rasterize.h"
#include "cpu/bins.h"
#include "cpu/lanes.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// A face is the slow case, to be looked at with raster_box, where a vertex of it is not finite, in front of the near
// plane, far outside of the image, or has w below kLeastW: then column is NaN.
struct ScreenVertex {
  float column, row;
  int16_t reach[4];  // -first column, -first row, last column, last row, clamped to the image

  static constexpr double kLeastW = 1e-4;
  static constexpr double kFarthest = 1e6;
};

// Places eight vertices on the screen, with the numbers of each in a lane. Four integers of 16 bits are a vertex's
// reach, rounded down: a first pixel is negated, and -ceil(v) = floor(-v).
template <class T>
void place_eight(const T* positions, bool depth_clip, double height, double width, ScreenVertex* out) {
  using N = Eight<double>;
  Eight<T> in[4];
  load_fours(positions, &in[0], &in[1], &in[2], &in[3]);
  const N x = converted<double>(in[0]), y = converted<double>(in[1]), z = converted<double>(in[2]);
  const N w = converted<double>(in[3]), zero = 0.0;
  const N column = column_of(x / w, N(width)), row = row_of(y / w, N(height));
  const N most = double(Limits<T>::max_coordinate), farthest = ScreenVertex::kFarthest;
  LaneFlags<double, kEight> placed = (absolute(x) <= most) & (absolute(y) <= most) & (absolute(z) <= most) &
                                     (w <= most) & (N(ScreenVertex::kLeastW) <= w) & (absolute(column) <= farthest) &
                                     (absolute(row) <= farthest);
  if (depth_clip) placed = placed & (zero <= z + w);
  const auto pixel = [](N v, double least, double greatest)
                         DIBR_INLINE_LAMBDA { return floor_in_low_bits(minimum(maximum(v, N(least)), N(greatest))); };
  const N margin = kPixelMargin;
  const N reach = low_shorts(pixel(margin - column, -width, 0.0), pixel(margin - row, -height, 0.0),
                             pixel(column + margin, -1.0, width - 1.0), pixel(row + margin, -1.0, height - 1.0));
  float columns[kEight], rows[kEight];
  double reaches[kEight];
  converted<float>(select(placed, column, N(std::numeric_limits<double>::quiet_NaN()))).store(columns);
  converted<float>(keep(placed, row)).store(rows);
  keep(placed, reach).store(reaches);
  for (int i = 0; i < kEight; ++i) {
    out[i].column = columns[i];
    out[i].row = rows[i];
    std::memcpy(out[i].reach, &reaches[i], sizeof out[i].reach);
  }
}
template <class T>
void place_few(const T* positions, int count, bool depth_clip, double height, double width, ScreenVertex* out) {
  T in[4 * kEight] = {};
  ScreenVertex placed[kEight];
  std::copy_n(positions, 4 * count, in);
  place_eight(in, depth_clip, height, width, placed);
  std::copy_n(placed, count, out);
}

// Which of eight faces have an area beyond all rounding, by the direction that they face: then it is face_sign(t,
// false). Bit i is that of face i.
struct ClearSigns {
  unsigned front, back;
};
// Twice the area in pixels is compared with a bound of its error in float, and with what min_determinant is at kLeastW
// in the largest image.
inline ClearSigns clear_signs(const ScreenVertex* screen, const int32_t* corners) {
  using N = Eight<float>;
  N column[3], row[3];
  for (int k = 0; k < 3; ++k) {
    load_pairs([&](int i) DIBR_INLINE_LAMBDA { return &screen[corners[3 * i + k]].column; }, &column[k], &row[k]);
  }
  const N x1 = column[1] - column[0], y1 = row[1] - row[0], x2 = column[2] - column[0], y2 = row[2] - row[0];
  const N area = x2 * y1 - x1 * y2;  // rows run down
  const N size = absolute(x1) + absolute(y1) + absolute(x2) + absolute(y2);
  const N reach = absolute(column[0]) + absolute(row[0]) + N(2.0f) * size;
  const N error = N(1e-6f) * size * reach + N(1e-5f);
  return {(error < area).bits(), (area < -error).bits()};
}

// raster_box as a union of what the vertices reach: rounding keeps order, so the numbers are the same. False where it
// is empty.
inline bool box_around(const ScreenVertex& a, const ScreenVertex& b, const ScreenVertex& c, int sign, FaceBox* out) {
#if defined(__SSE2__)
  out->sign = int16_t(sign);
  static_assert(offsetof(FaceBox, sign) == 4 * sizeof(int16_t));
  const auto load = [](const ScreenVertex& v) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(v.reach)); };
  const __m128i reach = _mm_max_epi16(_mm_max_epi16(load(a), load(b)), load(c)), first = _mm_cvtsi32_si128(-1);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_sub_epi16(_mm_xor_si128(reach, first), first));
  // Last pixels less first ones, which may be -32769: saturated.
  const __m128i extent = _mm_adds_epi16(reach, _mm_shuffle_epi32(reach, 0xe1));
  return (_mm_movemask_epi8(extent) & 0xa) == 0;
#else
  int16_t reach[4];
  for (int k = 0; k < 4; ++k) reach[k] = std::max(std::max(a.reach[k], b.reach[k]), c.reach[k]);
  *out = {int16_t(-reach[0]), int16_t(-reach[1]), reach[2], reach[3], int16_t(sign)};
  return reach[0] + reach[2] >= 0 && reach[1] + reach[3] >= 0;
#endif
}

// All vertices of a batch.
class Screen {
 public:
  Screen(int64_t batch, int64_t vertices, Arena& arena)
      : batch_(batch), vertices_(vertices), screen_(arena.take<ScreenVertex>(batch * vertices)) {}

  template <class T>
  auto project(const T* positions, bool depth_clip, int64_t height, int64_t width) const {
    return phase_of_blocks(batch_ * vertices_, 1024, [=, screen = screen_](int64_t begin, int64_t end) {
      int64_t i = begin;
      for (; i + kEight <= end; i += kEight) {
        place_eight(positions + 4 * i, depth_clip, double(height), double(width), screen + i);
      }
      if (i < end) place_few(positions + 4 * i, int(end - i), depth_clip, double(height), double(width), screen + i);
    });
  }

  const ScreenVertex* of_image(int64_t image) const { return screen_ + image * vertices_; }

 private:
  int64_t batch_, vertices_;
  ScreenVertex* screen_;  // [B, V]
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
