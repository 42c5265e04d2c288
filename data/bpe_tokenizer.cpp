#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/core/utf8.h>
#include <binade/data/added_tokens.h>
#include <binade/data/bpe_model.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/normalizer.h>
#include <binade/data/pre_tokenizer.h>
#include <binade/data/token_text.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

namespace binade::data {
namespace {

// The added tokens that are looked for in the text as it is.
std::vector<AddedToken> verbatim_tokens(std::vector<AddedToken> tokens) {
  std::erase_if(tokens, [](const AddedToken& token) { return token.normalized; });
  return tokens;
}

// Those that are looked for after normalisation, in normalised form.
std::vector<AddedToken> normalized_tokens(std::vector<AddedToken> tokens,
                                          const Normalizer& normalizer) {
  std::erase_if(tokens, [](const AddedToken& token) { return !token.normalized; });
  for (AddedToken& token : tokens) token.content = normalizer(token.content);
  return tokens;
}

}  // namespace

struct BpeTokenizer::Parts {
  Parts(TokenizerSpec spec, std::string text);

  std::optional<int32_t> id_of(std::string_view token) const {
    const auto entry = ids.find(std::string(token));
    return entry == ids.end() ? std::nullopt : std::optional(entry->second);
  }
  std::optional<int32_t> first_of(std::initializer_list<std::string_view> tokens) const;
  void encode_text(std::string_view text, bool parse_special, bool at_start, bool may_prefix,
                   std::vector<int32_t>& out) const;

  std::string json;
  bool byte_level;
  BpeModel model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokenMatcher verbatim;    // looked for in the text as it is
  AddedTokenMatcher normalized;  // looked for after normalisation
  TokenText text;
  std::vector<int32_t> prefix, suffix;
  std::unordered_map<std::string, int32_t> ids;
  std::vector<bool> special;  // by id
  std::optional<int32_t> bos, eos;
};

BpeTokenizer::Parts::Parts(TokenizerSpec spec, std::string source)
    : json(std::move(source)),
      byte_level(spec.byte_level()),
      model(spec),
      normalizer(spec.normalizer),
      pre_tokenizer(spec.pre_tokenizer),
      verbatim(verbatim_tokens(spec.added_tokens)),
      normalized(normalized_tokens(spec.added_tokens, normalizer)),
      text(spec.decoder),
      prefix(spec.prefix),
      suffix(spec.suffix) {
  for (const auto& [token, id] : spec.vocab) {
    text.add(id, token);
    ids.emplace(token, id);
  }
  special.resize(model.largest_id() + 1);
  for (const AddedToken& token : spec.added_tokens) {
    text.add(token.id, token.normalized ? normalizer(token.content) : token.content);
    ids.emplace(token.content, token.id);
    special.resize(std::max<size_t>(special.size(), token.id + 1));
    if (token.special) special[token.id] = true;
  }
  for (const auto& around : {prefix, suffix}) {
    for (const int32_t id : around) {
      check(id >= 0 && static_cast<size_t>(id) < special.size(), "the post-processor adds id ", id,
            ", which is out of range for a vocabulary of ", special.size());
    }
  }
}

std::optional<int32_t> BpeTokenizer::Parts::first_of(
    std::initializer_list<std::string_view> tokens) const {
  for (const std::string_view token : tokens) {
    if (const auto id = id_of(token)) return id;
  }
  return std::nullopt;
}

// Encodes well-formed UTF-8 that begins the whole text or not.
void BpeTokenizer::Parts::encode_text(std::string_view input, bool parse_special, bool at_start,
                                      bool may_prefix, std::vector<int32_t>& out) const {
  const auto workspace = model.workspace();
  const PreTokenizer::Sink merge = [&](std::string_view piece) {
    model.encode(piece, *workspace, out);
  };
  const auto cut = [&](std::string_view plain, bool starts) {
    normalized.split(plain, parse_special, [&](std::string_view stretch, int32_t id) {
      if (id != AddedTokenMatcher::kNoToken) return out.push_back(id);
      pre_tokenizer.run({stretch, starts && stretch.data() == plain.data(), may_prefix}, merge);
    });
  };
  verbatim.split(input, parse_special, [&](std::string_view stretch, int32_t id) {
    if (id != AddedTokenMatcher::kNoToken) return out.push_back(id);
    const bool starts = at_start && stretch.data() == input.data();
    normalizer.empty() ? cut(stretch, starts) : cut(normalizer(stretch), starts);
  });
}

BpeTokenizer::BpeTokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
BpeTokenizer::~BpeTokenizer() = default;

std::unique_ptr<BpeTokenizer> BpeTokenizer::from_json(std::string text, std::string_view name,
                                                      const Marks& marks) {
  TokenizerSpec spec = parse_tokenizer_json(text, name);
  std::unique_ptr<Parts> parts;
  try {
    parts = std::make_unique<Parts>(std::move(spec), std::move(text));
  } catch (const Error& error) {
    fail(name, ": ", error.what());
  }
  const auto resolve = [&](const std::optional<std::string>& token, std::optional<int64_t> id,
                           std::initializer_list<std::string_view> customary) {
    if (token && token->empty()) return std::optional<int32_t>();
    if (token) {
      const auto named = parts->id_of(*token);
      check(named.has_value(), name, ": the BOS or EOS token \"", *token,
            "\" is not in the vocabulary");
      return named;
    }
    if (!id) return parts->first_of(customary);
    if (*id >= 0 && *id < static_cast<int64_t>(parts->special.size()))
      return std::optional(static_cast<int32_t>(*id));
    log_warning(name, ": the BOS or EOS id ", *id, " is beyond the vocabulary of ",
                parts->special.size(), "; it is ignored");
    return std::optional<int32_t>();
  };
  parts->bos = resolve(marks.bos_token, marks.bos_id,
                       {"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", kEndOfTextToken});
  parts->eos =
      resolve(marks.eos_token, marks.eos_id, {"</s>", "<|end_of_text|>", "<eos>", kEndOfTextToken});
  return std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(parts)));
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text,
                                          const EncodeOptions& options) const {
  check(text.size() < std::numeric_limits<int32_t>::max(), "a text of ", text.size(),
        " bytes is too long to encode at once; the limit is 2^31 - 1");
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = parts_->prefix;
  const std::string repaired = parts_->byte_level || utf8_valid_prefix(text) == text.size()
                                   ? ""
                                   : utf8_replace_invalid(text);
  if (!repaired.empty()) text = repaired;
  for (size_t pos = 0; pos < text.size();) {
    const size_t valid = utf8_valid_prefix(text.substr(pos));
    if (valid > 0) {
      parts_->encode_text(text.substr(pos, valid), options.parse_special_tokens, pos == 0, pos == 0,
                          ids);
      pos += valid;
      continue;
    }
    // A malformed byte is the token of that byte, so that decoding gives back what was there.
    const int32_t id = parts_->model.byte_id(static_cast<unsigned char>(text[pos++]));
    if (id >= 0) {
      ids.push_back(id);
    } else {
      parts_->encode_text(kReplacementCharacter, false, false, false, ids);
    }
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  }
  return ids;
}

std::string_view BpeTokenizer::token_bytes(int32_t id, bool at_start) const {
  check(id >= 0 && id < vocab_size(), "token id ", id, " is out of range for a vocabulary of ",
        vocab_size());
  return parts_->text.get(id, at_start);
}

bool BpeTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && parts_->special[id];
}
int32_t BpeTokenizer::vocab_size() const {
  return static_cast<int32_t>(parts_->special.size());
}
std::optional<int32_t> BpeTokenizer::bos_id() const {
  return parts_->bos;
}
std::optional<int32_t> BpeTokenizer::eos_id() const {
  return parts_->eos;
}
std::optional<int32_t> BpeTokenizer::token_id(std::string_view token) const {
  return parts_->id_of(token);
}

void BpeTokenizer::write_files(const std::filesystem::path& folder) const {
  const auto spelled = [&](std::optional<int32_t> id) {
    return id ? std::string(token_bytes(*id, false)) : std::string();
  };
  write_text_file(folder / "tokenizer.json", parts_->json);
  write_text_file(folder / "tokenizer_config.json",
                  tokenizer_config_json(spelled(bos_id()), spelled(eos_id())));
}

}  // namespace binade::data
