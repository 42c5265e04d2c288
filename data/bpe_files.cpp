#include <algorithm>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/tokenizer_spec.h>

namespace binade::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = int64_t{1} << 28;
constexpr const char* kConfigFile = "tokenizer_config.json";

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

// Calls read(config) for a file of the folder, if it is there.
template <class Read>
void with_config(const fs::path& file, const Read& read) {
  if (!fs::exists(file)) return;
  const nlohmann::json document = parse_json(read_text_file(file, kMaxFileBytes), file.string());
  const JsonView config(document, concat(file.string(), ": "));
  config.expect_object();
  read(config);
}

BpeTokenizer::Marks read_marks(const fs::path& folder) {
  BpeTokenizer::Marks marks;
  for (const char* file : {kConfigFile, "special_tokens_map.json"}) {
    with_config(folder / file, [&](const JsonView& config) {
      if (!marks.bos_token) marks.bos_token = token_in(config, "bos_token");
      if (!marks.eos_token) marks.eos_token = token_in(config, "eos_token");
    });
  }
  with_config(folder / "config.json", [&](const JsonView& config) {
    marks.bos_id = id_in(config, "bos_token_id");
    marks.eos_id = id_in(config, "eos_token_id");
  });
  return marks;
}

// What tokenizer_config.json says of the vocabulary beside it.
void read_config(const fs::path& folder, ByteLevelVocabulary& vocabulary) {
  with_config(folder / kConfigFile, [&](const JsonView& config) {
    const std::string kind = config.text_or("tokenizer_class", "GPT2Tokenizer");
    if (kind == "Qwen2Tokenizer" || kind == "Qwen2TokenizerFast")
      vocabulary.split = ByteLevelSplit::kQwen2;
    else if (kind != "GPT2Tokenizer" && kind != "GPT2TokenizerFast")
      config["tokenizer_class"].refuse(
          "vocab.json and merges.txt are read as GPT2Tokenizer's or Qwen2Tokenizer's, not as \"",
          kind, "\"'s; a tokenizer.json says itself how it splits texts");
    for (const AddedToken& token : parse_added_tokens_decoder(config))
      vocabulary.added_tokens.push_back(token);
  });
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
  ByteLevelVocabulary vocabulary{
      .tokens = std::vector<std::string>(entries.size()),
      .merges = parse_merges(read_text_file(merges_txt, kMaxFileBytes), merges_txt.string())};
  std::vector<std::string>& tokens = vocabulary.tokens;
  for (const auto& [token, id] : entries) {
    check(static_cast<size_t>(id) < tokens.size() && tokens[id].empty(), name, ": token \"", token,
          "\" has id ", id, ", but the ids of ", tokens.size(), " tokens must be 0 to ",
          tokens.size() - 1, ", each once");
    tokens[id] = token;
  }
  const fs::path folder = vocab_json.parent_path();
  read_config(folder, vocabulary);
  const auto known = [&](const AddedToken& token) { return token.content == kEndOfTextToken; };
  if (std::find(tokens.begin(), tokens.end(), kEndOfTextToken) != tokens.end() &&
      std::none_of(vocabulary.added_tokens.begin(), vocabulary.added_tokens.end(), known))
    vocabulary.add_special(std::string(kEndOfTextToken));
  return BpeTokenizer::from_json(byte_level_tokenizer_json(vocabulary), name, read_marks(folder));
}

}  // namespace binade::data
