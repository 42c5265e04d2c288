#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/byte_alphabet.h>
#include <binade/data/tokenizer_spec.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <unordered_map>

namespace binade::data {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 28;
constexpr int kMaxNesting = 8;  // of sequences inside sequences
constexpr int32_t kMaxId = std::numeric_limits<int32_t>::max() - 1;

// Calls visit(part) for a component, or for each part of it when it is a Sequence whose parts are
// listed under `key`.
template <class Visit>
void for_each_part(const JsonView& component, const char* key, const Visit& visit, int depth = 0) {
  if (component["type"].text() != "Sequence") return visit(component);
  if (depth == kMaxNesting) component.refuse("sequences are nested too deeply");
  const JsonView parts = component[key];
  parts.expect_array();
  for (size_t i = 0; i < parts.size(); ++i) for_each_part(parts[i], key, visit, depth + 1);
}

Pattern parse_pattern(const JsonView& view) {
  Pattern pattern;
  pattern.is_regex = view.has("Regex");
  if (!pattern.is_regex && !view.has("String")) view.refuse("expected a String or a Regex");
  pattern.text = view[pattern.is_regex ? "Regex" : "String"].text();
  if (pattern.text.empty()) view.refuse("the pattern is empty");
  return pattern;
}

std::string one_character(const JsonView& view) {
  const std::string& text = view.text();
  if (text.empty() || static_cast<size_t>(utf8_step(text).length) != text.size()) {
    view.refuse("expected a single character");
  }
  return text;
}

NormalizerStep parse_normalizer(const JsonView& view) {
  using Kind = NormalizerStep::Kind;
  static const std::unordered_map<std::string, Kind> kKinds = {
      {"NFC", Kind::kNfc},
      {"NFD", Kind::kNfd},
      {"NFKC", Kind::kNfkc},
      {"NFKD", Kind::kNfkd},
      {"Lowercase", Kind::kLowercase},
      {"StripAccents", Kind::kStripAccents},
      {"Strip", Kind::kStrip},
      {"Prepend", Kind::kPrepend},
      {"Replace", Kind::kReplace}};
  const std::string& type = view["type"].text();
  const auto kind = kKinds.find(type);
  if (kind == kKinds.end()) view.refuse("the normalizer \"", type, "\" is not known");
  NormalizerStep step;
  step.kind = kind->second;
  if (step.kind == Kind::kPrepend) step.content = view["prepend"].text();
  if (step.kind == Kind::kReplace) {
    step.pattern = parse_pattern(view["pattern"]);
    step.content = view["content"].text();
  }
  if (step.kind == Kind::kStrip) {
    step.strip_left = view["strip_left"].flag();
    step.strip_right = view["strip_right"].flag();
  }
  return step;
}

PreTokenizerStep::PrependScheme parse_prepend_scheme(const JsonView& view) {
  using Scheme = PreTokenizerStep::PrependScheme;
  if (!view.flag_or("add_prefix_space", true)) return Scheme::kNever;  // older files
  const std::string scheme = view.text_or("prepend_scheme", "always");
  if (scheme == "always") return Scheme::kAlways;
  if (scheme == "never") return Scheme::kNever;
  if (scheme == "first") return Scheme::kFirst;
  view.refuse("the prepend_scheme \"", scheme, "\" is not known");
}

SplitBehavior parse_behavior(const JsonView& view) {
  static const std::unordered_map<std::string, SplitBehavior> kBehaviors = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const auto behavior = kBehaviors.find(view.text());
  if (behavior == kBehaviors.end()) {
    view.refuse("the behavior \"", view.text(), "\" is not known");
  }
  return behavior->second;
}

PreTokenizerStep parse_pre_tokenizer(const JsonView& view) {
  using Kind = PreTokenizerStep::Kind;
  const std::string& type = view["type"].text();
  PreTokenizerStep step;
  if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
    step.add_prefix_space = view["add_prefix_space"].flag();
    step.use_regex = view.flag_or("use_regex", true);
  } else if (type == "Split") {
    step.kind = Kind::kSplit;
    step.pattern = parse_pattern(view["pattern"]);
    step.behavior = parse_behavior(view["behavior"]);
    step.invert = view.flag_or("invert", false);
  } else if (type == "Digits") {
    step.kind = Kind::kDigits;
    step.individual_digits = view.flag_or("individual_digits", false);
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    step.replacement = one_character(view["replacement"]);
    step.prepend_scheme = parse_prepend_scheme(view);
    step.split = view.flag_or("split", true);
  } else {
    view.refuse("the pre-tokenizer \"", type, "\" is not known");
  }
  return step;
}

// Reads the decoder's parts in the order in which they act: replacements inside tokens, bytes,
// fusing, stripping.
class DecoderParser {
 public:
  void read(const JsonView& view) {
    const std::string& type = view["type"].text();
    if (type == "ByteLevel") {
      advance(view, 1);
      spec_.byte_level = true;
    } else if (type == "Metaspace") {
      advance(view, 1);
      const std::string replacement = one_character(view["replacement"]);
      if (parse_prepend_scheme(view) == PreTokenizerStep::PrependScheme::kNever) {
        spec_.replacements.emplace_back(replacement, " ");
      } else {
        spec_.drop_in_first = replacement;
      }
    } else if (type == "Replace") {
      advance(view, 1);
      const Pattern pattern = parse_pattern(view["pattern"]);
      if (pattern.is_regex) view.refuse("a decoder that replaces a Regex is not supported");
      spec_.replacements.emplace_back(pattern.text, view["content"].text());
    } else if (type == "ByteFallback") {
      advance(view, 2);
      spec_.byte_fallback = true;
    } else if (type == "Fuse") {
      advance(view, 3);
    } else if (type == "Strip") {
      if (stage_ < 3) view.refuse("a Strip decoder before Fuse is not supported");
      advance(view, 4);
      if (view["start"].integer(0, 1) == 1) spec_.strip_start = one_character(view["content"]);
      view["stop"].integer(0, 0);
    } else {
      view.refuse("the decoder \"", type, "\" is not known");
    }
  }
  DecoderSpec take() { return std::move(spec_); }

 private:
  void advance(const JsonView& view, int stage) {
    const bool repeats = stage == stage_ && view["type"].text() != "Replace";
    if (stage < stage_ || repeats) view.refuse("this order of decoders is not supported");
    stage_ = stage;
  }

  DecoderSpec spec_;
  int stage_ = 0;
};

// The ids that a post-processor puts before and after a text.
void parse_post_processor(const JsonView& view, TokenizerSpec& spec) {
  const std::string& type = view["type"].text();
  if (type == "ByteLevel") return;  // only moves offsets
  if (type != "TemplateProcessing") view.refuse("the post-processor \"", type, "\" is not known");
  const JsonView single = view["single"];
  single.expect_array();
  bool behind_text = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const JsonView piece = single[i];
    if (piece.has("Sequence")) {
      if (behind_text) piece.refuse("the text is named twice");
      behind_text = true;
      continue;
    }
    const std::string& token = piece["SpecialToken"]["id"].text();
    const JsonView ids = view["special_tokens"][token.c_str()]["ids"];
    ids.expect_array();
    for (size_t k = 0; k < ids.size(); ++k) {
      (behind_text ? spec.suffix : spec.prefix)
          .push_back(static_cast<int32_t>(ids[k].integer(0, kMaxId)));
    }
  }
  if (!behind_text) single.refuse("the text is not named");
}

std::vector<std::pair<std::string, int32_t>> parse_vocab(const JsonView& view) {
  view.expect_object();
  std::vector<std::pair<std::string, int32_t>> vocab;
  vocab.reserve(view.size());
  for (const auto& [token, id] : view.raw().items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxId) {
      view.refuse("the id of token \"", token, "\" is ", id.dump(), ", not a small integer");
    }
    vocab.emplace_back(token, id.get<int32_t>());
  }
  return vocab;
}

// "left right"
std::pair<std::string, std::string> split_merge(std::string_view line, std::string_view where,
                                                size_t number) {
  const size_t space = line.find(' ');
  check(space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos &&
            space > 0 && space + 1 < line.size(),
        where, ": merge ", number, " is \"", line, "\", not two tokens with a space between");
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

void parse_model(const JsonView& view, TokenizerSpec& spec) {
  const std::string type = view.text_or("type", "BPE");
  if (type != "BPE") view.refuse("the model is \"", type, "\"; only BPE is supported");
  if (view.has("dropout") && view["dropout"].raw() != 0.0) {
    view.refuse("BPE dropout is not supported");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!view.text_or(affix, "").empty()) view.refuse("\"", affix, "\" is not supported");
  }
  spec.unk_token = view.text_or("unk_token", "");
  spec.fuse_unk = view.flag_or("fuse_unk", false);
  spec.byte_fallback = view.flag_or("byte_fallback", false);
  spec.ignore_merges = view.flag_or("ignore_merges", false);
  spec.vocab = parse_vocab(view["vocab"]);
  const JsonView merges = view["merges"];
  merges.expect_array();
  spec.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    if (merges.raw()[i].is_string()) {
      spec.merges.push_back(split_merge(merges[i].text(), merges.where(), i));
    } else {
      const JsonView pair = merges[i];
      if (pair.size() != 2) pair.refuse("expected two tokens");
      spec.merges.emplace_back(pair[size_t{0}].text(), pair[1].text());
    }
  }
}

AddedToken parse_added_token(const JsonView& entry, int64_t id) {
  AddedToken token;
  token.id = static_cast<int32_t>(id);
  token.content = entry["content"].text();
  token.single_word = entry.flag_or("single_word", false);
  token.lstrip = entry.flag_or("lstrip", false);
  token.rstrip = entry.flag_or("rstrip", false);
  token.special = entry.flag_or("special", false);
  token.normalized = entry.flag_or("normalized", !token.special);
  return token;
}

void parse_added_tokens(const JsonView& view, TokenizerSpec& spec) {
  view.expect_array();
  std::unordered_map<std::string_view, int32_t> id_of;
  std::unordered_map<int32_t, std::string_view> token_of;
  for (const auto& [token, id] : spec.vocab) {
    id_of.emplace(token, id);
    token_of.emplace(id, token);
  }
  // As in BpeModel, a bound on what tables by id allocate.
  const int64_t limit = 4 * static_cast<int64_t>(spec.vocab.size() + view.size()) + 4096;
  for (size_t i = 0; i < view.size(); ++i) {
    const JsonView entry = view[i];
    AddedToken token = parse_added_token(entry, entry["id"].integer(0, limit));
    if (token.content.empty()) continue;  // as the reference implementation does
    const auto known_id = id_of.find(token.content);
    if (known_id != id_of.end() && known_id->second != token.id) {
      entry.refuse("token \"", token.content, "\" has id ", token.id, " here and id ",
                   known_id->second, " elsewhere");
    }
    const auto known_token = token_of.find(token.id);
    if (known_token != token_of.end() && known_token->second != token.content) {
      entry.refuse("id ", token.id, " of token \"", token.content, "\" belongs to \"",
                   known_token->second, "\"");
    }
    spec.added_tokens.push_back(std::move(token));
    // The views must outlive the loop: they point into the JSON document, not into the copy.
    id_of.emplace(entry["content"].text(), spec.added_tokens.back().id);
    token_of.emplace(spec.added_tokens.back().id, entry["content"].text());
  }
}

}  // namespace

TokenizerSpec parse_tokenizer_json(std::string_view text, std::string_view name) {
  check(text.size() <= kMaxBytes, name, " has ", text.size(), " bytes, more than the ", kMaxBytes,
        " accepted");
  const nlohmann::json document = parse_json(text, name);
  const JsonView root(document, concat(name, ": "));
  root.expect_object();
  TokenizerSpec spec;
  parse_model(root["model"], spec);
  if (root.has("added_tokens")) parse_added_tokens(root["added_tokens"], spec);
  if (root.has("normalizer")) {
    for_each_part(root["normalizer"], "normalizers",
                  [&](const JsonView& part) { spec.normalizer.push_back(parse_normalizer(part)); });
  }
  if (root.has("pre_tokenizer")) {
    for_each_part(root["pre_tokenizer"], "pretokenizers", [&](const JsonView& part) {
      if (spec.byte_level()) part.refuse("a pre-tokenizer after ByteLevel is not supported");
      spec.pre_tokenizer.push_back(parse_pre_tokenizer(part));
    });
  }
  if (root.has("post_processor")) {
    for_each_part(root["post_processor"], "processors",
                  [&](const JsonView& part) { parse_post_processor(part, spec); });
  }
  if (root.has("decoder")) {
    DecoderParser parser;
    for_each_part(root["decoder"], "decoders", [&](const JsonView& part) { parser.read(part); });
    spec.decoder = parser.take();
  } else {
    spec.decoder.byte_level = spec.byte_level();
  }
  return spec;
}

void ByteLevelVocabulary::add_special(const std::string& token) {
  const auto entry = std::find(tokens.begin(), tokens.end(), token);
  check(entry != tokens.end(), "the special token \"", token, "\" is not in the vocabulary");
  added_tokens.push_back(
      {.id = static_cast<int32_t>(entry - tokens.begin()), .content = token, .special = true});
}

namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson json_of(const AddedToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

// One dictionary serves as pre-tokenizer, post-processor and decoder, as in GPT-2's own file.
OrderedJson byte_level_part(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// Qwen2Tokenizer of `transformers` splits by this.
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

OrderedJson pre_tokenizer_of(ByteLevelSplit split) {
  if (split != ByteLevelSplit::kQwen2) return byte_level_part(split == ByteLevelSplit::kGpt2);
  const OrderedJson pattern = {{"type", "Split"},
                               {"pattern", {{"Regex", kQwen2Pattern}}},
                               {"behavior", "Isolated"},
                               {"invert", false}};
  return {{"type", "Sequence"},
          {"pretokenizers", OrderedJson::array({pattern, byte_level_part(false)})}};
}

}  // namespace

std::string byte_level_tokenizer_json(const ByteLevelVocabulary& vocabulary) {
  const auto& [tokens, merges, added_tokens, split] = vocabulary;
  // An ordered object looks every new key up among the ones before, so the text of a large
  // vocabulary is put together by hand.
  std::string vocab_text = "{", merges_text = "[";
  for (size_t id = 0; id < tokens.size(); ++id)
    vocab_text += concat(id ? "," : "", "\n      ", OrderedJson(tokens[id]).dump(), ": ", id);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    merges_text += concat(rank ? "," : "", "\n      ",
                          OrderedJson::array({merges[rank].first, merges[rank].second}).dump());
  }
  OrderedJson added = OrderedJson::array();
  for (const AddedToken& token : added_tokens) added.push_back(json_of(token));
  const std::string byte_level = byte_level_part(split == ByteLevelSplit::kGpt2).dump();
  const char* normalizer = split == ByteLevelSplit::kQwen2 ? R"({"type":"NFC"})" : "null";
  return concat("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n",
                "  \"added_tokens\": ", added.dump(), ",\n  \"normalizer\": ", normalizer,
                ",\n  \"pre_tokenizer\": ", pre_tokenizer_of(split).dump(),
                ",\n  \"post_processor\": ", byte_level, ",\n  \"decoder\": ", byte_level,
                ",\n  \"model\": {\n    \"type\": \"BPE\",\n",
                "    \"dropout\": null,\n    \"unk_token\": null,\n",
                "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n",
                "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n",
                "    \"ignore_merges\": false,\n    \"vocab\": ", vocab_text,
                "\n    },\n    \"merges\": ", merges_text, merges.empty() ? "]" : "\n    ]",
                "\n  }\n}\n");
}

std::vector<AddedToken> parse_added_tokens_decoder(const JsonView& config) {
  std::vector<AddedToken> tokens;
  if (!config.has("added_tokens_decoder")) return tokens;
  const JsonView all = config["added_tokens_decoder"];
  all.expect_object();
  for (const auto& [key, value] : all.raw().items()) {
    int32_t id = 0;
    const auto [end, fault] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (fault != std::errc() || end != key.data() + key.size() || id < 0)
      all.refuse("\"", key, "\" is not the id of a token");
    tokens.push_back(parse_added_token(all[key.c_str()], id));
  }
  // Keys of JSON are sorted as words; ids are numbers.
  std::sort(tokens.begin(), tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return tokens;
}

std::string tokenizer_config_json(const std::string& bos_token, const std::string& eos_token) {
  nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                   {"clean_up_tokenization_spaces", false},
                                   {"bos_token", nullptr},
                                   {"eos_token", nullptr}};
  if (!bos_token.empty()) config["bos_token"] = bos_token;
  if (!eos_token.empty()) config["eos_token"] = eos_token;
  return config.dump(2) + "\n";
}

std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              std::string_view name) {
  const nlohmann::json document = parse_json(text, name);
  return parse_vocab(JsonView(document, std::string(name)));
}

std::vector<std::pair<std::string, std::string>> parse_merges(std::string_view text,
                                                              std::string_view name) {
  check(utf8_valid_prefix(text) == text.size(), name, ": not valid UTF-8 at byte ",
        utf8_valid_prefix(text));
  std::vector<std::pair<std::string, std::string>> merges;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version") || (line.empty() && text.empty())) continue;
    merges.push_back(split_merge(line, name, merges.size()));
  }
  return merges;
}

}  // namespace binade::data
