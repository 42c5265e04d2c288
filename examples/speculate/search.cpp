#include "search.h"

#include <algorithm>

#include <binade/core/file.h>
#include <binade/heads/decoding/decode_texts.h>
#include <binade/heads/decoding/measure.h>
#include <binade/heads/mtp/text_ranks.h>
#include <binade/train/chart.h>

namespace binade::examples {

namespace decoding = heads::decoding;

namespace {

// Which guesses of the heads are right where passes with this tree begin. With the root alone that
// is every position of the texts.
decoding::RankCounts count_ranks(const Session& session, const SpeculateOptions& options,
                                 const Rows& prompts, const decoding::DraftTree& tree) {
  const SpeculateOptions o = with_slots_for(prompts, options);
  const auto rule = rule_of(o);
  size_t longest = 0;
  for (const std::vector<int32_t>& prompt : prompts) longest = std::max(longest, prompt.size());
  const int64_t capacity = static_cast<int64_t>(longest) + o.max_new_tokens - 1;
  const auto proposer = proposer_of(session, o, tree, capacity, /*all_heads=*/true);
  decoding::SpeculativeDecoder decoder(
      *session.base.model, *proposer, *rule,
      {.slots = o.batch, .capacity = capacity, .stop_ids = session.stop_ids, .seed = o.seed});
  // Stop ids are left in the texts: heads guess them, too.
  decoding::DecodedTexts counted =
      decoding::decode_texts(decoder, prompts, {.max_new_tokens = o.max_new_tokens});
  if (session.mtp) {
    // What a guess depends on is part of it: guesses outside of this tree are made on the texts.
    counted.ranks.emplace(session.mtp->config().depth, decoding::TreeLimits{}.width);
    for (size_t i = 0; i < prompts.size(); ++i) {
      std::vector<int32_t> text = prompts[i];
      text.insert(text.end(), counted.texts[i].begin(), counted.texts[i].end());
      decoding::record_passes(
          *counted.ranks, tree,
          heads::mtp::text_ranks(*session.mtp, text, static_cast<int64_t>(prompts[i].size()),
                                 decoding::TreeLimits{}.width, session.vocabulary));
    }
  }
  check(counted.ranks && counted.ranks->positions() > 0, o.search_tree,
        ": the texts behind these prompts are too short to choose a tree by");
  return *std::move(counted.ranks);
}

// Timed in the middle of a usual text.
decoding::MeasureOptions measure_options(const Session& session, const SpeculateOptions& o,
                                         const Rows& prompts) {
  int64_t tokens = 0;
  for (const std::vector<int32_t>& prompt : prompts) tokens += static_cast<int64_t>(prompt.size());
  const int64_t usual = tokens / static_cast<int64_t>(prompts.size()) + o.max_new_tokens / 2;
  decoding::MeasureOptions measure{.batch = o.batch};
  measure.prompt_length = std::clamp<int64_t>(usual, 1, session.positions() / 3);
  if (o.nodes > 0) std::erase_if(measure.nodes, [&](int64_t nodes) { return nodes > o.nodes; });
  return measure;
}

// What passes of each size would give and cost.
struct Expected {
  int64_t nodes, depth;
  double seconds, tokens, speed_up;
};

std::vector<Expected> expectations(const decoding::MachineCosts& costs,
                                   const decoding::RankCounts& counts) {
  std::vector<Expected> all;
  for (const decoding::MachineCosts::Pass& pass : costs.verify) {
    const decoding::DraftTree tree = decoding::search_tree(counts, pass.nodes);
    const auto levels = static_cast<size_t>(std::max<int64_t>(tree.depth(), 1));
    const double seconds = pass.seconds + costs.draft[levels - 1];
    const double tokens = decoding::expected_tokens(tree, counts);
    all.push_back({pass.nodes, tree.depth(), seconds, tokens, tokens * costs.plain / seconds});
  }
  return all;
}

void print_costs(const decoding::MachineCosts& costs, const decoding::RankCounts& counts) {
  say("{} positions; a plain step of {} takes {:.3f} ms\n", counts.positions(), costs.batch,
      costs.plain * 1e3);
  say("{:<8}{:>8}{:>12}{:>16}{:>12}\n", "nodes", "depth", "ms a pass", "tokens a pass", "speed-up");
  for (const Expected& row : expectations(costs, counts))
    say("{:<8}{:>8}{:>12.3f}{:>16.3f}{:>12.2f}\n", row.nodes, row.depth, row.seconds * 1e3,
        row.tokens, row.speed_up);
}

void draw_costs(const std::string& folder, const decoding::MachineCosts& costs,
                const decoding::RankCounts& counts) {
  train::ChartSeries tokens{"tokens a pass", {}, {}}, speed_up{"speed-up", {}, {}};
  for (const Expected& row : expectations(costs, counts)) {
    tokens.x.push_back(static_cast<double>(row.nodes));
    tokens.y.push_back(row.tokens);
    speed_up.x.push_back(static_cast<double>(row.nodes));
    speed_up.y.push_back(row.speed_up);
  }
  create_folder(folder);
  write_text_file(
      std::filesystem::path(folder) / "trees.svg",
      train::draw_chart({{"tokens a pass of the best tree", {tokens}},
                         {concat("expected speed-up, batch ", costs.batch), {speed_up}}},
                        "nodes"));
}

}  // namespace

decoding::TreeChoice search_for_tree(const Session& session, const SpeculateOptions& o) {
  const Rows prompts = read_prompts(session, o, o.search_tree).ids;
  decoding::RankCounts counts = count_ranks(session, o, prompts, decoding::DraftTree());
  if (o.most_accepted) {
    // Passes begin where the last one failed: other places than the average one.
    counts = count_ranks(session, o, prompts, decoding::search_tree(counts, o.nodes));
    decoding::TreeChoice choice{.tree = decoding::search_tree(counts, o.nodes)};
    choice.tokens = decoding::expected_tokens(choice.tree, counts);
    say("{} nodes that give {:.2f} tokens a pass on these texts\n", choice.tree.size(),
        choice.tokens);
    return choice;
  }
  const decoding::MachineCosts costs = decoding::measure_costs(
      *session.base.model,
      [&](const decoding::DraftTree& tree) {
        return proposer_of(session, o, tree, session.positions(), /*all_heads=*/false);
      },
      *rule_of(o), counts, measure_options(session, o, prompts));
  decoding::TreeChoice choice = decoding::best_tree_for(costs, counts);
  if (choice.speculate()) {
    // Passes begin where the last one failed: other places than the average one.
    counts = count_ranks(session, o, prompts, choice.tree);
    choice = decoding::best_tree_for(costs, counts);
  }
  print_costs(costs, counts);
  if (!o.charts.empty()) draw_costs(o.charts, costs, counts);
  say("{}\n", choice.advice());
  return choice;
}

}  // namespace binade::examples
