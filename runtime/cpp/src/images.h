// Pictures in and out.
#pragma once

#include <cstdint>
#include <string>

#include "files.h"

namespace dibr::runtime {

// 8-bit picture, row 0 at the top.
struct Picture {
  std::int64_t height = 0, width = 0, channels = 0;
  Bytes pixels;  // [height, width, channels]
  bool has_transparency = false;
};

// A PNG or JPEG as RGBA, turned upright as its EXIF data says. what: names the file in errors.
Picture decode_image(const Bytes& content, const std::string& what);

// [height, width, channels] in 0..1 as bytes; NaN becomes 0, what lies outside is clamped. channels: 1 or 3.
Picture to_picture(const float* image, std::int64_t height, std::int64_t width, std::int64_t channels);

// channels: 1 (grey) or 3 (RGB).
Bytes encode_png(const Picture& picture);

// RGBA of any size fitted into a square of size pixels by a Lanczos filter and centred on white: RGB.
Picture fit_square(const Picture& picture, std::int64_t size);

}  // namespace dibr::runtime
