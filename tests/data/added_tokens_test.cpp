// Added tokens at their edges. Expected ids by `tokenizers` 0.23.
#include <catch2/catch.hpp>

#include <binade/data/bpe_tokenizer.h>
#include <nlohmann/json.hpp>

using namespace binade::data;
using nlohmann::json;

namespace {

json added(int id, const std::string& content, bool normalized = true) {
  return {{"id", id},        {"content", content},       {"single_word", false},  {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", !normalized}};
}

std::unique_ptr<BpeTokenizer> tokenizer(const std::vector<json>& tokens, const json& normalizer) {
  const json file = {{"added_tokens", tokens},
                     {"normalizer", normalizer},
                     {"model",
                      {{"type", "BPE"},
                       {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {" ", 3}, {"x", 4}}},
                       {"merges", json::array({json::array({"a", "b"})})}}}};
  return BpeTokenizer::from_json(file.dump(), "test", {});
}

std::vector<int32_t> ids(const BpeTokenizer& tokenizer, const std::string& text) {
  return tokenizer.encode(text, {.add_special_tokens = false, .parse_special_tokens = true});
}
using Ids = std::vector<int32_t>;

const json kStrip = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
const json kDrop = {{"type", "Replace"}, {"pattern", {{"String", "q"}}}, {"content", ""}};

}  // namespace

TEST_CASE("an added token that the normaliser empties is accepted", "[data][tokenizer]") {
  const auto stripped = tokenizer({added(5, "  ")}, kStrip);
  CHECK(ids(*stripped, "ab") == Ids{0, 1});  // found between all characters
  CHECK(ids(*stripped, "a b") == Ids{0, 3, 1});
  CHECK(ids(*stripped, "x ab x") == Ids{4, 3, 0, 1, 3, 4});
  CHECK(ids(*stripped, "  ").empty());
  CHECK(ids(*stripped, "").empty());

  const auto dropped = tokenizer({added(5, "q")}, kDrop);
  CHECK(ids(*dropped, "aqb") == Ids{0, 1});
  CHECK(ids(*dropped, "q").empty());
  CHECK_NOTHROW(ids(*dropped, "\xC3\xA9 ab"));  // where `tokenizers` panics

  const auto beside = tokenizer({added(5, "  "), added(6, "b a")}, kStrip);
  CHECK(ids(*beside, "ab a") == Ids{0, 6});
  CHECK(ids(*tokenizer({added(5, "  "), added(4, "x", false)}, kStrip), "ab x ab") ==
        Ids{0, 1, 4, 0, 1});
}

TEST_CASE("an added token that is not normalised is found though the normaliser drops it",
          "[data][tokenizer]") {
  const auto kept = tokenizer({added(5, "q", false)}, kDrop);
  CHECK(ids(*kept, "ab") == Ids{2});
  CHECK(ids(*kept, "aqb") == Ids{0, 5, 1});
}

TEST_CASE("an added token without content is passed over", "[data][tokenizer]") {
  for (const bool normalized : {true, false}) {
    const auto plain = tokenizer({added(5, "", normalized)}, nullptr);
    CHECK(ids(*plain, "ab") == Ids{2});
    CHECK(ids(*plain, "x ab x") == Ids{4, 3, 2, 3, 4});
    CHECK(plain->vocab_size() == 5);
  }
}
