#include <binade/core/error.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/byte_alphabet.h>
#include <binade/data/byte_tokenizer.h>
#include <binade/data/tokenizer_spec.h>

#include <array>

namespace binade::data {

std::vector<int32_t> ByteTokenizer::encode(std::string_view text,
                                           const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  const bool parse = with_end_of_text_ && options.parse_special_tokens;
  while (!text.empty()) {
    if (parse && text.starts_with(kEndOfTextToken)) {
      ids.push_back(kEndOfText);
      text.remove_prefix(kEndOfTextToken.size());
    } else {
      ids.push_back(static_cast<unsigned char>(text.front()));
      text.remove_prefix(1);
    }
  }
  return ids;
}

std::string_view ByteTokenizer::token_bytes(int32_t id, bool /*at_start*/) const {
  static const auto bytes = [] {
    std::array<char, 256> all{};
    for (int byte = 0; byte < 256; ++byte) all[byte] = static_cast<char>(byte);
    return all;
  }();
  check(id >= 0 && id < vocab_size(), "token id ", id, " is out of range for a vocabulary of ",
        vocab_size());
  return id == kEndOfText ? kEndOfTextToken : std::string_view(&bytes[id], 1);
}

std::optional<int32_t> ByteTokenizer::eos_id() const {
  return with_end_of_text_ ? std::optional(kEndOfText) : std::nullopt;
}

void ByteTokenizer::write_files(const std::filesystem::path& folder) const {
  ByteLevelVocabulary vocabulary{.split = ByteLevelSplit::kNone};
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
  if (with_end_of_text_) {
    vocabulary.tokens.emplace_back(kEndOfTextToken);
    vocabulary.add_special(vocabulary.tokens.back());
  }
  BpeTokenizer::from_json(byte_level_tokenizer_json(vocabulary), "byte vocabulary")->save(folder);
}

}  // namespace binade::data
