// Acceptance for a batch on a device gives what the rules say of each sequence on the host.
#include <binade/heads/decoding/acceptance.h>

#include <catch2/catch.hpp>

#include <binade/heads/decoding/proposer.h>

#include "core/draft_cases.h"
#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::heads::decoding;
using namespace binade::test;
using infer::SlotStates;

namespace {

// The device's words against accept() of the same rule, slot by slot.
void check_rule(const AcceptanceRule& rule, Device device) {
  Random random(4);
  int64_t guesses = 0;
  for (int round = 0; round < 20; ++round)
    for (const DraftCase& c : kDraftCases) {
      INFO(rule.name() << ", S " << c.slots << ", N " << c.nodes << ", V " << c.vocabulary);
      DraftArrays a = draft_arrays(c, DType::f32, random);
      a.parents = a.parents.expand({c.slots, c.nodes}).contiguous();
      Drafts drafts;
      drafts.parents = a.parents.to(device);
      drafts.tokens = a.tokens.to(device);
      infer::ChoiceRules choice{.sampling = rule.plain()};
      choice.sampling.seed = 17;
      SlotStates states(c.slots, choice, device);
      states.start_all({.drawn = round});
      if (c.slots > 1) states.stop({1});
      const BatchDraws draws{17, states.drawn(), states.places()};
      REQUIRE(rule.judges_on_device(drafts));
      const kernels::AcceptedPaths accepted{a.nodes.to(device), a.counts.to(device),
                                            a.next.to(device)};
      rule.judge(drafts, {drafts.tokens, drafts.parents}, a.logits.to(device), states, draws,
                 accepted);
      const std::vector<int32_t> counts = accepted.counts.to_vector<int32_t>();
      const std::vector<int32_t> next = accepted.next.to_vector<int32_t>();
      for (int64_t slot = 0; slot < c.slots; ++slot) {
        const auto at = static_cast<size_t>(slot);
        if (slot == 1) {
          CHECK(counts[at] == 0);
          continue;
        }
        const HostProposal proposal(drafts, slot);
        const std::vector<float> rows =
            a.logits.slice(0, slot * c.nodes, (slot + 1) * c.nodes).to_vector<float>();
        const Accepted said = rule.accept(proposal.view(), {rows, c.vocabulary},
                                          {.seed = 17,
                                           .pass = static_cast<uint64_t>(round),
                                           .place = static_cast<uint64_t>(slot)});
        std::vector<int32_t> path = accepted.nodes.slice(0, slot, slot + 1).to_vector<int32_t>();
        path.resize(static_cast<size_t>(counts[at]));
        CHECK(path == said.nodes);
        CHECK(next[at] == said.next);
        guesses += static_cast<int64_t>(path.size()) - 1;
      }
    }
  CHECK(guesses > 50);
}

void check_rules(Device device) {
  check_rule(*greedy_acceptance(), device);
  check_rule(*typical_acceptance({.temperature = 1.1}), device);
  check_rule(*speculative_sampling({.temperature = 0}), device);
  check_rule(*speculative_sampling({.temperature = 1.5}), device);
  check_rule(*speculative_sampling({.temperature = 2, .top_k = 6}), device);
  check_rule(*speculative_sampling({.temperature = 2, .top_p = 0.8}), device);
}

}  // namespace

TEST_CASE("batches are judged on the device as sequences are on the host", "[decoding]") {
  check_rules(Device::cpu());
}
TEST_CASE("batches are judged on the GPU as sequences are on the host", "[decoding][cuda]") {
  check_rules(cuda_or_skip());
}

TEST_CASE("logits that no token follows from make a slot invalid", "[decoding]") {
  for (const double temperature : {0.0, 1.0}) {
    const auto rule = speculative_sampling({.temperature = temperature});
    Drafts drafts;
    drafts.tree = DraftTree::chain(1);
    drafts.tokens = Array::from(std::vector<int32_t>{3, 1}, {1, 2});
    SlotStates states(1, {.sampling = rule->plain()}, Device::cpu());
    states.start_all({});
    const Array logits = Array::zeros({2, 4}, DType::f32);
    write(logits, 1, NAN);
    const kernels::AcceptedPaths accepted{Array::zeros({1, 2}, DType::i32),
                                          Array::zeros({1}, DType::i32),
                                          Array::zeros({1}, DType::i32)};
    const kernels::DraftNodes nodes{drafts.tokens, Array::from(std::vector<int32_t>{-1, 0}, {2})};
    rule->judge(drafts, nodes, logits, states, {0, states.drawn(), states.places()}, accepted);
    CHECK(accepted.next.to_vector<int32_t>()[0] == -1);
  }
}
