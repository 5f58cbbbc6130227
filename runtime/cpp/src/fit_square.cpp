// An image fitted into a square, equal byte by byte to what dibr_deploy.runtime.images makes of it by Pillow 13: the
// same filter (Lanczos, 3 lobes, widened when it shrinks), fixed-point weights, order and rounding, as its results show
// them.
#include <algorithm>
#include <cmath>
#include <vector>

#include "failure.h"
#include "images.h"

namespace dibr::runtime {
namespace {

constexpr double lobes = 3.0, pi = 3.14159265358979323846;
constexpr int fraction_bits = 22;  // of a weight; a sum of weighted bytes then still fits into 32 bits
constexpr std::uint8_t background = 255;

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * pi) / (x * pi); }
double lanczos(double x) { return -lobes <= x && x < lobes ? sinc(x) * sinc(x / lobes) : 0.0; }

// The pixels that one pixel of the result is made of.
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_of(std::int64_t from, std::int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double filter_scale = std::max(scale, 1.0), support = lobes * filter_scale, step = 1.0 / filter_scale;
  std::vector<Taps> result;
  for (std::int64_t pixel = 0; pixel < to; ++pixel) {
    const double center = (static_cast<double>(pixel) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last = std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), from);
    std::vector<double> weights;
    double sum = 0.0;
    for (std::int64_t source = first; source < last; ++source) {
      weights.push_back(lanczos((static_cast<double>(source) - center + 0.5) * step));
      sum += weights.back();
    }
    Taps taps{first, {}};
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      taps.weights.push_back(static_cast<std::int32_t>(weight * (1 << fraction_bits) + (weight < 0 ? -0.5 : 0.5)));
    }
    result.push_back(std::move(taps));
  }
  return result;
}

std::uint8_t to_byte(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> fraction_bits, 0, 255)); }

// Resizes the axis that has `stride` bytes between its elements; there are `outer` blocks of it.
Bytes resize_axis(const Bytes& pixels, std::int64_t outer, std::int64_t from, std::int64_t to, std::int64_t stride) {
  if (from == to) return pixels;
  const std::vector<Taps> taps = taps_of(from, to);
  Bytes result(static_cast<std::size_t>(outer * to * stride));
  for (std::int64_t block = 0; block < outer; ++block) {
    for (std::int64_t pixel = 0; pixel < to; ++pixel) {
      const Taps& tap = taps[static_cast<std::size_t>(pixel)];
      const unsigned char* source = &pixels[static_cast<std::size_t>((block * from + tap.first) * stride)];
      unsigned char* target = &result[static_cast<std::size_t>((block * to + pixel) * stride)];
      for (std::int64_t byte = 0; byte < stride; ++byte) {
        std::int32_t sum = 1 << (fraction_bits - 1);
        for (std::size_t k = 0; k < tap.weights.size(); ++k) {
          sum += source[static_cast<std::int64_t>(k) * stride + byte] * tap.weights[k];
        }
        target[byte] = to_byte(sum);
      }
    }
  }
  return result;
}

// x / 255, rounded, for x up to 255 * 255.
int over_255(int x) { return ((x + 128) + ((x + 128) >> 8)) >> 8; }

// RGBA; colours are weighted by alpha while they are mixed.
Picture resized(const Picture& picture, std::int64_t height, std::int64_t width) {
  if (height == picture.height && width == picture.width) return picture;
  Bytes pixels = picture.pixels;
  for (std::size_t i = 0; i < pixels.size(); i += 4) {
    for (std::size_t c = 0; c < 3; ++c)
      pixels[i + c] = static_cast<unsigned char>(over_255(pixels[i + c] * pixels[i + 3]));
  }
  // Pillow's choice of the axis that it shrinks first, which the rounding in between makes visible.
  const bool rows_first = height < picture.height && picture.height - height > 2 * (picture.width - width);
  if (rows_first) pixels = resize_axis(pixels, 1, picture.height, height, 4 * picture.width);
  pixels = resize_axis(pixels, rows_first ? height : picture.height, picture.width, width, 4);
  if (!rows_first) pixels = resize_axis(pixels, 1, picture.height, height, 4 * width);
  for (std::size_t i = 0; i < pixels.size(); i += 4) {
    const int alpha = pixels[i + 3];
    if (alpha == 0 || alpha == 255) continue;
    for (std::size_t c = 0; c < 3; ++c) {
      pixels[i + c] = static_cast<unsigned char>(std::min(255 * pixels[i + c] / alpha, 255));
    }
  }
  return {height, width, 4, std::move(pixels)};
}

// A channel over the opaque background, with 7 bits more than a byte in between.
unsigned char over_background(int value, int alpha) {
  constexpr int bits = 7;
  const int front = alpha << bits, behind = (255 << bits) - front;
  const int sum = value * front + background * behind + (0x80 << bits);
  return static_cast<unsigned char>((((sum >> 8) + sum) >> 8) >> bits);
}

}  // namespace

Picture fit_square(const Picture& picture, std::int64_t size) {
  const double scale = static_cast<double>(size) / static_cast<double>(std::max(picture.height, picture.width));
  const auto fitted_side = [&](std::int64_t side) {
    return std::max<std::int64_t>(std::llrint(static_cast<double>(side) * scale), 1);
  };
  const Picture fitted = resized(picture, fitted_side(picture.height), fitted_side(picture.width));
  Picture square{size, size, 3, Bytes(static_cast<std::size_t>(3 * size * size), background)};
  const std::int64_t left = (size - fitted.width) / 2, top = (size - fitted.height) / 2;
  for (std::int64_t row = 0; row < fitted.height; ++row) {
    for (std::int64_t column = 0; column < fitted.width; ++column) {
      const unsigned char* source = &fitted.pixels[static_cast<std::size_t>(4 * (row * fitted.width + column))];
      if (source[3] == 0) continue;
      unsigned char* target = &square.pixels[static_cast<std::size_t>(3 * ((top + row) * size + left + column))];
      for (int c = 0; c < 3; ++c) target[c] = over_background(source[c], source[3]);
    }
  }
  return square;
}

}  // namespace dibr::runtime
