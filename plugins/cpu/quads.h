// Quads: pixels side by side, with up to four numbers each. What ops sum over the pixels of a face is small and alike
// for all of them (three weights, three colours), so a pixel has four lanes. Four pixels go at a time, at every level:
// sums of their own, which are added up in the end, have the same order whatever a vector holds.
#pragma once

#include <algorithm>

#include "cpu/simd.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// As many bits as 16 numbers have, then as many zeros.
template <class T>
struct KeepBits {
  IntegerLike<T> bits[32] = {};
  constexpr KeepBits() {
    for (int i = 0; i < 16; ++i) bits[i] = -1;
  }
};
template <class T>
constexpr KeepBits<T> kKeep = {};

// In one vector, or as two halves where that is too small. What stands at the places of a pixel beyond those that an
// operation names is undefined.
template <class T, int kPixels = 4, bool kOneVector = (kPixels == 1 || kPixels * 4 * int(sizeof(T)) <= kVectorBytes)>
struct Quads {
  using Half = Quads<T, kPixels / 2>;
  static constexpr int kNumbers = 4 * kPixels;
  Half low, high;

  static DIBR_HD Quads of(T x) { return {Half::of(x), Half::of(x)}; }
  static DIBR_HD Quads load(const T* p) { return {Half::load(p), Half::load(p + kNumbers / 2)}; }
  DIBR_HD void store(T* p) const {
    low.store(p);
    high.store(p + kNumbers / 2);
  }

  // The same four numbers for every pixel.
  static DIBR_HD Quads repeat(const T* four) { return {Half::repeat(four), Half::repeat(four)}; }

  // kCount numbers for each pixel, one after another. Reads kNumbers of them.
  template <int kCount>
  static DIBR_HD Quads load_packed(const T* p) {
    return {Half::template load_packed<kCount>(p), Half::template load_packed<kCount>(p + kCount * kPixels / 2)};
  }
  // Writes kCount * kPixels numbers.
  template <int kCount>
  DIBR_HD void store_packed(T* p) const {
    low.template store_packed<kCount>(p);
    high.template store_packed<kCount>(p + kCount * kPixels / 2);
  }

  // The numbers whose `keep` is all ones, and zeros where it is zero.
  DIBR_HD Quads kept(const IntegerLike<T>* keep) const { return {low.kept(keep), high.kept(keep + kNumbers / 2)}; }

  // Number k of each pixel, at all four places.
  template <int k>
  DIBR_HD Quads spread() const {
    return {low.template spread<k>(), high.template spread<k>()};
  }

  friend DIBR_HD Quads operator+(const Quads& a, const Quads& b) { return {a.low + b.low, a.high + b.high}; }
  friend DIBR_HD Quads operator-(const Quads& a, const Quads& b) { return {a.low - b.low, a.high - b.high}; }
  friend DIBR_HD Quads operator*(const Quads& a, const Quads& b) { return {a.low * b.low, a.high * b.high}; }
  friend DIBR_HD Quads operator/(const Quads& a, const Quads& b) { return {a.low / b.low, a.high / b.high}; }
};

template <class T, int kPixels>
struct Quads<T, kPixels, true> {
  static constexpr int kNumbers = 4 * kPixels;
  typedef T Vector __attribute__((vector_size(kNumbers * sizeof(T))));
  typedef IntegerLike<T> Integers __attribute__((vector_size(kNumbers * sizeof(T))));
  Vector v;

  static DIBR_HD Quads of(T x) { return {x - Vector{}}; }
  static DIBR_HD Quads load(const T* p) {
    Quads out;
    std::memcpy(&out.v, p, sizeof out.v);
    return out;
  }
  DIBR_HD void store(T* p) const { std::memcpy(p, &v, sizeof v); }
  static DIBR_HD Quads repeat(const T* four) {
    T numbers[kNumbers];
    for (int i = 0; i < kPixels; ++i) std::memcpy(numbers + 4 * i, four, 4 * sizeof(T));
    return load(numbers);
  }

  template <int kCount>
  static DIBR_HD Quads load_packed(const T* p) {
    Quads out = load(p);
    if constexpr (kPixels == 1 || kCount == 4) return out;
    Integers places = {};
    for (int i = 0; i < kNumbers; ++i) places[i] = i / 4 * kCount + std::min(i % 4, kCount - 1);
    permute(out.v, places);
    return out;
  }
  template <int kCount>
  DIBR_HD void store_packed(T* p) const {
    Vector packed = v;
    if constexpr (kPixels > 1 && kCount < 4) {
      Integers places = {};
      for (int i = 0; i < kNumbers; ++i) places[i] = std::min(i / kCount, kPixels - 1) * 4 + i % kCount;
      permute(packed, places);
    }
    // Two powers of two: what compilers make whole moves of.
    constexpr int kNumbersKept = kCount * kPixels,
                  kFirst = kNumbersKept > 8 ? 8 : (kNumbersKept > 4 ? 4 : kNumbersKept);
    std::memcpy(p, &packed, kFirst * sizeof(T));
    if constexpr (kNumbersKept > kFirst) {
      std::memcpy(p + kFirst, reinterpret_cast<const T*>(&packed) + kFirst, (kNumbersKept - kFirst) * sizeof(T));
    }
  }

  DIBR_HD Quads kept(const IntegerLike<T>* keep) const {
    Integers bits;
    std::memcpy(&bits, keep, sizeof bits);
    return {Vector(Integers(v) & bits)};
  }
  template <int k>
  DIBR_HD Quads spread() const {
    Integers places = {};
    for (int i = 0; i < kNumbers; ++i) places[i] = i / 4 * 4 + k;
    Quads out = *this;
    permute(out.v, places);
    return out;
  }

  friend DIBR_HD Quads operator+(const Quads& a, const Quads& b) { return {a.v + b.v}; }
  friend DIBR_HD Quads operator-(const Quads& a, const Quads& b) { return {a.v - b.v}; }
  friend DIBR_HD Quads operator*(const Quads& a, const Quads& b) { return {a.v * b.v}; }
  friend DIBR_HD Quads operator/(const Quads& a, const Quads& b) { return {a.v / b.v}; }
};

// The first `pixels` of four pixels, each with kCount numbers, and zeros. `end` is where memory that may be read ends.
template <int kCount, class T>
DIBR_HD Quads<T> load_pixels(const T* p, int pixels, const T* end) {
  const IntegerLike<T>* keep = kKeep<T>.bits + 4 * (4 - pixels);
  if (__builtin_expect(end - p >= 16, 1)) return Quads<T>::template load_packed<kCount>(p).kept(keep);
  T numbers[16] = {};
  std::copy(p, p + kCount * pixels, numbers);
  return Quads<T>::template load_packed<kCount>(numbers).kept(keep);
}

// Writes the kCount numbers of each of the first `pixels` of four pixels. What follows them, where `room` is beyond
// them, may be written too: its zeros, or numbers that come later.
template <int kCount, class T>
DIBR_HD void store_pixels(const Quads<T>& quads, T* p, int pixels, int64_t room) {
  if (__builtin_expect(room >= 4, 1)) {
    quads.kept(kKeep<T>.bits + 4 * (4 - pixels)).template store_packed<kCount>(p);
    return;
  }
  T numbers[16];
  quads.store(numbers);
  for (int i = 0; i < pixels; ++i) std::memcpy(p + kCount * i, numbers + 4 * i, kCount * sizeof(T));
}

// The sum over the four pixels of what Quads::store wrote.
template <class T>
DIBR_HD void add_pixels(const T* numbers, T* four) {
  for (int k = 0; k < 4; ++k) four[k] = (numbers[k] + numbers[4 + k]) + (numbers[8 + k] + numbers[12 + k]);
}

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
