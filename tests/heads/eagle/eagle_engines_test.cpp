// Files of EAGLE heads against the classes of serving engines: scripts/long/eagle_engines.sh runs
// this and lets the engines read what it wrote.
#include <cstdlib>
#include <filesystem>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/safetensors.h>
#include <binade/heads/eagle/files.h>
#include <binade/nn/hf.h>

#include "heads/eagle/engine_cases.h"
#include "skip.h"

using namespace binade;
using namespace binade::test;
namespace fs = std::filesystem;
namespace eagle = heads::eagle;

TEST_CASE("EAGLE heads are written for engines to read", "[.eagle-engines-write]") {
  const char* given = std::getenv("BINADE_EAGLE_ENGINES");
  if (given == nullptr) skip("run scripts/long/eagle_engines.sh");
  const fs::path folder = given;
  const auto base = engine_base();
  nn::save_hf(*base, folder / "base");
  const NoGrad off;
  constexpr int64_t kTokens = 11;
  const Tensor ids = random_ids(1, kTokens, base->config().vocab_size);
  for (const EngineCase& one : engine_cases(base->config())) {
    INFO(one.name);
    const auto head = eagle_head(base, one.config);
    for (const eagle::Layout layout : {eagle::Layout::vllm, eagle::Layout::sglang})
      if (layout == eagle::Layout::vllm || one.sglang)
        eagle::save_eagle(*head, folder / one.name / eagle::name_of(layout),
                          {.layout = layout, .base_name = "base", .dtype = DType::f32});
    const eagle::EagleHead::Trunk trunk = head->trunk(ids, {});
    const auto made =
        head->forward(base->embed(slice(ids, 1, 1, kTokens)),
                      slice(head->enter(trunk.features), 1, 0, kTokens - 1), nn::Sequence{});
    std::vector<int64_t> tokens;
    for (int64_t n = 0; n < head->draft_size(); ++n)
      tokens.push_back(
          one.config.vocabulary.whole() ? n : one.config.vocabulary.ids()[static_cast<size_t>(n)]);
    const auto rows = [](const Tensor& x) { return select(x, 0, 0).array().contiguous(); };
    write_safetensors(folder / one.name / "expected.safetensors",
                      {{"ids", to(select(ids, 0, 0), DType::i64).array().contiguous()},
                       {"features", rows(trunk.features)},
                       {"logits", rows(head->logits(made.output))},
                       {"recurring", rows(made.recurring)},
                       {"tokens", Array::from(tokens, {std::ssize(tokens)})}});
  }
}
