// INTERNAL. The normalisers of tokenizer.json, through utf8proc.
#pragma once

#include <binade/data/regex.h>
#include <binade/data/tokenizer_spec.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data {

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalizerStep> steps);

  bool empty() const { return steps_.empty(); }

  // Applies the steps in order to well-formed UTF-8.
  std::string operator()(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep spec;
    std::unique_ptr<Regex> regex;  // of a replacement whose pattern is one
  };
  std::vector<Step> steps_;
};

// Replaces every occurrence of a string, from left to right; `from` is not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace binade::data
