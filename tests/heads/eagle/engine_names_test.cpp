// Files of EAGLE heads hold what serving engines ask for: engine_names.json has the names and
// shapes that fill their own classes by their own loaders (scripts/long/eagle_engines.py names).
#include <set>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/heads/eagle/files.h>

#include "heads/eagle/engine_cases.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
namespace fs = std::filesystem;
namespace eagle = heads::eagle;
using nlohmann::json;

TEST_CASE("files of EAGLE heads hold what engines ask for", "[heads][eagle][files]") {
  const auto golden = parse_json<json>(
      read_text_file(fs::path(BINADE_SOURCE_DIR) / "tests/heads/eagle/engine_names.json"),
      "engine_names.json");
  const auto base = engine_base();
  // Not an engine's: vLLM takes it for SafeAILab's program, SGLang uses the model's own.
  const std::set<std::string> beside = {"t2d", "d2t", "embed_tokens.weight"};
  int compared = 0;
  for (const auto& [engine, asked] : golden.at("engines").items())
    for (const EngineCase& one : engine_cases(base->config())) {
      if (!asked.at("tensors").contains(one.name)) {
        CHECK((engine == "sglang" && !one.sglang));
        continue;
      }
      INFO(engine << ", " << one.name);
      const TemporaryFolder folder;
      eagle::save_eagle(*eagle_head(base, one.config), folder.path(),
                        {.layout = eagle::parse_layout(engine), .base_name = "base"});
      const SafetensorsFile file(folder / "model.safetensors");
      const json& tensors = asked.at("tensors").at(one.name);
      for (const auto& [tensor, shape] : tensors.items()) {
        INFO(tensor);
        REQUIRE(file.contains(tensor));
        const Shape found = file.get(tensor).shape();
        CHECK(std::vector<int64_t>(found.begin(), found.end()) ==
              shape.get<std::vector<int64_t>>());
        ++compared;
      }
      for (const std::string& name : file.names())
        if (beside.count(name) == 0) CHECK(tensors.contains(name));
    }
  CHECK(compared > 100);
}
