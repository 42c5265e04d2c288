// INTERNAL. The pre-tokenizers of tokenizer.json: they cut a text into the pieces inside which BPE
// merges.
#pragma once

#include <binade/data/regex.h>
#include <binade/data/tokenizer_spec.h>

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace binade::data {

// GPT-2's pattern (Radford et al. 2019), which a ByteLevel pre-tokenizer stands for.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A piece of text on its way through the steps.
struct Piece {
  std::string_view text;
  bool at_start = false;   // of the whole text that is being encoded
  bool may_prefix = true;  // false behind malformed bytes, where no space must be invented
};

class PreTokenizer {
 public:
  using Sink = std::function<void(std::string_view)>;

  explicit PreTokenizer(std::vector<PreTokenizerStep> steps);

  // Hands the pieces of well-formed UTF-8 to `sink`, in order; none is empty. A view is valid until
  // the sink returns. The mapping of bytes to GPT-2's alphabet is left to the model.
  void run(const Piece& piece, const Sink& sink) const { apply(0, piece, sink); }

 private:
  struct Step {
    PreTokenizerStep spec;
    std::unique_ptr<Regex> regex;
  };
  void apply(size_t index, const Piece& piece, const Sink& sink) const;
  void split_by_regex(size_t index, const Piece& piece, const Sink& sink) const;
  void split_metaspace(size_t index, const Piece& piece, const Sink& sink) const;

  std::vector<Step> steps_;
};

}  // namespace binade::data
