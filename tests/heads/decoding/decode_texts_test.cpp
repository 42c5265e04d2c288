#include <binade/heads/decoding/decode_texts.h>

#include <catch2/catch.hpp>

#include <binade/heads/decoding/measure.h>
#include <binade/heads/medusa/proposer.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::heads::decoding;
using namespace binade::test;
using Catch::Matchers::Contains;
using heads::medusa::MedusaProposer;
using nn::Family;
using Rows = std::vector<std::vector<int32_t>>;

TEST_CASE("longrope texts that would end early are refused before any is decoded",
          "[decoding][speculative][bad-input]") {
  nn::CausalLmConfig config = small_config(Family::phi3);
  config.rope = {.scaling = nn::RopeScaling::longrope,
                 .factor = 4,
                 .short_factor = {1, 1.5, 2, 2.5},
                 .long_factor = {3, 4, 5, 6},
                 .original_max_positions = 12};
  const auto model = small_model(config);
  const auto heads =
      std::make_shared<heads::medusa::MedusaHeads>(model, heads::medusa::MedusaConfig{.heads = 2});
  const auto rule = greedy_acceptance();
  // 4 new tokens end within the original positions for the first, not for the second.
  const Rows prompts = {{1, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}};
  const DecodeTextsOptions options{.max_new_tokens = 4};
  const auto check_refused = [&](auto& decoder) {
    int tokens = 0;
    const auto count = [&](size_t, int32_t, bool) { ++tokens; };
    CHECK_THROWS_WITH(decode_texts(decoder, prompts, options, count),
                      Contains("prompt 2 of 10 tokens") && Contains("cross the 12 positions"));
    CHECK(tokens == 0);
    CHECK(decode_texts(decoder, {prompts[0]}, options, count).texts[0].size() == 4);
  };
  infer::Decoder plain(*model, {.slots = 1});
  check_refused(plain);
  MedusaProposer proposer(*heads, DraftTree::chain(2), {});
  SpeculativeDecoder speculative(*model, proposer, *rule, {.slots = 1});
  check_refused(speculative);
  RankCounts counts(2, 10);
  counts.record(std::vector<int32_t>{0, 0});
  const auto measure = [&](int64_t prompt) {
    return measure_costs(*model,
                         [&](const DraftTree& tree) {
                           return std::make_unique<MedusaProposer>(
                               *heads, tree, heads::medusa::MedusaProposerOptions{});
                         },
                         *rule, counts, {.prompt_length = prompt, .steps = 2, .nodes = {2}});
  };
  CHECK_THROWS_WITH(measure(9), Contains("no room to time steps") && Contains("longrope"));
  CHECK_NOTHROW(measure(13));
}
