#include "parsed_json.h"
#include "shared.h"
#include "temporary_folder.h"
#include "warnings.h"

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/data/bpe_tokenizer.h>
#include <binade/data/byte_tokenizer.h>
#include <binade/data/chat_template.h>
#include <binade/data/sentencepiece_tokenizer.h>
#include <binade/data/tokenizer.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

namespace {

std::string random_bytes(uint32_t seed, size_t size) {
  std::mt19937 random(seed);
  std::string bytes;
  for (size_t i = 0; i < size; ++i) {
    // Leading bytes of long sequences are frequent, so that many are cut in the middle.
    const uint32_t draw = random();
    bytes.push_back(static_cast<char>(draw % 3 ? draw >> 8 : 0xC0 | (draw >> 8 & 0x3F)));
  }
  return bytes;
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    CHECK(utf8_valid_prefix(part) == part.size());
    text += part;
  }
  return text + decoder.finish();
}

}  // namespace

TEST_CASE("a byte tokenizer keeps every byte", "[data][tokenizer]") {
  const ByteTokenizer tokenizer;
  REQUIRE(tokenizer.vocab_size() == 257);
  REQUIRE(tokenizer.encode("a\xFFz") == Ids{97, 255, 122});
  REQUIRE(tokenizer.encode("x<|endoftext|>y") == Ids{120, 256, 121});
  REQUIRE(tokenizer.encode("<|endoftext|>", {.parse_special_tokens = false}).size() == 13);
  REQUIRE(tokenizer.decode(Ids{120, 256, 121}) == "xy");
  REQUIRE(tokenizer.decode(Ids{120, 256, 121}, false) == "x<|endoftext|>y");
  const std::string bytes = random_bytes(1, 2000);
  REQUIRE(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
  REQUIRE(ByteTokenizer(false).vocab_size() == 256);
  REQUIRE_FALSE(ByteTokenizer(false).eos_id().has_value());
}

TEST_CASE("a token id out of range is refused", "[data][tokenizer][bad_input]") {
  REQUIRE_THROWS_WITH(ByteTokenizer().decode(Ids{257}),
                      Contains("257") && Contains("out of range"));
  REQUIRE_THROWS_WITH(ByteTokenizer().decode(Ids{-1}), Contains("-1"));
  REQUIRE_THROWS_WITH(ByteTokenizer(false).decode(Ids{256}), Contains("out of range"));
}

TEST_CASE("a saved byte tokenizer is loaded again", "[data][tokenizer]") {
  const TemporaryFolder folder;
  const ByteTokenizer tokenizer;
  tokenizer.save(folder.path() / "saved");
  const auto loaded = load_tokenizer(folder.path() / "saved");
  REQUIRE(loaded->vocab_size() == 257);
  REQUIRE(loaded->eos_id() == 256);
  const std::string text = "naïve  <|endoftext|>\n" + random_bytes(2, 500);
  REQUIRE(loaded->encode(text) == tokenizer.encode(text));
  REQUIRE(loaded->decode(loaded->encode(text)) == tokenizer.decode(tokenizer.encode(text)));
}

TEST_CASE("streaming never emits half a character", "[data][tokenizer]") {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  REQUIRE(decoder.push(0xE2) == "");
  REQUIRE(decoder.push(0x82) == "");
  REQUIRE(decoder.push(0xAC) == "€");
  REQUIRE(decoder.push(0xE2) == "");
  REQUIRE(decoder.push('z') == std::string(kReplacementCharacter) + "z");
  REQUIRE(decoder.push(0xF0) == "");
  REQUIRE(decoder.finish() == kReplacementCharacter);
  REQUIRE(decoder.finish() == "");
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::string bytes = random_bytes(seed, 300);
    REQUIRE(stream(tokenizer, tokenizer.encode(bytes)) == utf8_replace_invalid(bytes));
  }
}

TEST_CASE("ids are those of the golden texts", "[data][tokenizer][golden]") {
  const auto fixture = test::shared_path("fixtures/tokenizers.json");
  const auto gpt2 = test::shared_path("models/tokenizers/gpt2");
  const auto llama2 = test::shared_path("models/tokenizers/llama2");
  const auto stories = test::shared_path("models/stories260k");
  if (!fixture || !gpt2 || !llama2 || !stories) return;
  const auto golden = test::parsed(std::ifstream(*fixture));
  REQUIRE(golden.size() > 20);

  struct Case {
    std::string key;
    std::unique_ptr<Tokenizer> tokenizer;
  };
  std::vector<Case> cases;
  cases.push_back({"gpt2", load_tokenizer(*gpt2)});
  cases.push_back({"llama2", load_tokenizer(*llama2)});
  cases.push_back({"stories260k", load_tokenizer(*stories)});
  cases.push_back({"stories260k", load_tokenizer(*stories + "/tokenizer.model")});
  CHECK(cases[0].tokenizer->vocab_size() == 50257);
  CHECK(cases[0].tokenizer->eos_id() == 50256);
  CHECK(cases[1].tokenizer->vocab_size() == 32000);
  for (size_t i = 1; i < 4; ++i) {
    CHECK(cases[i].tokenizer->bos_id() == 1);
    CHECK(cases[i].tokenizer->eos_id() == 2);
    CHECK(cases[i].tokenizer->encode("", {.add_special_tokens = true}) == Ids{1});
  }
  for (const auto& [key, tokenizer] : cases) {
    for (const auto& entry : golden) {
      const auto text = entry.at("text").get<std::string>();
      const auto ids = entry.at(key).get<Ids>();
      INFO(key << ": " << text);
      CHECK(tokenizer->encode(text, {.parse_special_tokens = false}) == ids);
      CHECK(tokenizer->decode(ids) == text);
      CHECK(stream(*tokenizer, ids) == text);
    }
  }
}

TEST_CASE("a GPT-2 vocabulary survives saving and keeps malformed bytes", "[data][tokenizer]") {
  const auto gpt2 = test::shared_path("models/tokenizers/gpt2");
  if (!gpt2) return;
  const auto tokenizer = load_tokenizer(*gpt2);
  const TemporaryFolder folder;
  tokenizer->save(folder.path());
  const auto loaded = load_tokenizer(folder.path());
  REQUIRE(loaded->vocab_size() == tokenizer->vocab_size());
  REQUIRE(loaded->bos_id() == tokenizer->bos_id());
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::string bytes = "It's 1984:  \n" + random_bytes(seed, 400);
    const Ids ids = tokenizer->encode(bytes);
    REQUIRE(tokenizer->decode(ids) == bytes);
    REQUIRE(loaded->encode(bytes) == ids);
  }
  REQUIRE(tokenizer->encode("a<|endoftext|>b") == Ids{64, 50256, 65});
}

TEST_CASE("a SentencePiece model survives saving", "[data][tokenizer]") {
  const auto stories = test::shared_path("models/stories260k/tokenizer.model");
  if (!stories) return;
  const TemporaryFolder folder;
  const SentencePieceTokenizer tokenizer(*stories);
  tokenizer.save(folder.path());
  const auto loaded = load_tokenizer(folder.path());
  REQUIRE(loaded->encode("Once upon a time") == tokenizer.encode("Once upon a time"));
  REQUIRE_THROWS_WITH(loaded->decode(Ids{512}), Contains("out of range"));
  // Malformed bytes count as U+FFFD.
  REQUIRE(loaded->decode(loaded->encode("a\xFF")) == "a" + std::string(kReplacementCharacter));
}

TEST_CASE("a tokenizer that was loaded brings along what lay beside it", "[data][tokenizer]") {
  const TemporaryFolder folder;
  ByteTokenizer().save(folder.path());
  const auto text_of = [&](const std::string& name) {
    return read_text_file(folder.path() / name);
  };
  folder.write("tokenizer_config.json",
               R"({"chat_template": "{{ messages[0].content }}", "model_max_length": 9})");
  folder.write("special_tokens_map.json", R"({"pad_token": "A"})");
  folder.write("config.json", R"({"eos_token_id": 66})");
  load_tokenizer(folder.path())->save(folder.path() / "again");
  const auto again = load_tokenizer(folder.path() / "again");
  CHECK(again->eos_id() == 66);  // the file had none, and config.json is the model's
  CHECK(text_of("again/special_tokens_map.json") == text_of("special_tokens_map.json"));
  const std::vector<Message> chat = {{"user", "hello"}};
  CHECK(ChatTemplate::load(folder.path() / "again").render(chat) == "hello");
  again->save(folder.path() / "third");  // nothing is lacking any more
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
    CHECK(text_of(concat("third/", name)) == text_of(concat("again/", name)));
  folder.write("again/chat_template.jinja", "{{ bos_token }}");
  load_tokenizer(folder.path() / "again/tokenizer.json")->save(folder.path() / "fourth");
  CHECK(text_of("fourth/chat_template.jinja") == "{{ bos_token }}");
}

TEST_CASE("BOS and EOS are those of the files beside", "[data][tokenizer]") {
  const TemporaryFolder folder;
  ByteTokenizer().save(folder.path());
  const auto eos_with = [&](const std::string& file, const std::string& content) {
    std::filesystem::remove(folder.path() / "tokenizer_config.json");
    const auto written = folder.write(file, content);
    const auto eos = load_tokenizer(folder.path())->eos_id();
    std::filesystem::remove(written);
    return eos;
  };
  CHECK(eos_with("tokenizer_config.json", R"({"eos_token": "A"})") == 65);
  CHECK(eos_with("tokenizer_config.json", R"({"eos_token": {"content": "B"}})") == 66);
  CHECK(eos_with("tokenizer_config.json", R"({"eos_token": null})") == std::nullopt);
  CHECK(eos_with("special_tokens_map.json", R"({"eos_token": "C"})") == 67);
  CHECK(eos_with("config.json", R"({"eos_token_id": 68})") == 68);
  CHECK(eos_with("config.json", R"({"eos_token_id": [69, 70]})") == 69);
  CHECK(eos_with("config.json", R"({})") == 256);
  {
    const binade::test::ExpectWarning expected("the BOS or EOS id -1 is beyond");
    CHECK(eos_with("config.json", R"({"eos_token_id": -1})") == std::nullopt);
  }
  CHECK(eos_with("config.json", R"({"eos_token_id": []})") == 256);
  {
    const binade::test::ExpectWarning expected(
        "the BOS or EOS id 257 is beyond the vocabulary of 257");
    CHECK(eos_with("config.json", R"({"eos_token_id": 257})") == std::nullopt);
  }
  CHECK_THROWS_WITH(eos_with("tokenizer_config.json", R"({"eos_token": "none"})"),
                    Contains("\"none\" is not in the vocabulary"));
  CHECK_THROWS_WITH(eos_with("config.json", R"({"eos_token_id": 18446744073709551615})"),
                    Contains("eos_token_id"));
}

TEST_CASE("what is not a tokenizer is refused by name", "[data][tokenizer][bad_input]") {
  const TemporaryFolder folder;
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path() / "absent"), Contains("absent"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.path()), Contains("looked for tokenizer.json"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.write("words.txt", "a")),
                      Contains("words.txt") && Contains(".json or .model"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.write("broken/tokenizer.json", "{\n  \"model\": ?")),
                      Contains("broken/tokenizer.json") && Contains("line 2, column 12"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.write("sp/tokenizer.model", "not a protobuf")),
                      Contains("not a usable SentencePiece model"));
  REQUIRE_THROWS_WITH(load_tokenizer(folder.write("empty/tokenizer.model", "")),
                      Contains("not a usable SentencePiece model"));
  REQUIRE(load_tokenizer("bytes")->vocab_size() == 257);
}

TEST_CASE("faults in GPT-2's files are named", "[data][tokenizer][bad_input]") {
  const TemporaryFolder folder;
  const auto load = [&](const std::string& vocab, const std::string& merges) {
    folder.write("vocab.json", vocab);
    folder.write("merges.txt", merges);
    return load_tokenizer(folder.path());
  };
  const std::string vocab = R"({"a": 0, "b": 1, "ab": 2})";
  REQUIRE(load(vocab, "#version: 0.2\na b\n")->encode("abba") == Ids{2, 1, 0});
  REQUIRE(load(vocab, "a b\r\n")->encode("ab") == Ids{2});
  REQUIRE_THROWS_WITH(load(vocab, "a b\n\na b\n"), Contains("merge 1"));
  REQUIRE_THROWS_WITH(load(vocab, "a b c\n"), Contains("merges.txt") && Contains("\"a b c\""));
  REQUIRE_THROWS_WITH(load(vocab, "a\xFF b\n"), Contains("not valid UTF-8 at byte 1"));
  REQUIRE_THROWS_WITH(load(vocab, "b a\n"),
                      Contains("\"ba\"") && Contains("not in the vocabulary"));
  REQUIRE_THROWS_WITH(load(R"({"a": 0, "b": 0})", ""), Contains("each once"));
  REQUIRE_THROWS_WITH(load(R"({"a": 0, "b": 7})", ""), Contains("id 7"));
  REQUIRE_THROWS_WITH(load(R"({"a": -1})", ""), Contains("\"a\" is -1"));
  REQUIRE_THROWS_WITH(load("[1]", ""), Contains("expected an object, found array"));
}

TEST_CASE("a vocabulary's fingerprint tells what ids stand for", "[data][tokenizer]") {
  const uint32_t bytes = vocabulary_fingerprint(ByteTokenizer(true));
  CHECK(bytes == vocabulary_fingerprint(ByteTokenizer(true)));
  CHECK(bytes != vocabulary_fingerprint(ByteTokenizer(false)));
  const auto stories = test::shared_path("models/stories260k");
  if (!stories) return;
  const uint32_t of_folder = vocabulary_fingerprint(*load_tokenizer(*stories));
  CHECK(of_folder == vocabulary_fingerprint(*load_tokenizer(*stories)));
  CHECK(of_folder != bytes);
}
