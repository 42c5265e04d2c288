// INTERNAL. The decoder of tokenizer.json: what bytes each token of a BPE vocabulary stands for.
#pragma once

#include <binade/data/tokenizer_spec.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data {

class TokenText {
 public:
  explicit TokenText(DecoderSpec decoder) : decoder_(std::move(decoder)) {}

  // Enters a token as it is spelled in the vocabulary.
  void add(int32_t id, std::string_view token);

  // Ids without a token in between have no text.
  std::string_view get(int32_t id, bool at_start) const;

 private:
  struct Entry {
    std::string anywhere, at_start;
  };
  DecoderSpec decoder_;
  std::vector<Entry> entries_;
};

}  // namespace binade::data
