#include <algorithm>
#include <iterator>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/byte_tokenizer.h>
#include <binade/data/sentencepiece_tokenizer.h>
#include <binade/data/tokenizer.h>
#include <binade/data/tokenizer_files.h>

namespace binade::data {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 28;
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kFilesBeside[] = {kConfigFile, "special_tokens_map.json",
                                        "chat_template.jinja"};

// Fields of the file `ours` that the text `theirs` lacks are added to it.
std::string with_fields_of(const std::filesystem::path& ours, const std::string& theirs) {
  const nlohmann::json mine = parse_json(read_text_file(ours, kMaxFileBytes), ours.string());
  nlohmann::json all = parse_json(theirs, kConfigFile);
  bool added = false;
  for (const auto& [key, value] : mine.items())
    if (!all.contains(key)) added = true, all[key] = value;
  return added ? all.dump(2) + "\n" : theirs;
}

// The files that a tokenizer may have; `merges` is null where one file says all.
struct FileSet {
  const char *file, *merges;
};
constexpr FileSet kFileSets[] = {{"tokenizer.json", nullptr},
                                 {"tokenizer.model", nullptr},
                                 {"vocab.json", "merges.txt"},
                                 {"encoder.json", "vocab.bpe"}};

// The first of them that are in the folder; null: none are.
const FileSet* files_in(const std::filesystem::path& folder) {
  std::error_code unreadable;
  const auto has = [&](const char* file) {
    return !file || std::filesystem::exists(folder / file, unreadable);
  };
  const auto* const found =
      std::find_if(std::begin(kFileSets), std::end(kFileSets),
                   [&](const FileSet& set) { return has(set.file) && has(set.merges); });
  return found == std::end(kFileSets) ? nullptr : found;
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& folder_or_file) {
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
  const FileSet* found = files_in(folder_or_file);
  check(found != nullptr, "no tokenizer in ", name,
        ": looked for tokenizer.json, tokenizer.model, vocab.json with merges.txt, encoder.json "
        "with vocab.bpe");
  const fs::path file = folder_or_file / found->file;
  if (found->merges) return load_gpt2_tokenizer(file, folder_or_file / found->merges);
  if (file.extension() == ".model") return std::make_unique<SentencePieceTokenizer>(file);
  return load_tokenizer_json(file);
}

}  // namespace

bool has_tokenizer(const std::filesystem::path& folder) {
  return files_in(folder) != nullptr;
}

void Tokenizer::save(const std::filesystem::path& folder) const {
  std::filesystem::create_directories(folder);
  write_files(folder);
  for (const auto& [name, text] : beside_) {
    const std::filesystem::path file = folder / name;
    const bool both = name == kConfigFile && std::filesystem::exists(file);
    write_text_file(file, both ? with_fields_of(file, text) : text);
  }
}

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

void check_same_tokens(const Tokenizer& tokenizer, const Tokenizer& other,
                       const std::string& name) {
  check(tokenizer.vocab_size() == other.vocab_size(), name, " has a tokenizer of ",
        other.vocab_size(), " tokens, the model's has ", tokenizer.vocab_size(),
        "; both must read the same tokens");
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    check(tokenizer.token_bytes(id, false) == other.token_bytes(id, false), name, ": its token ",
          id, " is another than the model's; both must read the same tokens");
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
  std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(folder_or_file);
  if (!fs::exists(folder_or_file)) return tokenizer;  // the word "bytes"
  const fs::path folder =
      fs::is_directory(folder_or_file) ? folder_or_file : folder_or_file.parent_path();
  for (const char* file : kFilesBeside)
    if (fs::exists(folder / file))
      tokenizer->beside_.emplace_back(file, read_text_file(folder / file, kMaxFileBytes));
  return tokenizer;
}

}  // namespace binade::data
