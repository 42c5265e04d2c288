#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/tokenizer_spec.h>

namespace binade::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = int64_t{1} << 28;

// "bos_token": "<s>", or null, or an object with a content.
std::optional<std::string> token_in(const JsonView& config, const char* key) {
  if (!config.raw().contains(key)) return std::nullopt;
  if (!config.has(key)) return "";
  const JsonView token = config[key];
  return token.raw().is_object() ? token["content"].text() : token.text();
}

// "eos_token_id": 2, or a list of which the first counts.
std::optional<int64_t> id_in(const JsonView& config, const char* key) {
  if (!config.has(key)) return std::nullopt;
  const JsonView ids = config[key];
  if (ids.raw().is_array() && ids.size() == 0) return std::nullopt;
  return (ids.raw().is_array() ? ids[size_t{0}] : ids)
      .integer(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
}

BpeTokenizer::Marks read_marks(const fs::path& folder) {
  BpeTokenizer::Marks marks;
  const auto with_config = [&](const char* file, const auto& read) {
    if (!fs::exists(folder / file)) return;
    const std::string name = (folder / file).string();
    const nlohmann::json document = parse_json(read_text_file(name, kMaxFileBytes), name);
    const JsonView config(document, concat(name, ": "));
    config.expect_object();
    read(config);
  };
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    with_config(file, [&](const JsonView& config) {
      if (!marks.bos_token) marks.bos_token = token_in(config, "bos_token");
      if (!marks.eos_token) marks.eos_token = token_in(config, "eos_token");
    });
  }
  with_config("config.json", [&](const JsonView& config) {
    marks.bos_id = id_in(config, "bos_token_id");
    marks.eos_id = id_in(config, "eos_token_id");
  });
  return marks;
}

}  // namespace

std::unique_ptr<BpeTokenizer> load_tokenizer_json(const fs::path& file) {
  return BpeTokenizer::from_json(read_text_file(file, kMaxFileBytes), file.string(),
                                 read_marks(file.parent_path()));
}

std::unique_ptr<BpeTokenizer> load_gpt2_tokenizer(const fs::path& vocab_json,
                                                  const fs::path& merges_txt) {
  const std::string name = vocab_json.string();
  const auto entries = parse_vocab_json(read_text_file(vocab_json, kMaxFileBytes), name);
  const auto merges = parse_merges(read_text_file(merges_txt, kMaxFileBytes), merges_txt.string());
  std::vector<std::string> vocab(entries.size()), special;
  for (const auto& [token, id] : entries) {
    check(static_cast<size_t>(id) < vocab.size() && vocab[id].empty(), name, ": token \"", token,
          "\" has id ", id, ", but the ids of ", vocab.size(), " tokens must be 0 to ",
          vocab.size() - 1, ", each once");
    vocab[id] = token;
    if (token == kEndOfTextToken) special.push_back(token);
  }
  return BpeTokenizer::from_json(byte_level_tokenizer_json(vocab, merges, special), name);
}

}  // namespace binade::data
