// What the gradients of Interpolate have in common: a face's rows of attributes, and sums for each of few channels.
#pragma once

#include "cpu/quads.h"

namespace dibr::cpu::DIBR_CPU_LEVEL {

// Offsets of a face's three attribute rows within one image's attributes.
template <class P>
struct Corners {
  int64_t offset[3];
  Corners(const P& p, int64_t face) {
    for (int k = 0; k < 3; ++k) offset[k] = p.face_indices[3 * face + k] * p.channels;
  }
};

template <class T, class P>
const T* attributes_of(const P& p, int64_t image) {
  const int64_t source = p.attribute_batch == 1 ? 0 : image;
  return static_cast<const T*>(p.attributes) + source * p.vertices * p.channels;
}

// For each channel, in registers, gradient * barycentrics of four pixels each, and the attributes of a face's vertices:
// of the last channel, and of those before.
template <class T, int kChannels>
struct ChannelSums {
  ChannelSums<T, kChannels - 1> before;
  Quads<T> sum, attributes;

  DIBR_HD ChannelSums(const T (*sums)[16], const T (*of_vertices)[4])
      : before(sums, of_vertices),
        sum(Quads<T>::load(sums[kChannels - 1])),
        attributes(Quads<T>::repeat(of_vertices[kChannels - 1])) {}
  DIBR_HD void add(const Quads<T>& b, const Quads<T>& g) {
    before.add(b, g);
    sum = sum + g.template spread<kChannels - 1>() * b;
  }
  DIBR_HD Quads<T> of_barycentrics(const Quads<T>& g) const {
    const Quads<T> product = g.template spread<kChannels - 1>() * attributes;
    if constexpr (kChannels == 1) {
      return product;
    } else {
      return before.of_barycentrics(g) + product;
    }
  }
  DIBR_HD void store(T (*sums)[16]) const {
    before.store(sums);
    sum.store(sums[kChannels - 1]);
  }
};
template <class T>
struct ChannelSums<T, 0> {
  DIBR_HD ChannelSums(const T (*)[16], const T (*)[4]) {}
  DIBR_HD void add(const Quads<T>&, const Quads<T>&) {}
  DIBR_HD void store(T (*)[16]) const {}
};

}  // namespace dibr::cpu::DIBR_CPU_LEVEL
