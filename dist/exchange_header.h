// INTERNAL. What precedes the bytes that a rank sends in an exchange.
#pragma once

#include <cstdint>
#include <string>

#include <binade/core/error.h>

namespace binade::dist {

// Ranks that call different verbs, or with blocks of other sizes, shall notice.
struct ExchangeHeader {
  uint64_t sequence = 0, bytes = 0;

  // Throws Error unless what a rank has sent is what this one expects.
  void check_expected(const ExchangeHeader& expected, const std::string& sender) const {
    check(sequence == expected.sequence && bytes == expected.bytes, sender, " sends ", bytes,
          " bytes in exchange ", sequence, " where this rank expects ", expected.bytes, " in ",
          expected.sequence, ": the ranks do not run the same program on the same input");
  }
};

}  // namespace binade::dist
