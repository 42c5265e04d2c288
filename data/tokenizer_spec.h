// INTERNAL. What a tokenizer.json says, as plain data: the parts of the format of Hugging Face's
// `tokenizers` that belong to a BPE model. tokenizer_json.cpp reads and checks it, the other parts
// act on it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace binade {
class JsonView;
}

namespace binade::data {

struct Pattern {
  std::string text;
  bool is_regex = false;
};

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripAccents,
    kStrip,
    kPrepend,
    kReplace
  };
  Kind kind = Kind::kNfc;
  std::string content;                         // of kPrepend and kReplace
  Pattern pattern;                             // of kReplace
  bool strip_left = true, strip_right = true;  // of kStrip
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct PreTokenizerStep {
  enum class Kind { kByteLevel, kSplit, kDigits, kMetaspace };
  enum class PrependScheme { kAlways, kNever, kFirst };
  Kind kind = Kind::kByteLevel;
  bool add_prefix_space = false;                          // of kByteLevel
  bool use_regex = true;                                  // of kByteLevel
  Pattern pattern;                                        // of kSplit
  SplitBehavior behavior = SplitBehavior::kIsolated;      // of kSplit
  bool invert = false;                                    // of kSplit
  bool individual_digits = false;                         // of kDigits
  std::string replacement;                                // of kMetaspace: one character
  PrependScheme prepend_scheme = PrependScheme::kAlways;  // of kMetaspace
  bool split = true;                                      // of kMetaspace
};

// How tokens become text again.
struct DecoderSpec {
  bool byte_level = false;
  bool byte_fallback = false;
  std::vector<std::pair<std::string, std::string>> replacements;  // in every token
  std::string strip_start;    // one character, dropped once where the text starts; may be empty
  std::string drop_in_first;  // one character, dropped wherever it stands in the first token
};

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false;
  bool normalized = false;  // matched after normalisation, in normalised form
  bool special = false;
};

struct TokenizerSpec {
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  std::string unk_token;                                    // empty: none
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;  // a kByteLevel step is the last one
  DecoderSpec decoder;
  std::vector<int32_t> prefix, suffix;  // the post-processor's ids around a text

  bool byte_level() const {
    return !pre_tokenizer.empty() &&
           pre_tokenizer.back().kind == PreTokenizerStep::Kind::kByteLevel;
  }
};

// Parses the text of a tokenizer.json; `name` stands for it in errors. Error for malformed JSON
// (with line and column), for components that are not known (by their place and name), and for
// values of the wrong type or range.
TokenizerSpec parse_tokenizer_json(std::string_view text, std::string_view name);

// How texts are split before their bytes are merged: not at all, by GPT-2's pattern, or by Qwen2's,
// of texts in NFC.
enum class ByteLevelSplit : uint8_t { kNone, kGpt2, kQwen2 };

// A byte-level BPE vocabulary; tokens are spelled in GPT-2's byte alphabet.
struct ByteLevelVocabulary {
  std::vector<std::string> tokens;  // by id
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedToken> added_tokens;
  ByteLevelSplit split = ByteLevelSplit::kGpt2;

  // Makes a token a special one. Error when the vocabulary lacks it.
  void add_special(const std::string& token);
};

// The text of its tokenizer.json.
std::string byte_level_tokenizer_json(const ByteLevelVocabulary& vocabulary);

// The "added_tokens_decoder" of a tokenizer_config.json: id -> token. Empty when the file has none.
std::vector<AddedToken> parse_added_tokens_decoder(const JsonView& config);

// The text of the tokenizer_config.json that `transformers` wants beside it; a token that is empty
// is one that the vocabulary lacks.
std::string tokenizer_config_json(const std::string& bos_token, const std::string& eos_token);

// Parses GPT-2's pair of files: a JSON object of token -> id, and lines "left right".
std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              std::string_view name);
std::vector<std::pair<std::string, std::string>> parse_merges(std::string_view text,
                                                              std::string_view name);

}  // namespace binade::data
