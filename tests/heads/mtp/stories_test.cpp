// Multi-token prediction on a real model: trained on what the model writes, then drafting for it.
#include <catch2/catch.hpp>

#include <binade/heads/decoding/acceptance_stats.h>
#include <binade/heads/mtp/files.h>
#include <binade/heads/mtp/proposer.h>
#include <binade/heads/mtp/training.h>

#include "heads/stories.h"

using namespace binade;
using namespace binade::test;
namespace decoding = heads::decoding;
namespace mtp = heads::mtp;

namespace {

// Greedy decoding behind `prompt` with drafts; `text` gets what it emits.
decoding::AcceptanceStats decode(const mtp::MtpHeads& heads, const Text& prompt, size_t length,
                                 Text& text) {
  const nn::CausalLm& base = heads.base();
  const auto proposer =
      mtp::make_proposer(heads, decoding::DraftTree::chain(heads.config().depth), {.slots = 1});
  const auto rule = decoding::greedy_acceptance();
  const int64_t vocabulary = base.config().vocab_size;
  const auto run = [&](const Text& ids) {
    return base.hidden_states(Tensor::from(ids, {1, static_cast<int64_t>(ids.size())}));
  };
  const auto observe = [&](const Text& fed, const Tensor& hidden, int32_t next, bool prompts) {
    decoding::Observation seen{.prompts = prompts};
    seen.tokens = Array::from(fed, {1, static_cast<int64_t>(fed.size())});
    seen.counts = Array::from(Text{static_cast<int32_t>(fed.size())}, {1});
    seen.next = Array::from(Text{next}, {1});
    seen.hidden = hidden.array();
    proposer->observe(seen);
  };
  decoding::AcceptanceStats stats;
  text = prompt;
  Tensor hidden = run(text);
  int32_t next = argmax(base.logits(slice(hidden, 1, -1)), -1).to_vector<int32_t>().back();
  observe(text, hidden, next, true);
  while (text.size() + 1 < length) {
    const decoding::HostProposal drafted(proposer->propose({}), 0);
    const decoding::Proposal proposal = drafted.view();
    Text fed = text;
    for (const int32_t token : proposal.tokens) fed.push_back(std::max(token, 0));
    const auto known = static_cast<int64_t>(text.size());
    hidden = slice(run(fed), 1, known);
    const auto logits = base.logits(hidden).to_vector<float>();
    const decoding::Accepted accepted =
        rule->accept(proposal, {.logits = logits, .vocabulary = vocabulary}, {});
    stats.record(proposal, accepted);
    const auto count = static_cast<int64_t>(accepted.nodes.size());
    const Text kept(fed.begin() + known, fed.begin() + known + count);  // a chain: nodes in order
    text.insert(text.end(), kept.begin(), kept.end());
    next = accepted.next;
    observe(kept, contiguous(slice(hidden, 1, 0, count)), next, false);
  }
  text.push_back(next);
  return stats;
}

}  // namespace

TEST_CASE("modules that learnt from stories260k draft its stories", "[heads][mtp][stories][long]") {
  const std::shared_ptr<nn::CausalLm> model = stories_model();
  if (!model) return;
  const int32_t bos = bos_of(*model);
  const auto documents = stories(*model, 128, 8);
  for (const auto& [kind, depth] : std::vector<std::pair<mtp::Kind, int64_t>>{
           {mtp::Kind::sequential, 1}, {mtp::Kind::recursive, 3}}) {
    RandomState::current().set_seed(1);
    mtp::MtpHeads heads(
        model,
        {.kind = kind, .depth = depth, .conventions = mtp::conventions_of(mtp::Format::deepseek)});
    train_on(documents, heads, mtp::head_set(heads.config(), {}), mtp::mtp_loss(heads, false, {}),
             300, 2e-3);
    heads.eval();
    const NoGrad off;
    Text text;
    const decoding::AcceptanceStats stats = decode(heads, {bos}, 240, text);
    // Greedy decoding, with drafts or without.
    const Text plain = infer::generate(*model, {{bos}}, {.max_new_tokens = 230})[0];
    for (size_t i = 0; i < plain.size(); ++i) REQUIRE(text[i + 1] == plain[i]);
    INFO(mtp::name_of(kind) << ": " << stats.tau() << " tokens a pass, acceptance at depth 1 "
                            << stats.acceptance(1));
    CHECK(stats.acceptance(1) >= 0.7);
    CHECK(stats.tau() >= (depth == 1 ? 1.7 : 2.2));
  }
}
