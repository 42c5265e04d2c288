#include "skip.h"

#include <catch2/catch.hpp>

#include "results.h"

namespace binade::test {

void note_skip(const std::string& reason) {
  Results::get().note_skip(reason);
}

void skip(const std::string& reason) {
  note_skip(reason);
  // Catch2 takes this for the end of a test whose failure was reported already; none was.
  throw Catch::TestFailureException();
}

}  // namespace binade::test
