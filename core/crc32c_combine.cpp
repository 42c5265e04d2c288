#include <binade/core/crc32c_combine.h>

namespace binade {

namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // without x^32; the highest bit is x^0

// a·b modulo the polynomial.
uint32_t product(uint32_t a, uint32_t b) {
  uint32_t sum = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) sum ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0);
  }
  return sum;
}

}  // namespace

uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t bytes_of_b) {
  uint32_t power = uint32_t{1} << 31, square = uint32_t{1} << 23;  // x^0, x^8
  for (; bytes_of_b > 0; bytes_of_b >>= 1) {
    if ((bytes_of_b & 1) != 0) power = product(square, power);
    square = product(square, square);
  }
  return product(power, a) ^ b;
}

}  // namespace binade
