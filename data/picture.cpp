#include <binade/data/picture.h>

#include <csetjmp>
#include <cstdio>  // in front of jpeglib.h, which wants it

#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include <binade/core/file.h>

namespace binade::data {

namespace {

constexpr int64_t kMostPixels = int64_t{1} << 26;
constexpr int64_t kChannels = 3;

// Interleaved rows of 8 bits a channel.
struct Bytes {
  int64_t height = 0, width = 0;
  std::vector<unsigned char> values;
};

void check_size(const std::string& name, int64_t height, int64_t width) {
  check(height > 0 && width > 0 && height <= kMostPixels / width, name, " would be a picture of ",
        width, " x ", height, " pixels, more than the limit of ", kMostPixels);
}

Bytes read_png(const std::string& name, std::span<const std::byte> file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, decltype(&png_image_free)> cleanup(&image, png_image_free);
  check(png_image_begin_read_from_memory(&image, file.data(), file.size()) != 0, name,
        " is no PNG that can be read: ", image.message);
  check_size(name, image.height, image.width);
  image.format = PNG_FORMAT_RGB;
  Bytes bytes{image.height, image.width, {}};
  bytes.values.resize(PNG_IMAGE_SIZE(image));
  const png_color white{255, 255, 255};
  check(png_image_finish_read(&image, &white, bytes.values.data(), 0, nullptr) != 0, name,
        " is a damaged PNG: ", image.message);
  return bytes;
}

// libjpeg leaves a function through this when it fails.
struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf leave;
  char message[JMSG_LENGTH_MAX];
};

void leave_jpeg(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->leave, 1);
}

// Fills `bytes`, or says why not in errors.message. No object is made behind setjmp.
bool decode_jpeg(std::span<const std::byte> file, jpeg_decompress_struct& info, JpegErrors& errors,
                 Bytes& bytes) {
  if (setjmp(errors.leave) != 0) return false;  // NOLINT(cert-err52-cpp): libjpeg is C
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&info, TRUE);
  info.out_color_space = JCS_RGB;
  if (int64_t{info.image_height} * info.image_width > kMostPixels) {
    std::strcpy(errors.message, "it has too many pixels");
    return false;
  }
  jpeg_start_decompress(&info);
  bytes.height = info.output_height;
  bytes.width = info.output_width;
  const size_t row = static_cast<size_t>(bytes.width * kChannels);
  bytes.values.resize(row * info.output_height);
  while (info.output_scanline < info.output_height) {
    unsigned char* line = bytes.values.data() + info.output_scanline * row;
    jpeg_read_scanlines(&info, &line, 1);
  }
  jpeg_finish_decompress(&info);
  if (errors.manager.num_warnings == 0) return true;  // a truncated file is one
  errors.manager.format_message(reinterpret_cast<j_common_ptr>(&info), errors.message);
  return false;
}

Bytes read_jpeg(const std::string& name, std::span<const std::byte> file) {
  jpeg_decompress_struct info{};
  JpegErrors errors{};
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = leave_jpeg;
  errors.manager.output_message = [](j_common_ptr) {};  // nothing on the terminal
  Bytes bytes;
  const bool read = decode_jpeg(file, info, errors, bytes);
  jpeg_destroy_decompress(&info);
  check(read, name, " is no JPEG that can be read: ", errors.message);
  return bytes;
}

bool begins_with(std::span<const std::byte> file, std::string_view magic) {
  return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
}

void check_picture(const Array& picture) {
  check(picture.defined() && picture.dims() == 3 &&
            (picture.size(0) == kChannels || picture.size(0) == 1) &&
            picture.dtype() == DType::f32 && picture.device().is_cpu() && picture.numel() > 0,
        "a picture is (3, H, W), or grey (1, H, W), f32 on the CPU; got ",
        picture.defined() ? concat(picture.shape(), ' ', picture.dtype(), " on ", picture.device())
                          : "nothing");
}

}  // namespace

Array read_picture(const std::filesystem::path& path) {
  const std::string name = path.string();
  const MappedFile mapped(path);
  const std::span<const std::byte> file = mapped.bytes();
  const bool png = begins_with(file, "\x89PNG"), jpeg = begins_with(file, "\xff\xd8\xff");
  check(png || jpeg, name, " is neither a PNG nor a JPEG picture");
  const Bytes bytes = png ? read_png(name, file) : read_jpeg(name, file);
  const Array picture = Array::empty({kChannels, bytes.height, bytes.width}, DType::f32);
  const int64_t pixels = bytes.height * bytes.width;
  for (int64_t i = 0; i < pixels * kChannels; ++i)
    picture.data<float>()[i % kChannels * pixels + i / kChannels] =
        static_cast<float>(bytes.values[static_cast<size_t>(i)]) / 127.5f - 1;
  return picture;
}

void write_png(const std::filesystem::path& path, const Array& picture) {
  check_picture(picture);
  const Array values = picture.contiguous();
  const int64_t channels = picture.size(0), pixels = picture.size(1) * picture.size(2);
  std::vector<unsigned char> bytes(static_cast<size_t>(pixels * channels));
  for (int64_t i = 0; i < std::ssize(bytes); ++i) {
    const float value = values.data<float>()[i % channels * pixels + i / channels];
    const float clamped = std::isnan(value) ? 0 : std::clamp(value, -1.0f, 1.0f);
    bytes[static_cast<size_t>(i)] = static_cast<unsigned char>((clamped + 1) * 127.5f + 0.5f);
  }
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.height = static_cast<png_uint_32>(picture.size(1));
  image.width = static_cast<png_uint_32>(picture.size(2));
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  std::string file;
  const auto encode = [&](void* memory) {
    check(png_image_write_to_memory(&image, memory, &size, 0, bytes.data(), 0, nullptr) != 0,
          "cannot make the PNG ", path.string(), ": ", image.message);
  };
  encode(nullptr);
  file.resize(size);
  encode(file.data());
  write_text_file(path, {file.data(), size});
}

Array contact_sheet(const std::vector<Array>& pictures, int64_t columns, int64_t gap) {
  check(!pictures.empty() && columns > 0 && gap >= 0, "a contact sheet needs pictures and columns");
  int64_t height = 0, width = 0, channels = 1;
  for (const Array& picture : pictures) {
    check_picture(picture);
    channels = std::max(channels, picture.size(0));
    height = std::max(height, picture.size(1));
    width = std::max(width, picture.size(2));
  }
  const int64_t count = std::ssize(pictures);
  columns = std::min(columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  const Array sheet = Array::full(
      {channels, rows * (height + gap) - gap, columns * (width + gap) - gap}, -1, DType::f32);
  for (int64_t i = 0; i < count; ++i) {
    const Array& given = pictures[static_cast<size_t>(i)];
    const Array picture = given.expand({channels, given.size(1), given.size(2)}).contiguous();
    const int64_t top = i / columns * (height + gap), left = i % columns * (width + gap);
    for (int64_t line = 0; line < channels * picture.size(1); ++line) {
      const int64_t channel = line / picture.size(1), y = top + line % picture.size(1);
      std::copy_n(picture.data<float>() + line * picture.size(2), picture.size(2),
                  sheet.data<float>() + (channel * sheet.size(1) + y) * sheet.size(2) + left);
    }
  }
  return sheet;
}

}  // namespace binade::data
