#include "search.h"

#include <algorithm>

#include <binade/heads/decoding/decode_texts.h>
#include <binade/heads/decoding/measure.h>

namespace binade::examples {

namespace decoding = heads::decoding;

decoding::TreeChoice search_for_tree(const Session& session, const SpeculateOptions& o) {
  const nn::CausalLm& model = *session.base.model;
  const Rows prompts = read_prompts(session, o, o.search_tree);
  const auto rule = rule_of(o);
  int64_t capacity = 0, tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts) {
    capacity = std::max(capacity, static_cast<int64_t>(prompt.size()) + o.max_new_tokens - 1);
    tokens += static_cast<int64_t>(prompt.size());
  }
  // With the root as the whole tree every position of the texts is measured.
  const auto counting = proposer_of(session, o, decoding::DraftTree(), capacity, true);
  decoding::SpeculativeDecoder decoder(
      model, *counting, *rule,
      {.slots = o.batch, .capacity = capacity, .stop_ids = session.stop_ids, .seed = o.seed});
  const decoding::DecodedTexts counted = decoding::decode_texts(
      decoder, prompts, {.max_new_tokens = o.max_new_tokens, .stop_ids = session.stop_ids});
  check(counted.ranks && counted.ranks->positions() > 0, o.search_tree,
        ": the texts behind these prompts are too short to choose a tree by");
  const decoding::RankCounts& counts = *counted.ranks;

  decoding::MeasureOptions measure{.batch = o.batch};
  measure.prompt_length =
      std::clamp<int64_t>(tokens / static_cast<int64_t>(prompts.size()) + o.max_new_tokens / 2, 1,
                          session.positions() / 3);
  if (o.nodes > 0) std::erase_if(measure.nodes, [&](int64_t nodes) { return nodes > o.nodes; });
  const decoding::MachineCosts costs = decoding::measure_costs(
      model,
      [&](const decoding::DraftTree& tree) {
        return proposer_of(session, o, tree, session.positions(), /*all_heads=*/false);
      },
      *rule, counts, measure);
  const decoding::TreeChoice choice = decoding::best_tree_for(costs, counts);

  say("{} positions of {} texts; a plain step of {} takes {:.3f} ms\n", counts.positions(),
      prompts.size(), costs.batch, costs.plain * 1e3);
  say("{:<8}{:>12}{:>14}{:>12}\n", "nodes", "ms a pass", "tokens a pass", "speed-up");
  for (const decoding::MachineCosts::Pass& pass : costs.verify) {
    const decoding::DraftTree tree = decoding::search_tree(counts, pass.nodes);
    const double seconds =
        pass.seconds + costs.draft[static_cast<size_t>(std::max<int64_t>(tree.depth(), 1)) - 1];
    const double expected = decoding::expected_tokens(tree, counts);
    say("{:<8}{:>12.3f}{:>14.3f}{:>12.2f}\n", pass.nodes, seconds * 1e3, expected,
        expected * costs.plain / seconds);
  }
  say("{}\n", choice.advice());
  return choice;
}

}  // namespace binade::examples
