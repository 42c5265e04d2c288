#include "parsed_json.h"
#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/data/bpe_trainer.h>
#include <binade/data/byte_alphabet.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

using Word = std::vector<std::string>;

// The definition: count all pairs again before every merge. Texts hold lower-case words with single
// spaces between, so that the pieces are known without a regular expression.
std::vector<std::pair<std::string, std::string>> slow_train(const std::vector<std::string>& texts,
                                                            size_t vocab_size) {
  std::vector<Word> words;
  for (const std::string& text : texts) {
    for (size_t i = 0; i < text.size(); ++i) {
      if (i == 0 || text[i] == ' ') words.emplace_back();
      words.back().push_back(spell_bytes(text.substr(i, 1)));
    }
  }
  // Ids order the pairs that are equally frequent: the end-of-text token, the alphabet, merges.
  std::map<std::string, int> id_of = {{"<|endoftext|>", 0}};
  std::vector<char32_t> alphabet(byte_alphabet().begin(), byte_alphabet().end());
  std::sort(alphabet.begin(), alphabet.end());
  for (const char32_t c : alphabet) {
    for (int byte = 0; byte < 256; ++byte) {
      if (byte_alphabet()[byte] != c) continue;
      const int id = static_cast<int>(id_of.size());
      id_of[spell_bytes(std::string(1, static_cast<char>(byte)))] = id;
    }
  }
  std::vector<std::pair<std::string, std::string>> merges;
  while (id_of.size() < vocab_size) {
    std::map<std::pair<int, int>, int> counts;
    for (const Word& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{id_of[word[i]], id_of[word[i + 1]]}];
    }
    std::pair<int, int> best;
    int most = 1;
    for (const auto& [pair, count] : counts) {
      if (count > most) most = count, best = pair;
    }
    if (most < 2) break;
    const auto token = [&](int id) {
      return std::find_if(id_of.begin(), id_of.end(), [&](auto& e) { return e.second == id; })
          ->first;
    };
    const std::string left = token(best.first), right = token(best.second);
    merges.emplace_back(left, right);
    id_of.emplace(left + right, static_cast<int>(id_of.size()));
    for (Word& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] += right;
        word.erase(word.begin() + static_cast<ptrdiff_t>(i) + 1);
      }
    }
  }
  return merges;
}

std::vector<std::string> random_texts(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::string> texts;
  for (int t = 0; t < 6; ++t) {
    std::string text;
    for (int w = 0; w < 60; ++w) {
      if (w > 0) text += ' ';
      for (uint32_t n = 1 + random() % 7; n > 0; --n) {
        text += static_cast<char>('a' + std::min(random() % 5, random() % 5));
      }
    }
    texts.push_back(text);
  }
  return texts;
}

// The tokenizer.json that a tokenizer writes.
nlohmann::json saved(const Tokenizer& tokenizer) {
  const test::TemporaryFolder folder;
  tokenizer.save(folder.path());
  return test::parsed(std::ifstream(folder.path() / "tokenizer.json"));
}

}  // namespace

TEST_CASE("training merges the most frequent pair", "[data][bpe_trainer]") {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const auto texts = random_texts(seed);
    const auto expected = slow_train(texts, 300);
    REQUIRE(expected.size() > 20);
    const auto tokenizer = train_bpe(texts, {.vocab_size = 300});
    const auto model = saved(*tokenizer)["model"];
    const auto merges = model["merges"].get<std::vector<std::pair<std::string, std::string>>>();
    REQUIRE(merges == expected);
    REQUIRE(tokenizer->vocab_size() <= 300);
    REQUIRE(tokenizer->eos_id() == 0);
    for (const std::string& text : texts)
      REQUIRE(tokenizer->decode(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("training does not depend on the number of threads", "[data][bpe_trainer]") {
  std::vector<std::string> texts;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    for (const std::string& text : random_texts(seed)) texts.push_back(text);
  }
  texts.push_back("\xFF\xFE malformed \xC3");
  const auto one = saved(*train_bpe(texts, {.vocab_size = 400, .threads = 1}));
  REQUIRE(saved(*train_bpe(texts, {.vocab_size = 400, .threads = 5})) == one);
}

TEST_CASE("special tokens come first, and training stops when there is nothing to merge",
          "[data][bpe_trainer]") {
  const std::vector<std::string> texts = {"aaaa aaaa"};
  const auto tokenizer =
      train_bpe(texts, {.vocab_size = 5000, .special_tokens = {"<pad>", "<|endoftext|>"}});
  CHECK(tokenizer->token_id("<pad>") == 0);
  CHECK(tokenizer->token_id("<|endoftext|>") == 1);
  CHECK(tokenizer->token_id("!") == 2);
  CHECK(tokenizer->vocab_size() < 270);
  CHECK(tokenizer->is_special(0));
  CHECK(tokenizer->encode("<pad>") == std::vector<int32_t>{0});
}

TEST_CASE("training without room or text is refused", "[data][bpe_trainer][bad_input]") {
  const std::vector<std::string> texts = {"some text"};
  CHECK_THROWS_WITH(train_bpe(texts, {.vocab_size = 256}), Contains("at least 257"));
  CHECK_THROWS_WITH(train_bpe({}, {.vocab_size = 300}), Contains("no text"));
}
