// Bytes as tokens.
#pragma once

#include <binade/data/tokenizer.h>

namespace binade::data {

// Ids 0 to 255 are the bytes; 256 ends a text ("<|endoftext|>"), unless the vocabulary does
// without. Saved as a tokenizer.json that Hugging Face's `tokenizers` reads and agrees with.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool with_end_of_text = true) : with_end_of_text_(with_end_of_text) {}

  std::vector<int32_t> encode(std::string_view text,
                              const EncodeOptions& options = {}) const override;
  std::string_view token_bytes(int32_t id, bool at_start) const override;
  bool is_special(int32_t id) const override { return id == kEndOfText; }
  int32_t vocab_size() const override { return with_end_of_text_ ? 257 : 256; }
  std::optional<int32_t> bos_id() const override { return eos_id(); }
  std::optional<int32_t> eos_id() const override;

 private:
  void write_files(const std::filesystem::path& folder) const override;

  static constexpr int32_t kEndOfText = 256;
  bool with_end_of_text_;
};

}  // namespace binade::data
