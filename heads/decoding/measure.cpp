#include <binade/heads/decoding/measure.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include <binade/core/error.h>
#include <binade/core/transfer.h>

namespace binade::heads::decoding {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

constexpr int64_t kWarmUp = 4;  // the capture of a graph among them
constexpr int kRuns = 3;

// Seconds a step of a decoder whose slots run all the time: at most `most` tokens a step.
template <class Decoder>
double seconds_a_step(Decoder& decoder, const MeasureOptions& options, int64_t most) {
  check(options.steps > 0, "measuring needs steps to time, got ", options.steps);
  // The pass over the prompt gives the first token.
  decoder.check_room(options.prompt_length, 1 + (kWarmUp + 1) * most,
                     "there is no room to time steps: a prompt");
  const int64_t room = decoder.room(options.prompt_length) - 1;
  const int64_t steps = std::min(options.steps, room / most - kWarmUp);
  std::vector<int32_t> slots(static_cast<size_t>(options.batch));
  std::iota(slots.begin(), slots.end(), 0);
  const int32_t words = static_cast<int32_t>(decoder.model().config().vocab_size);
  Rows prompts(slots.size());
  for (size_t slot = 0; slot < slots.size(); ++slot)
    for (int64_t i = 0; i < options.prompt_length; ++i)
      prompts[slot].push_back(static_cast<int32_t>((7 * i + static_cast<int64_t>(slot)) % words));
  const auto wait = [&] { Fence::after_queued_work(decoder.model().device()).wait(); };
  double fastest = HUGE_VAL;
  for (int run = 0; run < kRuns; ++run) {
    decoder.begin(slots, prompts);
    for (int64_t i = 0; i < kWarmUp; ++i) decoder.step();
    wait();
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < steps; ++i) decoder.step();
    wait();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    fastest = std::min(fastest, seconds.count() / static_cast<double>(steps));
  }
  return fastest;
}

}  // namespace

MachineCosts measure_costs(const nn::CausalLm& model, const ProposerOfTree& proposer_of,
                           const AcceptanceRule& rule, const RankCounts& counts,
                           const MeasureOptions& options) {
  MachineCosts costs;
  costs.batch = options.batch;
  const auto capacity_for = [&](int64_t most) {
    return std::min(model.config().max_positions,
                    options.prompt_length + (options.steps + kWarmUp) * most);
  };
  infer::DecoderOptions plain{.slots = options.batch, .capacity = capacity_for(1)};
  plain.choice.sampling = rule.plain();
  const auto plain_seconds = [&] {
    infer::Decoder decoder(model, plain);
    return seconds_a_step(decoder, options, 1);
  };
  costs.plain = plain_seconds();
  const auto seconds_of = [&](const DraftTree& tree) {
    const std::unique_ptr<Proposer> proposer = proposer_of(tree);
    const int64_t most = tree.depth() + 1;
    SpeculativeDecoder speculative(model, *proposer, rule,
                                   {.slots = options.batch, .capacity = capacity_for(most)});
    return seconds_a_step(speculative, options, most);
  };
  // Chains with one node more and one level more; their nodes' share is small beside the level's.
  for (int64_t depth = 1; depth <= counts.heads(); ++depth) {
    const double seconds = seconds_of(DraftTree::chain(depth));
    const double shallowest = costs.draft.empty() ? seconds : costs.draft[0];
    costs.draft.push_back(std::max(seconds, costs.draft.empty() ? shallowest : costs.draft.back()));
  }
  const double first = costs.draft[0];
  for (double& level : costs.draft) level -= first;
  for (const int64_t nodes : options.nodes) {
    const DraftTree tree = search_tree(counts, nodes);
    if (tree.size() < nodes) continue;
    const auto levels = static_cast<size_t>(std::max<int64_t>(tree.depth(), 1));
    costs.verify.push_back({nodes, seconds_of(tree) - costs.draft[levels - 1]});
  }
  // Timings scatter, and what else runs may have changed meanwhile: plain steps are timed once
  // more, and a larger pass is never taken to be cheaper.
  costs.plain = std::min(costs.plain, plain_seconds());
  double least = costs.plain;
  for (MachineCosts::Pass& pass : costs.verify)
    least = pass.seconds = std::max(pass.seconds, least);
  return costs;
}

}  // namespace binade::heads::decoding
