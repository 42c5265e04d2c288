// Small text helpers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade {

// Throws Error naming `source` if arrays and objects nest more than 64 levels deep. For JSON from
// outside, before it is parsed: printing a value of it recurses. Says nothing about other errors.
void check_json_depth(std::string_view text, std::string_view source);

// A size in memory as people read it: "1.50 GiB".
std::string gib(int64_t bytes);

// Levenshtein distance: insertions, deletions and substitutions.
int edit_distance(std::string_view a, std::string_view b);

// "; did you mean X?" for the nearest of `candidates`, or nothing if none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace binade
