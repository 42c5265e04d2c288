#include <catch2/catch.hpp>

#include <cmath>
#include <cstdio>

#include <jpeglib.h>

#include <binade/core/file.h>
#include <binade/data/picture.h>

#include "../temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

// (3, height, width) of values that 8 bits hold.
Array picture(int64_t height, int64_t width) {
  const Array array = Array::empty({3, height, width}, DType::f32);
  for (int64_t i = 0; i < array.numel(); ++i)
    array.data<float>()[i] = static_cast<float>(i * 7 % 256) / 127.5f - 1;
  return array;
}

// A JPEG of one colour, by libjpeg alone.
void write_jpeg(const std::filesystem::path& path, int width, int height,
                const unsigned char* rgb) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  std::FILE* file = std::fopen(path.c_str(), "wb");
  jpeg_stdio_dest(&info, file);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  std::string row;
  for (int x = 0; x < width; ++x) row.append(reinterpret_cast<const char*>(rgb), 3);
  for (int y = 0; y < height; ++y) {
    auto* line = reinterpret_cast<unsigned char*>(row.data());
    jpeg_write_scanlines(&info, &line, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::fclose(file);
}

}  // namespace

TEST_CASE("pictures are written as PNG and read again", "[picture]") {
  const TemporaryFolder folder;
  const Array before = picture(5, 9);
  data::write_png(folder / "a.png", before);
  const Array after = data::read_picture(folder / "a.png");
  REQUIRE(after.shape() == before.shape());
  for (int64_t i = 0; i < before.numel(); ++i)
    CHECK(after.data<float>()[i] == Approx(before.data<float>()[i]).margin(1e-6));
}

TEST_CASE("JPEG pictures are read", "[picture]") {
  const TemporaryFolder folder;
  const unsigned char orange[3] = {250, 140, 10};
  write_jpeg(folder / "a.jpg", 24, 16, orange);
  const Array read = data::read_picture(folder / "a.jpg");
  REQUIRE(read.shape() == Shape{3, 16, 24});
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < 16 * 24; ++i)
      CHECK(read.data<float>()[c * 16 * 24 + i] == Approx(orange[c] / 127.5 - 1).margin(4 / 127.5));
}

TEST_CASE("values beyond a picture's are clamped", "[picture]") {
  const TemporaryFolder folder;
  const Array wild = Array::full({3, 2, 2}, 7, DType::f32);
  wild.data<float>()[0] = -9;
  wild.data<float>()[1] = NAN;
  data::write_png(folder / "a.png", wild);
  const auto read = data::read_picture(folder / "a.png").to_vector<float>();
  CHECK(read[0] == -1);
  CHECK(read[1] == Approx(0).margin(0.005));
  CHECK(read[2] == 1);
}

TEST_CASE("grey pictures are written, and stand beside coloured ones", "[picture]") {
  const TemporaryFolder folder;
  const Array colour = picture(4, 6), grey = colour.slice(0, 1, 2);  // its green
  data::write_png(folder / "grey.png", grey);
  const Array read = data::read_picture(folder / "grey.png");
  REQUIRE(read.shape() == Shape{3, 4, 6});
  for (int64_t i = 0; i < read.numel(); ++i)
    CHECK(read.data<float>()[i] == Approx(colour.data<float>()[24 + i % 24]).margin(1e-6));
  CHECK(data::contact_sheet({grey, grey}, 2).shape() == Shape{1, 4, 13});
  const Array sheet = data::contact_sheet({colour, grey}, 2);
  REQUIRE(sheet.shape() == Shape{3, 4, 13});
  for (int64_t c = 0; c < 3; ++c)
    CHECK(sheet.data<float>()[c * 4 * 13 + 7] == colour.data<float>()[24]);
}

TEST_CASE("a contact sheet has its pictures in cells", "[picture]") {
  const Array small = Array::full({3, 2, 2}, 1, DType::f32), wide = picture(2, 3);
  const Array sheet = data::contact_sheet({small, wide, small}, 2);
  REQUIRE(sheet.shape() == Shape{3, 5, 7});
  const auto at = [&](int64_t y, int64_t x) { return sheet.data<float>()[y * 7 + x]; };
  CHECK(at(0, 0) == 1);
  CHECK(at(0, 2) == -1);  // beside a small one
  CHECK(at(0, 3) == -1);  // the gap
  CHECK(at(1, 5) == wide.data<float>()[1 * 3 + 1]);
  CHECK(at(3, 0) == 1);
  CHECK(at(4, 4) == -1);  // no fourth
}

TEST_CASE("files that are no pictures are refused", "[picture][errors]") {
  const TemporaryFolder folder;
  write_text_file(folder / "text.png", "this is text");
  CHECK_THROWS_WITH(data::read_picture(folder / "text.png"),
                    Contains("text.png is neither a PNG nor a JPEG picture"));
  write_text_file(folder / "empty.png", "");
  CHECK_THROWS_AS(data::read_picture(folder / "empty.png"), Error);
  CHECK_THROWS_WITH(data::read_picture(folder / "none.png"), Contains("none.png"));
  data::write_png(folder / "whole.png", picture(20, 20));
  const std::string whole = read_text_file(folder / "whole.png");
  for (const size_t bytes : {size_t{10}, size_t{40}, whole.size() / 2}) {
    write_text_file(folder / "cut.png", whole.substr(0, bytes));
    CHECK_THROWS_WITH(data::read_picture(folder / "cut.png"), Contains("cut.png is"));
  }
  const unsigned char grey[3] = {100, 100, 100};
  write_jpeg(folder / "whole.jpg", 64, 64, grey);
  const std::string jpeg = read_text_file(folder / "whole.jpg");
  for (const size_t bytes : {size_t{4}, size_t{100}, jpeg.size() - 30}) {
    write_text_file(folder / "cut.jpg", jpeg.substr(0, bytes));
    CHECK_THROWS_WITH(data::read_picture(folder / "cut.jpg"), Contains("cut.jpg is no JPEG"));
  }
  CHECK_THROWS_WITH(data::write_png(folder / "a.png", Array::zeros({2, 2, 2}, DType::f32)),
                    Contains("a picture is (3, H, W)") && Contains("(2, 2, 2)"));
  CHECK_THROWS_AS(data::write_png(folder / "no" / "a.png", picture(2, 2)), Error);
}
