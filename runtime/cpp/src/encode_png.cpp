#include <png.h>

#include <cmath>
#include <csetjmp>
#include <limits>

#include "failure.h"
#include "images.h"

namespace dibr::runtime {
namespace {

struct Writer {
  Bytes content;
  std::string error;
};

void failed(png_structp png, png_const_charp words) {
  static_cast<Writer*>(png_get_error_ptr(png))->error = words;
  png_longjmp(png, 1);
}

void warned(png_structp, png_const_charp) {}

void append(png_structp png, png_bytep data, png_size_t count) {
  auto* writer = static_cast<Writer*>(png_get_io_ptr(png));
  bool fits = true;
  try {
    writer->content.insert(writer->content.end(), data, data + count);
  } catch (const std::bad_alloc&) {
    fits = false;
  }
  if (!fits) png_error(png, "there is not enough memory for it");
}

void flush(png_structp) {}

// As libpng asks for it: no object with a destructor is made here.
void encode(const Picture& picture, Writer& writer) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer, failed, warned);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) {
    png_destroy_write_struct(&png, nullptr);
    writer.error = "there is not enough memory for it";
    return;
  }
  if (setjmp(png_jmpbuf(png)) == 0) {
    png_set_write_fn(png, &writer, append, flush);
    png_set_IHDR(png, info, static_cast<png_uint_32>(picture.width), static_cast<png_uint_32>(picture.height), 8,
                 picture.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    const unsigned char* row = picture.pixels.data();
    for (std::int64_t i = 0; i < picture.height; ++i, row += picture.width * picture.channels) png_write_row(png, row);
    png_write_end(png, info);
  }
  png_destroy_write_struct(&png, &info);
}

}  // namespace

Picture to_picture(const float* image, std::int64_t height, std::int64_t width, std::int64_t channels) {
  if (channels != 1 && channels != 3) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "an image must have 1 or 3 channels, got ", channels);
  }
  constexpr std::int64_t most = 1 << 20;
  if (height < 1 || width < 1 || height > most || width > most) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "an image must have 1 to ", most, " rows and columns, got ", height, " x ",
         width);
  }
  if (image == nullptr) fail(DIBR_RUNTIME_INVALID_ARGUMENT, "image is NULL");
  Picture picture{height, width, channels, Bytes(static_cast<std::size_t>(height * width * channels))};
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
    const float value = std::isnan(image[i]) ? 0.0F : std::fmin(std::fmax(image[i], 0.0F), 1.0F);
    picture.pixels[i] = static_cast<unsigned char>(std::lrint(value * 255.0F));
  }
  return picture;
}

Bytes encode_png(const Picture& picture) {
  Writer writer;
  encode(picture, writer);
  if (!writer.error.empty()) fail(DIBR_RUNTIME_FAILED, "the image cannot be packed as PNG: ", one_line(writer.error));
  return std::move(writer.content);
}

}  // namespace dibr::runtime
