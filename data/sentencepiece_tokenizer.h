// SentencePiece models (Kudo & Richardson 2018) through libsentencepiece.
#pragma once

#include <binade/data/tokenizer.h>

#include <memory>

namespace binade::data {

// Ids and text as libsentencepiece gives them. Its models do not recognise special tokens in a
// text, so EncodeOptions::parse_special_tokens has no effect; `add_special_tokens` puts BOS in
// front.
class SentencePieceTokenizer : public Tokenizer {
 public:
  // Error when the file is missing, too large or not a SentencePiece model.
  explicit SentencePieceTokenizer(const std::filesystem::path& model_file);
  ~SentencePieceTokenizer() override;

  std::vector<int32_t> encode(std::string_view text,
                              const EncodeOptions& options = {}) const override;
  std::string_view token_bytes(int32_t id, bool at_start) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override;
  std::optional<int32_t> bos_id() const override;
  std::optional<int32_t> eos_id() const override;
  // Writes tokenizer.model, unchanged.

 private:
  void write_files(const std::filesystem::path& folder) const override;

  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace binade::data
