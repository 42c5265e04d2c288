// Small text helpers for messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace binade {

// Levenshtein distance: insertions, deletions and substitutions.
int edit_distance(std::string_view a, std::string_view b);

// "; did you mean X?" for the nearest of `candidates`, or nothing if none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace binade
