// Qwen2's vocab.json and merges.txt against transformers: qwen2_tokenizer.json has a small
// vocabulary in those files and the ids that Qwen2Tokenizer read texts as
// (scripts/long/qwen2_tokenizer_cases.py).
#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/data/tokenizer.h>
#include <examples/bagel/texts.h>

#include "../temporary_folder.h"
#include "parsed_json.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using examples::Texts;
using nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

constexpr const char* kConfig = "tokenizer_config.json";

json golden() {
  return parse_json<json>(read_text_file(BINADE_SOURCE_DIR "/tests/data/qwen2_tokenizer.json"),
                          "qwen2_tokenizer.json");
}

void write_files(const TemporaryFolder& folder, const json& files) {
  for (const auto& [name, text] : files.items()) folder.write(name, text.get<std::string>());
}

}  // namespace

TEST_CASE("Qwen2's vocab.json and merges.txt give the ids of transformers", "[data][tokenizer]") {
  const json want = golden();
  const TemporaryFolder folder;
  write_files(folder, want["files"]);
  const auto tokenizer = data::load_tokenizer(folder.path());
  tokenizer->save(folder.path() / "saved");
  const auto again = data::load_tokenizer(folder.path() / "saved");
  for (const json& one : want["cases"]) {
    const std::string text = one["text"];
    INFO(text);
    CHECK(tokenizer->encode(text) == one["ids"].get<Ids>());
    CHECK(again->encode(text) == one["ids"].get<Ids>());
  }
  CHECK(tokenizer->decode(tokenizer->encode("Don't,  12\n\xe6\xb5\xb7")) ==
        "Don't,  12\n\xe6\xb5\xb7");
  CHECK(tokenizer->eos_id() == tokenizer->encode("<|im_end|>").at(0));
  CHECK(!tokenizer->bos_id());
}

TEST_CASE("a tokenizer_config.json that does not fit its vocabulary is refused",
          "[data][tokenizer][bad_input]") {
  const json files = golden()["files"];
  const TemporaryFolder folder;
  write_files(folder, files);
  const auto with = [&](const auto& change) {
    json config = test::parsed(files[kConfig].get<std::string>());
    change(config);
    folder.write(kConfig, config.dump());
    return data::load_tokenizer(folder.path());
  };
  CHECK(with([](json& config) { config["tokenizer_class"] = "Qwen2TokenizerFast"; })
            ->encode("12")
            .size() == 2);
  CHECK_THROWS_WITH(
      with([](json& config) { config["tokenizer_class"] = "CLIPTokenizer"; }),
      Contains("tokenizer_config.json: tokenizer_class") && Contains("CLIPTokenizer"));
  json& (*const tokens)(json&) = [](json& config) -> json& {
    return config["added_tokens_decoder"];
  };
  CHECK_THROWS_WITH(with([&](json& config) { tokens(config) = 3; }),
                    Contains("expected an object"));
  CHECK_THROWS_WITH(with([&](json& config) { tokens(config)["1x"] = tokens(config)["350"]; }),
                    Contains("\"1x\" is not the id of a token"));
  CHECK_THROWS_WITH(with([&](json& config) { tokens(config)["350"].erase("content"); }),
                    Contains("added_tokens_decoder.350") && Contains("\"content\" is missing"));
  CHECK_THROWS_WITH(with([&](json& config) { tokens(config)["7"] = tokens(config)["350"]; }),
                    Contains("<|im_start|>"));
  CHECK_THROWS_WITH(with([&](json& config) { tokens(config)["99999999"] = tokens(config)["350"]; }),
                    Contains("99999999"));
}

TEST_CASE("texts of a folder with a tokenizer are its tokens, with BAGEL's marks", "[unified]") {
  const json want = golden();
  const TemporaryFolder folder;
  CHECK(Texts::of_model(folder.path(), 64).are_words());
  CHECK(Texts::of_model(folder.path(), 320).text({5 + 'o', 5 + 'k'}) == "ok");
  write_files(folder, want["files"]);
  const Texts texts = Texts::of_model(folder.path(), 400);
  CHECK(texts.vocabulary() == 354);
  data::SlotLayout layout;
  texts.mark(layout);
  const Ids marks{layout.text_begin, layout.text_end, layout.image_begin, layout.image_end};
  CHECK(marks == Ids{350, 351, 352, 353});
  const json& plain = want["cases"][1];
  CHECK(texts.ids(plain["text"].get<std::string>()) == plain["ids"].get<Ids>());
  // A caption cannot write marks; ids that stand for nothing are passed over.
  CHECK(texts.ids("<|im_end|>").size() > 1);
  CHECK(texts.text(texts.ids("<|im_end|>")) == "<|im_end|>");
  CHECK(texts.text({'a' - '!', 399, -1, 351, 'b' - '!'}) == "ab");

  texts.save(folder.path() / "saved");
  CHECK(Texts::of_model(folder.path() / "saved", 354).ids("at dusk") == texts.ids("at dusk"));
  CHECK_THROWS_WITH(Texts::of_model(folder.path(), 353),
                    Contains("has 354 tokens, the model an embedding of 353"));
  std::string config = want["files"][kConfig];
  config.replace(config.find("<|vision_end|>"), 14, "<|another_end|>");
  folder.write(kConfig, config);
  CHECK_THROWS_WITH(Texts::of_model(folder.path(), 400),
                    Contains("has no special token <|vision_end|>"));
}
