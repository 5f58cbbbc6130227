// Channels: up to four numbers for each of some pixels, each in an array of its own.
#pragma once

#include <type_traits>

#include "core/half.h"
#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

constexpr int kFewChannels = 4;
// Pixels of a short row, and how many pixels there may be, which are those of some such rows. They may be written a
// whole Pack at a time.
constexpr int kRowPixels = 32, kMostPixels = 4 * kRowPixels;
template <class T>
using Channels = T[kFewChannels][kMostPixels + Pack<T>::kLanes];

// Calls body(count) with a constant, as many channels of those that are left as are few.
template <class Body>
void with_few(int64_t left, const Body& body) {
  if (left == 1) return body(std::integral_constant<int, 1>{});
  if (left == 2) return body(std::integral_constant<int, 2>{});
  if (left == 3) return body(std::integral_constant<int, 3>{});
  body(std::integral_constant<int, kFewChannels>{});
}

// Reads kCount channels of a row where each pixel has `stride` numbers.
template <int kCount, class T>
void load_few(const T* in, int columns, int64_t stride, Channels<T>& channels) {
  if (stride == kCount) {  // a loop of its own, so that the compiler makes vectors of it
    for (int x = 0; x < columns; ++x) {
      for (int c = 0; c < kCount; ++c) channels[c][x] = in[x * kCount + c];
    }
    return;
  }
  for (int x = 0; x < columns; ++x) {
    for (int c = 0; c < kCount; ++c) channels[c][x] = in[x * stride + c];
  }
}

// Writes kCount channels of a row, from pixel `first` of them on, where each pixel has `stride` numbers.
template <int kCount, class T, class S>
void store_few(const Channels<T>& all, int first, int columns, int64_t stride, S* out) {
  const T* channels[kCount];
  for (int c = 0; c < kCount; ++c) channels[c] = all[c] + first;
  int x = 0;
  if constexpr (kCount == 3 && std::is_same_v<T, S>) {
    using N = Pack<T>;
    const auto put = [&](int i) {
      const N a = N::load(channels[0] + i), b = N::load(channels[1] + i), c = N::load(channels[2] + i);
      interleaved<0>(a, b, c).store(out + 3 * i);
      interleaved<1>(a, b, c).store(out + 3 * i + N::kLanes);
      interleaved<2>(a, b, c).store(out + 3 * i + 2 * N::kLanes);
    };
    if (stride == 3) {
      for (; x + N::kLanes <= columns; x += N::kLanes) put(x);
      // The rest, and some once more, instead of a loop whose length would be guessed.
      if (x < columns && columns >= N::kLanes) {
        put(columns - N::kLanes);
        return;
      }
    }
  } else if (stride == kCount) {  // a loop of its own, so that the compiler makes vectors of it
    for (; x < columns; ++x) {
      for (int c = 0; c < kCount; ++c) store(channels[c][x], out + x * kCount + c);
    }
  }
  for (; x < columns; ++x) {
    for (int c = 0; c < kCount; ++c) store(channels[c][x], out + x * stride + c);
  }
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
