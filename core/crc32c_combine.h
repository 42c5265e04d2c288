// INTERNAL. Checksums of what several have read in parts.
#pragma once

#include <cstdint>

namespace binade {

// The CRC-32C of A and B one behind the other, of theirs (core/file.h) and the length of B: CRCs
// are remainders of polynomials over GF(2), and A is multiplied by x^(8·bytes) (as zlib's
// crc32_combine).
uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t bytes_of_b);

}  // namespace binade
