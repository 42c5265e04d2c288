#include <binade/autograd/tape.h>
#include <binade/heads/mtp/draft_plan.h>
#include <binade/heads/mtp/proposer.h>

namespace binade::heads::mtp {

ParallelProposer::ParallelProposer(const MtpHeads& heads, const decoding::DraftTree& tree,
                                   const MtpProposerOptions& options)
    : heads_(heads),
      plan_(tree, Guesses::of_level, heads.base().device()),
      guesses_(draft_output(heads.base(), options.vocabulary)),
      slots_(options.slots) {
  check(heads.config().kind == Kind::parallel, "modules are no parallel heads");
  check_tree(heads, tree, options.vocabulary);
  check(options.slots >= 1, "a proposer needs 1 or more slots, got ", options.slots);
  const nn::CausalLm& base = heads.base();
  const int64_t capacity = options.capacity > 0 ? options.capacity : base.config().max_positions;
  for (int64_t k = 0; k < tree.depth(); ++k)
    levels_.emplace_back().cache = std::make_unique<infer::KvCache>(
        1, slots_, capacity + infer::KvCache::kMostPending, base.device());
}

decoding::ProposerNeeds ParallelProposer::needs() const {
  return {.residual_layers = {heads_.base().config().layers - 1}};
}

void ParallelProposer::observe(const decoding::Observation& observation) {
  const NoGrad off;
  check(observation.residuals.size() == 1 && observation.next.defined(),
        "parallel heads need the residual streams that enter the last layer, and the token behind");
  const Tensor stream(observation.residuals[0]), counts(observation.counts);
  const int64_t rows = stream.size(0);
  const std::vector<int32_t> slots = decoding::slots_of(observation.slots, rows);
  check(observation.prompts || (observation.slots.empty() && rows == slots_),
        "accepted tokens come for all ", slots_, " slots, got ", rows, " rows");
  const decoding::NewestRows newest(counts, stream.size(1));
  const Tensor next = reshape(Tensor(observation.next), {rows, 1});
  const auto keep = [&](decoding::SlotRows& kept, const Tensor& values) {
    if (observation.prompts)
      kept.put(slots, values, slots_);
    else
      kept.update(values, {}, newest.running.array());
  };
  for (size_t k = 0; k < levels_.size(); ++k) {
    infer::KvCache& cache = *levels_[k].cache;
    const nn::Sequence sequence =
        observation.prompts ? cache.prefill(slots, observation.counts.to_vector<int32_t>())
                            : cache.decode(stream.size(1), observation.counts);
    const Tensor output = heads_.parallel_output(static_cast<int64_t>(k), stream, sequence);
    if (!observation.prompts) cache.advance(observation.counts);
    keep(levels_[k].output, newest.of(output));
  }
  keep(next_, next);
}

decoding::Drafts ParallelProposer::propose(const decoding::BatchDraws& /*draws*/) {
  const NoGrad off;
  check(next_.defined(), "nothing was observed to draft behind");
  TensorList tokens = {next_.rows()};
  for (size_t k = 0; k < levels_.size(); ++k)
    tokens.push_back(guess_level(guesses_, plan_.level(static_cast<int64_t>(k) + 1),
                                 unsqueeze(levels_[k].output.rows(), 1)));
  decoding::Drafts drafts;
  drafts.tree = plan_.tree();
  drafts.tokens = cat(tokens, 1).array();
  return drafts;
}

std::unique_ptr<decoding::Proposer> make_proposer(const MtpHeads& heads,
                                                  const decoding::DraftTree& tree,
                                                  const MtpProposerOptions& options) {
  if (heads.config().kind == Kind::parallel)
    return std::make_unique<ParallelProposer>(heads, tree, options);
  return std::make_unique<ModuleProposer>(heads, tree, options);
}

}  // namespace binade::heads::mtp
