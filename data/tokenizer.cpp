#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/byte_tokenizer.h>
#include <binade/data/sentencepiece_tokenizer.h>
#include <binade/data/tokenizer.h>

namespace binade::data {

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  bool at_start = true;
  for (const int32_t id : ids) {
    const std::string_view bytes = token_bytes(id, at_start);
    if (skip_special_tokens && is_special(id)) continue;
    text += bytes;
    at_start = false;
  }
  return text;
}

uint32_t vocabulary_fingerprint(const Tokenizer& tokenizer) {
  uint32_t checksum = 0;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id, /*at_start=*/false);
    const uint64_t size_and_kind = bytes.size() * 2 + (tokenizer.is_special(id) ? 1 : 0);
    checksum = crc32c(&size_and_kind, sizeof(size_and_kind), checksum);
    checksum = crc32c(bytes.data(), bytes.size(), checksum);
  }
  return checksum;
}

std::string StreamDecoder::push(int32_t id) {
  const std::string_view bytes = tokenizer_.token_bytes(id, at_start_);
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  at_start_ = false;
  pending_ += bytes;
  // All but an unfinished character at the very end can go out.
  size_t complete = 0;
  while (complete < pending_.size()) {
    const Utf8Step step = utf8_step(std::string_view(pending_).substr(complete));
    if (step.truncated) break;
    complete += step.length;
  }
  std::string out = utf8_replace_invalid(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = utf8_replace_invalid(pending_);
  pending_.clear();
  at_start_ = true;
  return out;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file) {
  namespace fs = std::filesystem;
  const std::string name = folder_or_file.string();
  std::error_code error;
  const fs::file_status status = fs::status(folder_or_file, error);
  if (!fs::exists(status) && name == "bytes") return std::make_unique<ByteTokenizer>();
  check(fs::exists(status), "no tokenizer at ", name, ": ",
        error ? error.message() : "no such file or folder");
  if (!fs::is_directory(status)) {
    if (folder_or_file.extension() == ".json") return load_tokenizer_json(folder_or_file);
    if (folder_or_file.extension() == ".model") {
      return std::make_unique<SentencePieceTokenizer>(folder_or_file);
    }
    fail("cannot tell what tokenizer ", name, " is: expected a name that ends in .json or .model");
  }
  const auto has = [&](const char* file) { return fs::exists(folder_or_file / file, error); };
  if (has("tokenizer.json")) return load_tokenizer_json(folder_or_file / "tokenizer.json");
  if (has("tokenizer.model")) {
    return std::make_unique<SentencePieceTokenizer>(folder_or_file / "tokenizer.model");
  }
  for (const auto& [vocab, merges] :
       {std::pair("vocab.json", "merges.txt"), std::pair("encoder.json", "vocab.bpe")}) {
    if (has(vocab) && has(merges)) {
      return load_gpt2_tokenizer(folder_or_file / vocab, folder_or_file / merges);
    }
  }
  fail("no tokenizer in ", name, ": looked for tokenizer.json, tokenizer.model, vocab.json with ",
       "merges.txt, encoder.json with vocab.bpe");
}

}  // namespace binade::data
