#include <catch2/catch.hpp>

#include <limits>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/nn/mot/files.h>
#include <binade/nn/state.h>
#include <nlohmann/json.hpp>

#include "../../temporary_folder.h"
#include "parsed_json.h"
#include "tiny_world.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

void replace(const std::filesystem::path& file, const std::string& from, const std::string& to) {
  std::string text = read_text_file(file);
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  write_text_file(file, text.replace(at, from.size(), to));
}

}  // namespace

TEST_CASE("folders under BAGEL's names are written and read", "[flow][files]") {
  const TemporaryFolder folder;
  const auto experts =
      GENERATE(nn::ExpertChoice::dense, nn::ExpertChoice::moe, nn::ExpertChoice::mot);
  RandomState::current().set_seed(3);
  const nn::MotModel model(tiny_config(experts));
  nn::save_mot(model, folder / "model");
  const auto read = nn::load_mot(folder / "model");
  CHECK(read->config().block.experts == experts);
  CHECK(read->config().layers == model.config().layers);
  CHECK(read->config().pixels.side == model.config().pixels.side);
  const nn::StateDict before = model.state(), after = read->state();
  REQUIRE(before.size() == after.size());
  for (const auto& [name, value] : before)
    CHECK(after.at(name).to_vector<float>() == value.to_vector<float>());
}

TEST_CASE("tables that a folder lacks are made, and others are checked", "[flow][files]") {
  const TemporaryFolder folder;
  RandomState::current().set_seed(3);
  const nn::MotModel model(tiny_config());
  nn::save_mot(model, folder / "model");
  const auto weights = folder / "model" / "ema.safetensors";
  nn::StateDict state = nn::read_state(weights);
  REQUIRE(state.count("latent_pos_embed.pos_embed") == 1);
  state["latent_pos_embed.pos_embed"].data<float>()[5] += 1;
  write_safetensors(weights, state);
  CHECK_THROWS_WITH(nn::load_mot(folder / "model"),
                    Contains("latent_pos_embed.pos_embed is not the table of sines and cosines"));
  state.erase("latent_pos_embed.pos_embed");
  state.erase("vit_pos_embed.pos_embed");
  write_safetensors(weights, state);
  CHECK(nn::load_mot(folder / "model")->tables()[0].second->table().to_vector<float>() ==
        model.tables()[0].second->table().to_vector<float>());
}

TEST_CASE("folders that are no such model are refused", "[flow][files][errors]") {
  const TemporaryFolder folder;
  RandomState::current().set_seed(3);
  const nn::MotModel model(tiny_config());
  const auto path = folder / "model";
  const auto fresh = [&] { nn::save_mot(model, path); };
  fresh();
  replace(path / "llm_config.json", "Qwen2MoTDecoderLayer", "Qwen3Layer");
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("'layer_module': 'Qwen3Layer' is not supported"));
  fresh();
  replace(path / "llm_config.json", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"");
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("'hidden_act'") && Contains("is not supported"));
  fresh();
  replace(path / "llm_config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("ema.safetensors") && Contains("missing"));
  fresh();
  replace(path / "llm_config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("unexpected"));
  fresh();
  replace(path / "vit_config.json", "\"patch_size\": 4", "\"patch_size\": 5");
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("is not cut into patches of 5"));
  fresh();
  nn::StateDict state = nn::read_state(path / "ema.safetensors");
  state["llm2vae.bias"].fill(NAN);
  write_safetensors(path / "ema.safetensors", state);
  CHECK_THROWS_WITH(nn::load_mot(path), Contains("ema.safetensors") && Contains("llm2vae.bias"));
}

TEST_CASE("every number of a folder's settings that no model can have is refused",
          "[flow][files][errors]") {
  const TemporaryFolder folder;
  RandomState::current().set_seed(3);
  const nn::MotModel model(tiny_config());
  const auto path = folder / "model";
  nn::save_mot(model, path);
  constexpr auto kLeast = std::numeric_limits<int64_t>::min();
  for (const char* name : {"llm_config.json", "vit_config.json"}) {
    const auto settings = test::parsed(read_text_file(path / name));
    for (const auto& [key, value] : settings.items()) {
      if (!value.is_number()) continue;
      std::vector<nlohmann::json> wrong = {0, -1, kLeast, "text", nlohmann::json::array()};
      if (value.is_number_integer()) wrong.insert(wrong.end(), {int64_t{1} << 62, 1.5, 1e30});
      for (const auto& one : wrong) {
        INFO(name << ": " << key << " = " << one);
        nlohmann::json other = settings;
        other[key] = one;
        write_text_file(path / name, other.dump());
        CHECK_THROWS_AS(nn::load_mot(path), Error);
      }
    }
    write_text_file(path / name, settings.dump());
  }
  CHECK(nn::load_mot(path)->config().layers == 2);
  const auto refuses = [&](const std::string& from, const std::string& to, const char* sentence) {
    nn::save_mot(model, path);
    replace(path / "llm_config.json", from, to);
    CHECK_THROWS_WITH(nn::load_mot(path), Contains(path.string()) && Contains(sentence));
  };
  refuses("\"num_attention_heads\": 4", "\"num_attention_heads\": 0",
          "the number of heads is 0, which is no possible size");
  refuses("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 60000",
          "tensors language_model.model.layers.59999.… are missing");
  refuses("\"max_latent_size\": 16", "\"max_latent_size\": 30000", "would not fit into memory");
  refuses("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1e-06", "must be positive");
}
