#include <binade/nn/models/generation_config.h>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "temporary_folder.h"
#include "warnings.h"

using namespace binade;
using namespace binade::nn;
using nlohmann::json;

namespace {

// A folder of a small Llama whose config.json names `eos` and whose generation_config.json is
// `generation`; empty: there is none.
void write_model(const test::TemporaryFolder& folder, const json& eos,
                 const std::string& generation) {
  save_hf(*test::small_model(test::small_config(Family::llama)), folder.path());
  json config = test::parsed(read_text_file(folder / "config.json"));
  config["eos_token_id"] = eos;
  folder.write("config.json", config.dump());
  std::filesystem::remove(folder / "generation_config.json");
  if (!generation.empty()) folder.write("generation_config.json", generation);
}

std::vector<int32_t> stop_ids(const json& eos, const std::string& generation) {
  const test::TemporaryFolder folder;
  write_model(folder, eos, generation);
  return infer::generate_options(load_hf(folder.path())->config()).stop_ids;
}
using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("the stop ids of generation_config.json win over config.json's", "[generation_config]") {
  CHECK(stop_ids(2, R"({"eos_token_id": 7})") == Ids{7});
  CHECK(stop_ids(2, R"({"eos_token_id": [7, 8]})") == Ids{7, 8});
  CHECK(stop_ids(json::array({2, 3}), R"({"eos_token_id": 7})") == Ids{7});
  CHECK(stop_ids(nullptr, R"({"eos_token_id": 7})") == Ids{7});
  // It says nothing of them.
  CHECK(stop_ids(2, R"({"temperature": 0.5})") == Ids{2});
  CHECK(stop_ids(2, R"({"eos_token_id": null})") == Ids{2});
  CHECK(stop_ids(2, R"({"eos_token_id": []})") == Ids{2});
  CHECK(stop_ids(json::array({2, 3}), "") == Ids{2, 3});
  const test::ExpectWarning expected("names the token 61");
  CHECK(stop_ids(2, R"({"eos_token_id": [61, 5]})") == Ids{5});
}

TEST_CASE("generation ends at the ids of generation_config.json", "[generation_config]") {
  const test::TemporaryFolder folder;
  write_model(folder, nullptr, "");
  const auto model = load_hf(folder.path());
  model->eval();
  const auto free = infer::generate(*model, {{1, 2, 3}}, {.max_new_tokens = 12});
  REQUIRE(free[0].size() == 12);
  const int32_t fifth = free[0][4];
  write_model(folder, fifth == 9 ? 8 : 9, concat("{\"eos_token_id\": [", fifth, "]}"));
  const auto again = load_hf(folder.path());
  again->eval();
  infer::GenerateOptions options = infer::generate_options(again->config());
  options.max_new_tokens = 12;
  const auto stopped = infer::generate(*again, {{1, 2, 3}}, options);
  const auto end = std::find(free[0].begin(), free[0].end(), fifth);
  CHECK(stopped[0] == Ids(free[0].begin(), end));
}

TEST_CASE("generation_config.json is written as it was read", "[generation_config]") {
  const std::string text =
      "{ \"eos_token_id\": [7,\t8],\r\n \"do_sample\": true, \"_from_model_config\": true,\n"
      "\"chat\": {\"x\": [1.50, null]}, \"transformers_version\": \"4.51.0\"}";
  const test::TemporaryFolder from, to;
  write_model(from, 2, text);
  const auto model = load_hf(from.path());
  save_hf(*model, to.path());
  CHECK(read_text_file(to / "generation_config.json") == text);
  // config.json keeps its own.
  CHECK(test::parsed(read_text_file(to / "config.json")).at("eos_token_id") == 2);
  // Without a file there, one is made of config.json.
  const test::TemporaryFolder bare, out;
  write_model(bare, 2, "");
  save_hf(*load_hf(bare.path()), out.path());
  CHECK(test::parsed(read_text_file(out / "generation_config.json")).at("eos_token_id") == 2);
}

TEST_CASE("sampling is what generation_config.json asks for", "[generation_config]") {
  const auto sampling = [](const std::string& text) {
    CausalLmConfig config = test::small_config(Family::llama);
    config.generation = GenerationConfig::parse(text, "text", config.vocab_size);
    return infer::generate_options(config).sampling;
  };
  const auto asked =
      sampling(R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9})");
  CHECK(asked.temperature == 0.6);
  CHECK(asked.top_k == 20);
  CHECK(asked.top_p == 0.9);
  const auto defaults = sampling(R"({"do_sample": true})");  // those of transformers
  CHECK(defaults.temperature == 1);
  CHECK(defaults.top_k == 50);
  CHECK(defaults.top_p == 1);
  for (const char* greedy :
       {R"({"temperature": 0.6})", R"({"do_sample": false, "temperature": 0.6})",
        R"({"do_sample": null})", "{}"}) {
    CHECK(sampling(greedy).temperature == 0);
    CHECK(sampling(greedy).top_k == 0);
  }
}

TEST_CASE("what generation cannot do is named", "[generation_config]") {
  const auto named = [](const std::string& text) {
    return GenerationConfig::parse(text, "text", 61).unsupported;
  };
  CHECK(named(R"({"repetition_penalty": 1.1, "num_beams": 4})") ==
        std::vector<std::string>{"num_beams: 4", "repetition_penalty: 1.1"});
  CHECK(named(R"({"repetition_penalty": 1.0, "num_beams": 1, "suppress_tokens": [], "min_p": null,
                  "max_length": 20, "use_cache": true})")
            .empty());
}

TEST_CASE("a damaged generation_config.json is refused by name", "[generation_config][bad-input]") {
  const std::string bad[] = {"",
                             "[]",
                             "{",
                             "{\"eos_token_id\": \"2\"}",
                             "{\"eos_token_id\": [2.5]}",
                             "{\"eos_token_id\": 18446744073709551615}",
                             "{\"do_sample\": 1}",
                             "{\"temperature\": \"0.5\"}",
                             "{\"temperature\": -1}",
                             "{\"top_k\": -1}",
                             "{\"top_k\": 1.5}",
                             "{\"top_p\": 0}",
                             "{\"top_p\": 1.5}",
                             std::string("{}\0x", 4)};
  for (const std::string& text : bad) {
    INFO(text);
    CHECK_THROWS_WITH(GenerationConfig::parse(text, "gen.json", 61), Catch::Contains("gen.json"));
  }
}
