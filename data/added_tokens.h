// INTERNAL. Tokens that stand outside of the BPE model ("<|endoftext|>") and are cut out of a text
// before it.
#pragma once

#include <binade/data/tokenizer_spec.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace binade::data {

// Finds the longest token at the leftmost place, over and over, as AddedVocabulary of `tokenizers`.
class AddedTokenMatcher {
 public:
  // Receives a stretch of text with kNoToken, or the stretch that a token covers (with the white
  // space that it strips) and the token's id.
  using Sink = std::function<void(std::string_view, int32_t)>;
  static constexpr int32_t kNoToken = -1;

  // `content` of each token is what is looked for. Where a normaliser left nothing of it, the token
  // is found nowhere, but the plain text is handed on by single characters: `tokenizers` finds an
  // empty match between any two.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Covers well-formed UTF-8 from end to end, without empty stretches of plain text. Special tokens
  // are left in the plain text unless `parse_special`.
  void split(std::string_view text, bool parse_special, const Sink& sink) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;
    int32_t token = -1;  // index of the token that ends here
  };
  struct Match {
    size_t length = 0;
    int32_t token = -1;
  };
  Match longest_at(std::string_view text, size_t pos) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;                   // a trie over bytes; the root is first
  std::array<bool, 256> starts_token_{};      // by first byte
  bool cuts_ = false, special_cuts_ = false;  // there is an empty token, and one that is special
};

}  // namespace binade::data
