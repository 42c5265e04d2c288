// Files of Medusa heads hold what serving engines ask for: engine_names.json has the names and
// shapes that their own classes and loaders gave (scripts/long/medusa_engines.py names).
#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/heads/medusa/files.h>

#include "nn/tiny_models.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
namespace fs = std::filesystem;
namespace medusa = heads::medusa;
using nlohmann::json;

TEST_CASE("files of Medusa heads hold what engines ask for", "[heads][medusa][files]") {
  const auto golden = parse_json<json>(
      read_text_file(fs::path(BINADE_SOURCE_DIR) / "tests/heads/medusa/engine_names.json"),
      "engine_names.json");
  const auto base = small_model(small_config(nn::Family::llama));
  REQUIRE(base->config().dim == golden.at("dim"));
  REQUIRE(base->config().vocab_size == golden.at("vocabulary"));
  REQUIRE(golden.at("engines").size() == 4);
  const TemporaryFolder folder;
  for (const auto& [engine, asked] : golden.at("engines").items())
    for (const auto& [name, config] : golden.at("cases").items()) {
      INFO(engine << ", " << name);
      const medusa::Layout layout = medusa::parse_layout(asked.at("layout").get<std::string>());
      const medusa::MedusaHeads heads(base,
                                      {.heads = config.at("heads"), .layers = config.at("layers")});
      const fs::path out = folder / (engine + name);
      medusa::save_medusa(heads, out, {.layout = layout, .base_name = "base", .dtype = DType::f16});
      const SafetensorsFile file(out / (layout == medusa::Layout::vllm
                                            ? "model.safetensors"
                                            : "medusa_lm_head.safetensors"));
      const json& tensors = asked.at("tensors").at(name);
      CHECK(file.names().size() == tensors.size());
      for (const auto& [tensor, shape] : tensors.items()) {
        INFO(tensor);
        REQUIRE(file.contains(tensor));
        if (shape.is_null()) continue;  // whatever is there
        const Shape found = file.get(tensor).shape();
        CHECK(std::vector<int64_t>(found.begin(), found.end()) ==
              shape.get<std::vector<int64_t>>());
      }
      // TensorRT-LLM's MedusaConfig reads one of these names, its loader the other one.
      if (layout == medusa::Layout::original)
        for (const char* key : {"medusa_num_heads", "num_medusa_heads"})
          CHECK(parse_json<json>(read_text_file(out / "config.json"), "config.json").at(key) ==
                config.at("heads"));
    }
}
