// PNG through libpng, JPEG through libjpeg. Both report errors by longjmp: between setjmp and the last call of the
// library no object with a destructor is made in the function that called setjmp.
#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

// Behind cstdio, which it needs and does not include.
#include <jpeglib.h>
//
#include <jerror.h>

#include "failure.h"
#include "images.h"

namespace dibr::runtime {
namespace {

// As Pillow has it: more pixels are taken for a decompression bomb.
constexpr std::uint64_t most_pixels = 178956970;

constexpr unsigned char png_start[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

struct Decoded {
  Picture picture;      // RGBA
  Bytes row;            // RGB
  int orientation = 1;  // of EXIF
  std::string error;    // in words; empty where all went well
};

// The orientation in a block of EXIF data, a TIFF file; 1 where it has none.
int exif_orientation(const unsigned char* data, std::size_t size) {
  if (size < 8) return 1;
  const bool is_little = data[0] == 'I' && data[1] == 'I';
  if (!is_little && !(data[0] == 'M' && data[1] == 'M')) return 1;
  const auto number = [&](std::size_t place, int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      value = value << 8 | data[place + static_cast<std::size_t>(is_little ? bytes - 1 - i : i)];
    }
    return value;
  };
  const std::uint64_t start = number(4, 4);
  if (start > size - 2) return 1;
  const std::uint64_t count = number(start, 2);
  constexpr std::uint64_t tag_orientation = 0x0112, type_short = 3;
  for (std::uint64_t entry = 0; entry < count; ++entry) {
    const std::uint64_t place = start + 2 + 12 * entry;
    if (place + 12 > size) return 1;
    if (number(place, 2) == tag_orientation && number(place + 2, 2) == type_short) {
      const std::uint64_t value = number(place + 8, 2);
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
  }
  return 1;
}

// --- PNG ---

struct PngReader {
  const unsigned char* data;
  std::size_t size, place;
  Decoded* decoded;
};

void png_failed(png_structp png, png_const_charp words) {
  static_cast<PngReader*>(png_get_error_ptr(png))->decoded->error = words;
  png_longjmp(png, 1);
}

void png_warned(png_structp, png_const_charp) {}

void read_png_bytes(png_structp png, png_bytep target, png_size_t count) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (count > reader->size - reader->place) png_error(png, "it ends too early");
  std::memcpy(target, reader->data + reader->place, count);
  reader->place += count;
}

// Takes memory for the pixels; false where there is too little, since no exception may pass through C.
bool take_memory(Decoded& decoded) {
  try {
    decoded.picture.pixels.resize(4 * static_cast<std::size_t>(decoded.picture.height * decoded.picture.width));
    decoded.row.resize(3 * static_cast<std::size_t>(decoded.picture.width));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void decode_png(PngReader& reader) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, png_failed, png_warned);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    fail(DIBR_RUNTIME_OUT_OF_MEMORY, "libpng has not enough memory");
  }
  if (setjmp(png_jmpbuf(png)) == 0) {
    Decoded& decoded = *reader.decoded;
    png_set_read_fn(png, &reader, read_png_bytes);
    png_set_user_limits(png, 1 << 20, 1 << 20);
    png_read_info(png, info);
    const png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    if (static_cast<std::uint64_t>(width) * height > most_pixels) png_error(png, "it has too many pixels");
    decoded.picture.width = width;
    decoded.picture.height = height;
    decoded.picture.channels = 4;
    const bool has_alpha = (png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0;
    decoded.picture.has_transparency = has_alpha || png_get_valid(png, info, PNG_INFO_tRNS) != 0;
    png_set_expand(png);    // palettes, 1 to 4 bits, and a transparent colour as alpha
    png_set_strip_16(png);  // the higher byte
    png_set_gray_to_rgb(png);
    png_set_add_alpha(png, 0xFF, PNG_FILLER_AFTER);
    const int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != 4 * static_cast<png_size_t>(width)) png_error(png, "it is of an unknown kind");
    if (!take_memory(decoded)) png_error(png, "there is not enough memory for it");
    for (int pass = 0; pass < passes; ++pass) {
      for (png_uint_32 row = 0; row < height; ++row) {
        png_read_row(png, decoded.picture.pixels.data() + 4 * static_cast<std::size_t>(width) * row, nullptr);
      }
    }
    png_read_end(png, info);
#ifdef PNG_eXIf_SUPPORTED
    png_bytep exif = nullptr;
    png_uint_32 exif_bytes = 0;
    if (png_get_eXIf_1(png, info, &exif_bytes, &exif) != 0) decoded.orientation = exif_orientation(exif, exif_bytes);
#endif
  }
  png_destroy_read_struct(&png, &info, nullptr);
}

// --- JPEG ---

struct JpegErrors {
  jpeg_error_mgr manager;  // first: libjpeg hands out a pointer to it
  std::jmp_buf jump;
  Decoded* decoded;
};

[[noreturn]] void jpeg_failed(j_common_ptr common) {
  auto* errors = reinterpret_cast<JpegErrors*>(common->err);
  char words[JMSG_LENGTH_MAX] = "";
  errors->manager.format_message(common, words);
  errors->decoded->error = words;
  std::longjmp(errors->jump, 1);
}

// Libjpeg goes on with grey where a file ends too early, and only warns.
void jpeg_said(j_common_ptr common, int level) {
  const int code = common->err->msg_code;
  if (level < 0 && (code == JWRN_HIT_MARKER || code == JWRN_JPEG_EOF)) jpeg_failed(common);
}

void decode_jpeg(const Bytes& content, Decoded& decoded) {
  jpeg_decompress_struct jpeg{};
  JpegErrors errors{};
  errors.decoded = &decoded;
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = jpeg_failed;
  errors.manager.emit_message = jpeg_said;
  if (setjmp(errors.jump) == 0) {
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, content.data(), content.size());
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg, TRUE);
    if (static_cast<std::uint64_t>(jpeg.image_width) * jpeg.image_height > most_pixels) {
      decoded.error = "it has too many pixels";
      std::longjmp(errors.jump, 1);
    }
    if (jpeg.num_components != 1 && jpeg.num_components != 3) {
      decoded.error = "it is in CMYK, save it in RGB";
      std::longjmp(errors.jump, 1);
    }
    constexpr unsigned char exif_start[] = {'E', 'x', 'i', 'f', 0, 0};
    for (jpeg_saved_marker_ptr marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
      if (marker->data_length >= sizeof exif_start && std::memcmp(marker->data, exif_start, sizeof exif_start) == 0) {
        decoded.orientation =
            exif_orientation(marker->data + sizeof exif_start, marker->data_length - sizeof exif_start);
        break;
      }
    }
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    decoded.picture.height = jpeg.output_height;
    decoded.picture.width = jpeg.output_width;
    decoded.picture.channels = 4;
    if (!take_memory(decoded)) {
      decoded.error = "there is not enough memory for it";
      std::longjmp(errors.jump, 1);
    }
    unsigned char* target = decoded.picture.pixels.data();
    while (jpeg.output_scanline < jpeg.output_height) {
      unsigned char* rows[] = {decoded.row.data()};
      jpeg_read_scanlines(&jpeg, rows, 1);
      for (std::size_t pixel = 0; pixel < decoded.row.size(); pixel += 3, target += 4) {
        std::memcpy(target, &decoded.row[pixel], 3);
        target[3] = 0xFF;
      }
    }
    jpeg_finish_decompress(&jpeg);
  }
  jpeg_destroy_decompress(&jpeg);
}

// --- both ---

// The picture so that it is upright; orientation as EXIF numbers it.
Picture upright(Picture picture, int orientation) {
  if (orientation == 1) return picture;
  const bool swaps = orientation >= 5;
  const std::int64_t height = swaps ? picture.width : picture.height, width = swaps ? picture.height : picture.width;
  Picture turned{height, width, 4, Bytes(picture.pixels.size()), picture.has_transparency};
  for (std::int64_t row = 0; row < height; ++row) {
    for (std::int64_t column = 0; column < width; ++column) {
      // Where EXIF's rows and columns begin, seen from the upright picture.
      const bool flips_rows = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
      const bool flips_columns = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
      const std::int64_t r = flips_rows ? height - 1 - row : row, c = flips_columns ? width - 1 - column : column;
      const std::int64_t source = swaps ? c * picture.width + r : r * picture.width + c;
      std::memcpy(&turned.pixels[static_cast<std::size_t>(4 * (row * width + column))],
                  &picture.pixels[static_cast<std::size_t>(4 * source)], 4);
    }
  }
  return turned;
}

}  // namespace

Picture decode_image(const Bytes& content, const std::string& what) {
  Decoded decoded;
  if (content.size() > sizeof png_start && std::memcmp(content.data(), png_start, sizeof png_start) == 0) {
    PngReader reader{content.data(), content.size(), 0, &decoded};
    decode_png(reader);
  } else if (content.size() > 3 && content[0] == 0xFF && content[1] == 0xD8 && content[2] == 0xFF) {
    decode_jpeg(content, decoded);
  } else {
    decoded.error = "it is neither PNG nor JPEG";
  }
  if (!decoded.error.empty()) {
    fail(DIBR_RUNTIME_REFUSED, what, " cannot be read, it is cut off or no image: ", one_line(decoded.error));
  }
  return upright(std::move(decoded.picture), decoded.orientation);
}

}  // namespace dibr::runtime
