// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace binade::data {

struct EncodeOptions {
  // Adds what the tokenizer's post-processor puts around a text (often the BOS id).
  bool add_special_tokens = false;
  // Recognises special tokens that are written out in the text, as Hugging Face's `tokenizers`
  // does. Set false for text that is not trusted: "<|endoftext|>" is then encoded as the characters
  // it is.
  bool parse_special_tokens = true;
};

// Immutable and safe to use from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of a text. Bytes that are not UTF-8 are kept by byte-level vocabularies, each as the token
  // of that byte, and count as U+FFFD elsewhere. Error when the text has 2^31 bytes or more.
  virtual std::vector<int32_t> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const = 0;

  // The bytes that a token stands for, wherever it is or, if `at_start`, as the first token of a
  // text (SentencePiece vocabularies drop a space there). Error when the id is out of range.
  virtual std::string_view token_bytes(int32_t id, bool at_start) const = 0;

  // Whether the token is a mark of the vocabulary's own (BOS, end of text) rather than text.
  virtual bool is_special(int32_t id) const = 0;

  // The largest id + 1: the rows that an embedding needs.
  virtual int32_t vocab_size() const = 0;

  // Marks the beginning and the end of a text, where the vocabulary has such tokens.
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;

  // Writes the files that load_tokenizer, and where the format allows it Hugging Face's libraries,
  // read from a folder; creates the folder. A tokenizer that was loaded brings along what
  // lay beside it: tokenizer_config.json, special_tokens_map.json and chat_template.jinja.
  void save(const std::filesystem::path& folder) const;

  // The bytes of a text. They are not UTF-8 where the ids cut a character; utf8_replace_invalid and
  // StreamDecoder see to that. Error when an id is out of range.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

 private:
  friend std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

  // The vocabulary's own files, into a folder that is there.
  virtual void write_files(const std::filesystem::path& folder) const = 0;

  std::vector<std::pair<std::string, std::string>> beside_;  // names and texts of files
};

// CRC-32C of what the ids of a tokenizer stand for: ids of one vocabulary mean the same in another
// with this fingerprint, however either splits a text.
uint32_t vocabulary_fingerprint(const Tokenizer& tokenizer);

// Throws Error, beginning with `name` of the other model, unless each id stands for the same bytes
// in both.
void check_same_tokens(const Tokenizer& tokenizer, const Tokenizer& other, const std::string& name);

// Decodes ids one at a time into well-formed UTF-8, for text that is shown while it is generated.
// The parts together are the decoded text with malformed bytes replaced by U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // The characters that `id` completes; the beginning of one waits for the ids that complete it.
  std::string push(int32_t id);

  // What still waits, as U+FFFD. The decoder is then ready for another text.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  bool at_start_ = true;
  std::string pending_;
};

// Loads the tokenizer of a folder: tokenizer.json (BPE), tokenizer.model (SentencePiece), or
// vocab.json + merges.txt of GPT-2 or Qwen2, or GPT-2's encoder.json + vocab.bpe, in this order; or
// one such file by its name
// (.json, .model). The word "bytes" stands for a ByteTokenizer. Error when nothing fits, or for any
// fault of the file.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

}  // namespace binade::data
