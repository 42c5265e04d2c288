// Skipping a test that cannot run here (no GPU, no ../shared). Catch2 2 has no such thing itself.
#pragma once

#include <string>

namespace binade::test {

// Ends the running test (or section); it counts as skipped if nothing was asserted before.
[[noreturn]] void skip(const std::string& reason);

// Counts the running test as skipped in the same way, and returns so that it can end itself.
void note_skip(const std::string& reason);

}  // namespace binade::test
