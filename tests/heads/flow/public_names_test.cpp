// A model's tensors are those of BAGEL's public classes: public_names.json has the names and shapes
// that they have, and the configuration they were made from (scripts/long/bagel_public.py names).
#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/nn/mot/files.h>

#include "../../temporary_folder.h"
#include "public_config.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

json public_names() {
  return parse_json<json>(read_text_file(BINADE_SOURCE_DIR "/tests/heads/flow/public_names.json"),
                          "public_names.json");
}

void write_configs(const std::filesystem::path& folder, const json& llm, const json& vit) {
  write_text_file(folder / "llm_config.json", llm.dump());
  write_text_file(folder / "vit_config.json", vit.dump());
}

// Names and shapes of a file.
json tensors_of(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  json tensors;
  for (const std::string& name : file.names()) {
    const Shape shape = file.get(name).shape();
    tensors[name] = std::vector<int64_t>(shape.begin(), shape.end());
  }
  return tensors;
}

}  // namespace

TEST_CASE("names and shapes are those of BAGEL's classes", "[flow][files]") {
  const json golden = public_names();
  const auto [choice, layer_module] = GENERATE(table<nn::ExpertChoice, const char*>(
      {{nn::ExpertChoice::dense, "Qwen2DecoderLayer"},
       {nn::ExpertChoice::moe, "Qwen2MoEDecoderLayer"},
       {nn::ExpertChoice::mot, nullptr}}));  // as the public files leave it
  const TemporaryFolder folder;
  json llm = golden["llm_config"];
  if (layer_module != nullptr) llm["layer_module"] = layer_module;
  write_configs(folder.path(), llm, golden["vit_config"]);
  const nn::MotConfig config = nn::read_mot_config(folder.path());
  CHECK(config.block.experts == choice);
  nn::save_mot(nn::MotModel(config), folder / "saved");
  const json want = golden[std::string(nn::name_of(choice))],
             got = tensors_of(folder / "saved" / "ema.safetensors");
  CHECK(want.size() > 80);
  for (const auto& [name, shape] : want.items()) {
    INFO(name);
    REQUIRE(got.contains(name));
    CHECK(got[name] == shape);
  }
  for (const auto& [name, shape] : got.items()) {
    INFO(name);
    CHECK(want.contains(name));
  }
  // What else lies in the public folder is none of its business.
  for (const char* beside : {"ae.safetensors", "tokenizer.json", "generation_config.json"})
    write_text_file(folder / "saved" / beside, "not read");
  CHECK_NOTHROW(nn::load_mot(folder / "saved"));
}

TEST_CASE("a folder's configuration is read as BAGEL's program reads it", "[flow][files]") {
  const json golden = public_names();
  const TemporaryFolder folder;
  const auto read = [&](const json& llm_changes, const std::vector<const char*>& absent = {}) {
    json llm = golden["llm_config"];
    llm.update(llm_changes);
    for (const char* key : absent) llm.erase(key);
    write_configs(folder.path(), llm, golden["vit_config"]);
    return nn::read_mot_config(folder.path());
  };
  const nn::MotConfig want = public_config(nn::ExpertChoice::mot), got = read(json::object());
  CHECK(got.block.dim == want.block.dim);
  CHECK(got.block.heads == want.block.heads);
  CHECK(got.block.kv_heads == want.block.kv_heads);
  CHECK(got.block.hidden == want.block.hidden);
  CHECK(got.block.norm_eps == want.block.norm_eps);
  CHECK(got.layers == want.layers);
  CHECK(got.max_positions == want.max_positions);
  CHECK(got.rope_theta == want.rope_theta);
  CHECK(got.vit.layers == want.vit.layers);
  CHECK(got.vit.norm_eps == want.vit.norm_eps);
  CHECK(got.pixels.side == want.pixels.side);
  CHECK(got.latents.side == want.latents.side);
  // That program sets these itself, or does not look at them.
  CHECK_NOTHROW(
      read({{"tie_word_embeddings", true}, {"qk_norm", false}, {"use_sliding_window", true}}));
  // The defaults of its classes.
  const nn::MotConfig defaults =
      read(json::object(), {"rope_theta", "max_position_embeddings", "rms_norm_eps", "hidden_act"});
  CHECK(defaults.rope_theta == 10000);
  CHECK(defaults.max_positions == 32768);
  CHECK(defaults.block.norm_eps == 1e-6);
  // Its class says 32, whatever the other sizes are.
  CHECK_THROWS_WITH(read(json::object(), {"num_key_value_heads"}),
                    Contains("'num_key_value_heads' is missing"));
}
