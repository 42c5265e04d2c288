#include "parsed_json.h"
#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/byte_alphabet.h>
#include <binade/data/tokenizer_spec.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <climits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;
using nlohmann::json;

namespace {

// A tokenizer.json with ids in the order of `tokens`.
json tokenizer_json(const std::vector<std::string>& tokens,
                    const std::vector<std::pair<std::string, std::string>>& merges) {
  json vocab = json::object(), pairs = json::array();
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  for (const auto& [left, right] : merges) pairs.push_back({left, right});
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", pairs}}}};
}

std::unique_ptr<BpeTokenizer> load(const json& spec) {
  return BpeTokenizer::from_json(spec.dump(), "test.json");
}

Ids encode(const json& spec, std::string_view text) {
  return load(spec)->encode(text);
}

const json kByteLevel = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

// All 256 bytes, spelled in GPT-2's alphabet; the id of a byte is its value.
std::vector<std::string> bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(spell_bytes(std::string(1, static_cast<char>(byte))));
  }
  return tokens;
}

// The pieces that a pre-tokenizer makes. They show through a vocabulary that has every substring of
// the text as a token and, with ignore_merges, looks whole pieces up.
std::vector<std::string> pieces(const json& pre_tokenizer, const std::string& text) {
  std::vector<std::string> tokens = bytes();
  std::set<std::string> seen;
  const std::string extended = " " + text;  // for a prefix space
  for (const std::string& whole : {extended, text}) {
    for (size_t start = 0; start < whole.size(); ++start) {
      for (size_t end = start + 2; end <= whole.size(); ++end) {
        const std::string token = whole.substr(start, end - start);
        if (seen.insert(token).second) tokens.push_back(spell_bytes(token));
      }
    }
  }
  json spec = tokenizer_json(tokens, {});
  spec["model"]["ignore_merges"] = true;
  spec["pre_tokenizer"] = pre_tokenizer;
  const auto tokenizer = load(spec);
  std::vector<std::string> out;
  for (const int32_t id : tokenizer->encode(text)) {
    out.emplace_back(tokenizer->token_bytes(id, false));
  }
  return out;
}

json split(const std::string& pattern, const std::string& behavior = "Isolated",
           bool invert = false) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", behavior},
             {"invert", invert}},
            kByteLevel}}};
}

using Strings = std::vector<std::string>;

// Merges the pair of smallest rank, the leftmost one first, until there is none: the definition.
Ids slow_bpe(std::string_view text,
             const std::map<std::pair<int, int>, std::pair<int, int>>& merges) {
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  while (true) {
    size_t at = ids.size();
    std::pair<int, int> best = {INT_MAX, 0};
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto merge = merges.find({ids[i], ids[i + 1]});
      if (merge != merges.end() && merge->second.first < best.first) best = merge->second, at = i;
    }
    if (at == ids.size()) return ids;
    ids[at] = best.second;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

}  // namespace

TEST_CASE("merges give what their definition gives", "[data][bpe]") {
  std::mt19937 random(7);
  for (int round = 0; round < 30; ++round) {
    // Random merges over three letters; each new token may take part in later ones.
    std::vector<std::string> tokens = bytes(), usable = {"a", "b", "c"};
    std::map<std::string, int> id_of;
    for (size_t id = 0; id < tokens.size(); ++id) id_of[tokens[id]] = static_cast<int>(id);
    std::vector<std::pair<std::string, std::string>> merges;
    std::map<std::pair<int, int>, std::pair<int, int>> ranks;
    while (merges.size() < 25) {
      const std::string left = usable[random() % usable.size()];
      const std::string right = usable[random() % usable.size()];
      if (left.size() + right.size() > 9) continue;
      const auto [entry, is_new] = id_of.emplace(left + right, static_cast<int>(tokens.size()));
      if (is_new) {
        tokens.push_back(left + right);
        usable.push_back(left + right);
      }
      if (!ranks
               .emplace(std::pair(id_of[left], id_of[right]),
                        std::pair(static_cast<int>(merges.size()), entry->second))
               .second) {
        continue;
      }
      merges.emplace_back(left, right);
    }
    json spec = tokenizer_json(tokens, merges);
    spec["pre_tokenizer"] = kByteLevel;
    const auto tokenizer = load(spec);
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (uint32_t n = random() % 120; n > 0; --n) text += "abc"[random() % 3];
      REQUIRE(tokenizer->encode(text) == slow_bpe(text, ranks));
      REQUIRE(tokenizer->decode(tokenizer->encode(text)) == text);
    }
  }
}

TEST_CASE("encoding is the same on several threads", "[data][bpe]") {
  json spec = tokenizer_json(bytes(), {});
  spec["model"]["vocab"]["ab"] = 256;
  spec["model"]["merges"] = {"a b"};
  spec["pre_tokenizer"] = split("\\w+");
  const auto tokenizer = load(spec);
  const std::string text = "ab cab abab, 12 ab";
  const Ids expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) wrong += tokenizer->encode(text) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(wrong == 0);
}

TEST_CASE("GPT-2's pre-tokenizer cuts as its pattern says", "[data][bpe]") {
  const json gpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  CHECK(pieces(gpt2, "Hello, it's 42  times!\n\n  Ok") ==
        Strings{"Hello", ",", " it", "'s", " 42", " ", " times", "!", "\n\n ", " Ok"});
  // U+180E is no white space, U+0085 is; PCRE2 by itself says otherwise of the first.
  CHECK(pieces(gpt2, "a\u180E\u0085b") == Strings{"a", "\u180E", "\u0085", "b"});
  // A letter of Unicode 15 (CJK extension H), and a digit of Unicode 15.
  CHECK(pieces(gpt2, "a\U00031350!") == Strings{"a\U00031350", "!"});
  CHECK(pieces(gpt2, "1\U00011F50!") == Strings{"1\U00011F50", "!"});
  const json prefixed = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  CHECK(pieces(prefixed, "Hi you") == Strings{" Hi", " you"});
  CHECK(pieces(prefixed, " Hi") == Strings{" Hi"});
}

TEST_CASE("the split pre-tokenizer joins as its behavior says", "[data][bpe]") {
  CHECK(pieces(split("-"), "a-b--c") == Strings{"a", "-", "b", "-", "-", "c"});
  CHECK(pieces(split("-", "Removed"), "-a-b--c") == Strings{"a", "b", "c"});
  CHECK(pieces(split("-", "Removed", true), "a-b--c") == Strings{"-", "-", "-"});
  CHECK(pieces(split("-", "MergedWithPrevious"), "-a-b--c") == Strings{"-", "a-", "b-", "-", "c"});
  CHECK(pieces(split("-", "MergedWithNext"), "a-b--c-") == Strings{"a", "-b", "-", "-c", "-"});
  CHECK(pieces(split("-", "Contiguous"), "a-b--c") == Strings{"a", "-", "b", "--", "c"});
  // Llama 3's pattern: digits in threes, letters with one character in front.
  const std::string llama3 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  CHECK(pieces(split(llama3), "I'LL pay $12345.\n\n(now)") ==
        Strings{"I", "'LL", " pay", " $", "123", "45", ".\n\n", "(now", ")"});
}

TEST_CASE("digits are cut one by one or together", "[data][bpe]") {
  const auto digits = [](bool individual) -> json {
    return {
        {"type", "Sequence"},
        {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", individual}}, kByteLevel}}};
  };
  CHECK(pieces(digits(true), "ab12\u00BDc") == Strings{"ab", "1", "2", "\u00BD", "c"});
  CHECK(pieces(digits(false), "ab12\u00BDc") == Strings{"ab", "12\u00BD", "c"});
}

TEST_CASE("Metaspace puts marks where its scheme says", "[data][bpe]") {
  const auto spec = [](const std::string& scheme) {
    json out = tokenizer_json({"▁", "a", "b", "<x>", "▁a", "▁b", "b▁"},
                              {{"▁", "a"}, {"▁", "b"}, {"b", "▁"}});
    const json metaspace = {
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}};
    out["pre_tokenizer"] = metaspace;
    out["decoder"] = metaspace;
    out["added_tokens"] = {{{"id", 3}, {"content", "<x>"}, {"special", true}}};
    return out;
  };
  CHECK(encode(spec("always"), "a b<x>a") == Ids{4, 5, 3, 4});
  CHECK(encode(spec("first"), "a b<x>a") == Ids{4, 5, 3, 1});
  CHECK(encode(spec("never"), "a b<x>a") == Ids{1, 5, 3, 1});
  CHECK(encode(spec("never"), "<x>a") == Ids{3, 1});
  CHECK(load(spec("always"))->decode(Ids{4, 5}) == "a b");
  CHECK(load(spec("never"))->decode(Ids{4, 5}) == " a b");
}

TEST_CASE("a text without pre-tokenizer is one piece", "[data][bpe]") {
  // "b▁" crosses a word's end, so the text must not be cut there.
  json crossing = tokenizer_json({"▁", "a", "b", "b▁", "▁a"}, {{"b", "▁"}, {"▁", "a"}});
  crossing["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  CHECK(encode(crossing, "b a") == Ids{3, 1});
  // Without such a token it may be, and a run of marks stays together.
  json clean = tokenizer_json({"▁", "a", "b", "▁▁", "▁a"}, {{"▁", "▁"}, {"▁", "a"}});
  clean["normalizer"] = crossing["normalizer"];
  CHECK(encode(clean, "b   a a") == Ids{2, 3, 4, 4});
}

TEST_CASE("unknown characters become bytes, unknown tokens, or nothing", "[data][bpe]") {
  json spec = tokenizer_json({"<unk>", "a", "<0xC3>", "<0xA9>"}, {});
  CHECK(encode(spec, "aéa") == Ids{1, 1});
  spec["model"]["unk_token"] = "<unk>";
  CHECK(encode(spec, "aééa") == Ids{1, 0, 0, 1});
  spec["model"]["fuse_unk"] = true;
  CHECK(encode(spec, "aééa") == Ids{1, 0, 1});
  spec["model"]["byte_fallback"] = true;
  CHECK(encode(spec, "aéa") == Ids{1, 2, 3, 1});
  CHECK(encode(spec, "a\u00E8a") == Ids{1, 0, 1});  // its second byte has no token
  spec["decoder"] = {{"type", "Sequence"},
                     {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  CHECK(load(spec)->decode(Ids{1, 2, 3}) == "aé");
}

TEST_CASE("added tokens are cut out before the merges", "[data][bpe]") {
  json spec = tokenizer_json(bytes(), {});
  spec["pre_tokenizer"] = kByteLevel;
  const auto add = [&](int id, const std::string& content, json flags) {
    flags["id"] = id;
    flags["content"] = content;
    if (!flags.contains("normalized")) flags["normalized"] = false;
    spec["added_tokens"].push_back(flags);
  };
  add(300, "<s>", {{"special", true}});
  add(301, "<s>>", {{"special", true}});
  add(302, "[M]", {{"lstrip", true}, {"rstrip", true}});
  add(303, "cat", {{"single_word", true}});
  const auto tokenizer = load(spec);
  CHECK(tokenizer->vocab_size() == 304);
  CHECK(tokenizer->encode("a<s>b") == Ids{'a', 300, 'b'});
  CHECK(tokenizer->encode("<s>><s>") == Ids{301, 300});  // the longest one
  CHECK(tokenizer->encode("a [M]\u00A0\n b") == Ids{'a', 302, 'b'});
  CHECK(tokenizer->encode("cat,cats") == Ids{303, ',', 'c', 'a', 't', 's'});
  CHECK(tokenizer->encode("écat") == Ids{0xC3, 0xA9, 'c', 'a', 't'});
  CHECK(tokenizer->encode("<s>", {.parse_special_tokens = false}) == Ids{'<', 's', '>'});
  CHECK(tokenizer->encode("[M]", {.parse_special_tokens = false}) == Ids{302});
  CHECK(tokenizer->decode(Ids{'a', 300, 303}) == "acat");
  CHECK(tokenizer->decode(Ids{'a', 300, 303}, false) == "a<s>cat");
  // A hole among the ids has no text, but is in range.
  CHECK(tokenizer->decode(Ids{280, 'a'}) == "a");
}

TEST_CASE("a token is looked for in normal form if it says so", "[data][bpe]") {
  json spec = tokenizer_json(bytes(), {});
  spec["pre_tokenizer"] = kByteLevel;
  spec["normalizer"] = {{"type", "Lowercase"}};
  spec["added_tokens"] = {{{"id", 256}, {"content", "Dog"}, {"normalized", true}},
                          {{"id", 257}, {"content", "Cow"}, {"normalized", false}}};
  CHECK(encode(spec, "DOG") == Ids{256});
  CHECK(encode(spec, "Cow") == Ids{257});
  CHECK(encode(spec, "cow") == Ids{'c', 'o', 'w'});
}

TEST_CASE("the post-processor's tokens are added when asked for", "[data][bpe]") {
  json spec = tokenizer_json({"a", "<s>", "</s>"}, {});
  spec["post_processor"] = test::parsed(R"({"type": "Sequence", "processors": [
    {"type": "ByteLevel"},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
                {"SpecialToken": {"id": "</s>"}}],
     "special_tokens": {"<s>": {"ids": [1]}, "</s>": {"ids": [2]}}}]})");
  CHECK(load(spec)->encode("a") == Ids{0});
  CHECK(load(spec)->encode("a", {.add_special_tokens = true}) == Ids{1, 0, 2});
}

TEST_CASE("malformed bytes are kept where the vocabulary has bytes", "[data][bpe]") {
  json spec = tokenizer_json(bytes(), {});
  spec["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  CHECK(encode(spec, "a\xFF\xC3z") == Ids{' ', 'a', 0xFF, 0xC3, 'z'});
  json few = tokenizer_json({"a", "\uFFFD"}, {});
  CHECK(encode(few,
               "a\xFF"
               "a") == Ids{0, 1, 0});
}

TEST_CASE("an inconsistent vocabulary is refused", "[data][bpe][bad_input]") {
  const auto refuse = [](const json& spec, const auto& message) {
    CHECK_THROWS_AS(load(spec), Error);
    CHECK_THROWS_WITH(load(spec), Contains("test.json") && Contains(message));
  };
  json spec = tokenizer_json({"a", "b", "ab"}, {{"a", "b"}});
  CHECK(encode(spec, "ab") == Ids{2});
  const auto with = [&](const std::string& pointer, const json& value) {
    json changed = spec;
    changed[json::json_pointer(pointer)] = value;
    return changed;
  };
  refuse(with("/model/merges", test::parsed(R"([["a", "c"]])")),
         "merge 0 (\"a\" \"c\") needs the token \"c\"");
  refuse(with("/model/merges", test::parsed(R"([["b", "a"]])")), "needs the token \"ba\"");
  refuse(with("/model/merges", {"a b", "a"}), "merge 1");
  refuse(with("/model/merges", {{"a", "b", "c"}}), "model.merges[0]: expected two tokens");
  refuse(with("/model/merges", test::parsed(R"([["a", 1]])")),
         "model.merges[0][1]: expected a string, found number");
  refuse(with("/model/vocab/b", 0), "id 0, which another token has, too");
  refuse(with("/model/vocab/b", -4), "the id of token \"b\" is -4");
  refuse(with("/model/vocab/b", 1000000), "out of range for 3 tokens");
  refuse(with("/model/vocab/b", 1e300), "the id of token \"b\"");
  refuse(with("/model/vocab", json::object()), "vocabulary is empty");
  refuse(with("/model/unk_token", "?"), "unknown token \"?\" is not in the vocabulary");
  refuse(with("/model/dropout", 0.1), "dropout");
  refuse(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix");
  refuse(with("/added_tokens", {{{"id", 1}, {"content", "x"}}}),
         "id 1 of token \"x\" belongs to \"b\"");
  refuse(with("/added_tokens", {{{"id", 5}, {"content", "a"}}}),
         "has id 5 here and id 0 elsewhere");
  // One without content, which no text holds, is left out.
  CHECK(encode(with("/added_tokens", {{{"id", 5}, {"content", ""}}}), "ab") == Ids{2});
  refuse(with("/added_tokens", {{{"id", 2000000000}, {"content", "x"}}}), "is not between 0 and");
}

TEST_CASE("an unknown component of tokenizer.json is refused by name", "[data][bpe][bad_input]") {
  const auto refuse = [](const char* key, const char* value, const auto& message) {
    json spec = tokenizer_json({"a"}, {});
    spec[key] = test::parsed(value);
    INFO(value);
    CHECK_THROWS_WITH(load(spec), Contains("test.json: ") && Contains(message));
  };
  refuse("model", R"({"type": "Unigram"})", "the model is \"Unigram\"; only BPE");
  refuse("normalizer", R"({"type": "Precompiled"})", "normalizer: the normalizer \"Precompiled\"");
  refuse("normalizer", R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nmt"}]})",
         "normalizer.normalizers[1]: the normalizer \"Nmt\"");
  refuse("normalizer", R"({"type": "Sequence"})", "\"normalizers\" is missing");
  refuse("normalizer", R"({"type": "Prepend", "prepend": 3})", "prepend: expected a string");
  refuse("normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})", "empty");
  refuse("normalizer", R"([])", "expected an object, found array");
  refuse("pre_tokenizer", R"({"type": "Whitespace"})", "the pre-tokenizer \"Whitespace\"");
  refuse("pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})", "single character");
  refuse("pre_tokenizer", R"({"type": "ByteLevel"})", "\"add_prefix_space\" is missing");
  refuse("pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [
           {"type": "ByteLevel", "add_prefix_space": true}, {"type": "Digits"}]})",
         "pretokenizers[1]: a pre-tokenizer after ByteLevel");
  refuse("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})",
         "cannot compile the regular expression `(`");
  refuse("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Cut"})",
         "\"Cut\"");
  refuse("post_processor", R"({"type": "BertProcessing"})", "\"BertProcessing\"");
  refuse("post_processor", R"({"type": "TemplateProcessing", "single": [
           {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {}})",
         "\"<s>\" is missing");
  refuse("post_processor", R"({"type": "TemplateProcessing", "single": [
           {"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
           "special_tokens": {"x": {"ids": [9]}}})",
         "adds id 9, which is out of range");
  refuse("decoder", R"({"type": "WordPiece"})", "the decoder \"WordPiece\"");
  refuse("decoder",
         R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})",
         "decoders[1]: this order of decoders");
  std::string nested = R"({"type": "NFC"})";
  for (int i = 0; i < 20; ++i) nested = R"({"type": "Sequence", "normalizers": [)" + nested + "]}";
  refuse("normalizer", nested.c_str(), "nested too deeply");
}
