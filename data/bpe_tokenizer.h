// Byte-pair encoding as tokenizer.json describes it (GPT-2, Llama, Qwen2, SmolLM2 and their like).
#pragma once

#include <binade/data/tokenizer.h>

#include <memory>

namespace binade::data {

inline constexpr std::string_view kEndOfTextToken = "<|endoftext|>";

// Gives the ids that Hugging Face's `tokenizers` gives. Truncation and padding that the file may
// ask for are ignored.
class BpeTokenizer : public Tokenizer {
 public:
  // BOS and EOS as files beside tokenizer.json name them: by token (empty: there is none), else by
  // id, else not at all, and then the vocabulary's customary tokens are taken ("<s>", "</s>",
  // "<|endoftext|>" and so on).
  struct Marks {
    std::optional<std::string> bos_token, eos_token;
    std::optional<int64_t> bos_id, eos_id;
  };

  // Error for malformed JSON (with line and column), a component that is not known (by name), or an
  // inconsistent vocabulary. `name` stands for the file in errors.
  static std::unique_ptr<BpeTokenizer> from_json(std::string text, std::string_view name,
                                                 const Marks& marks = {});
  ~BpeTokenizer() override;

  std::vector<int32_t> encode(std::string_view text,
                              const EncodeOptions& options = {}) const override;
  std::string_view token_bytes(int32_t id, bool at_start) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override;
  std::optional<int32_t> bos_id() const override;
  std::optional<int32_t> eos_id() const override;

  // The id of a token as it is spelled in the file; nullopt if there is none.
  std::optional<int32_t> token_id(std::string_view token) const;

 private:
  // tokenizer.json, unchanged if it was loaded, and tokenizer_config.json.
  void write_files(const std::filesystem::path& folder) const override;

  struct Parts;
  explicit BpeTokenizer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// Loads a tokenizer.json and, for BOS and EOS, what lies beside it: tokenizer_config.json,
// special_tokens_map.json or config.json.
std::unique_ptr<BpeTokenizer> load_tokenizer_json(const std::filesystem::path& file);

// Loads GPT-2's pair of files, or Qwen2's where the tokenizer_config.json beside them says so. The
// tokens that it adds (added_tokens_decoder) come behind the vocabulary's; "<|endoftext|>", if the
// vocabulary has it, is a special token in any case. BOS and EOS are found as beside
// tokenizer.json. Error for another tokenizer_class, which splits texts in ways of its own.
std::unique_ptr<BpeTokenizer> load_gpt2_tokenizer(const std::filesystem::path& vocab_json,
                                                  const std::filesystem::path& merges_txt);

}  // namespace binade::data
