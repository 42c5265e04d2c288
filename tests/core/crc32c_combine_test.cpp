#include <binade/core/crc32c_combine.h>

#include <catch2/catch.hpp>
#include <string>

#include <binade/core/file.h>

namespace binade::test {
namespace {

TEST_CASE("crc32c: checksums of parts give that of the whole", "[core]") {
  CHECK(crc32c("123456789", 9) == 0xe3069283);  // RFC 3720, B.4
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>((i * i + 7 * i) % 251);
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{9}, size_t{255}, size_t{4096}, size_t{5000}})
    for (const size_t cut : {size_t{0}, size_t{1}, size / 3, size})
      if (cut <= size) {
        CAPTURE(size, cut);
        CHECK(crc32c_combine(crc32c(text.data(), cut), crc32c(text.data() + cut, size - cut),
                             size - cut) == crc32c(text.data(), size));
      }
}

}  // namespace
}  // namespace binade::test
