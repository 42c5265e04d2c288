#include <algorithm>

#include <binade/autograd/tape.h>
#include <binade/core/kernels/drafts.h>
#include <binade/heads/mtp/draft_plan.h>
#include <binade/heads/mtp/proposer.h>

namespace binade::heads::mtp {

namespace {

Tensor number(int64_t value, Device device) {
  return Tensor(Array::full({}, static_cast<double>(value), DType::i32, device));
}

// Element j + shift (S) i32 of each row of M, cut to 0 … M − 1: index (S, M).
Tensor moved_index(const Tensor& shift, int64_t length) {
  const Tensor place(Array::arange(length, DType::i32, shift.device()));
  return minimum(maximum(place + unsqueeze(shift, -1), number(0, shift.device())),
                 number(length - 1, shift.device()));
}

// Tokens as a model can be fed with them, also those that are none.
Tensor feedable(const Tensor& tokens) {
  const Array given = tokens.array().contiguous();
  const Array ids = Array::empty(given.shape(), DType::i32, given.device());
  BINADE_DISPATCH(ids.device(), feedable_tokens(given, ids));
  return Tensor(ids);
}

}  // namespace

ModuleProposer::ModuleProposer(const MtpHeads& heads, const decoding::DraftTree& tree,
                               const MtpProposerOptions& options)
    : heads_(heads),
      plan_(tree, Guesses::of_parents, heads.base().device()),
      slots_(options.slots) {
  check(heads.config().kind != Kind::parallel, "parallel heads are no modules");
  check_tree(heads, tree);
  check(options.slots >= 1, "a proposer needs 1 or more slots, got ", options.slots);
  const nn::CausalLm& base = heads.base();
  const int64_t capacity = options.capacity > 0 ? options.capacity : base.config().max_positions;
  // What pads accepted paths and what was guessed goes behind the text.
  for (int64_t k = 0; k < std::max<int64_t>(tree.depth(), 1); ++k)
    depths_.emplace_back().cache = std::make_unique<infer::KvCache>(
        1, slots_, capacity + infer::KvCache::kMostPending, base.device());
  known_.assign(static_cast<size_t>(slots_), -1);
}

void ModuleProposer::observe(const decoding::Observation& observation) {
  const NoGrad off;
  check(observation.hidden.defined() && observation.next.defined(),
        "modules need the hidden states of what they observe, and the token behind it");
  if (observation.prompts)
    observe_prompts(observation);
  else
    observe_accepted(observation);
}

void ModuleProposer::observe_prompts(const decoding::Observation& observation) {
  const int64_t rows = observation.tokens.size(0), length = observation.tokens.size(1);
  const Device device = observation.hidden.device();
  const std::vector<int32_t> slots = slots_of(observation.slots, rows);
  const auto tokens = observation.tokens.to_vector<int32_t>(),
             counts = observation.counts.to_vector<int32_t>(),
             next = observation.next.to_vector<int32_t>();
  const auto token = [&](int64_t b, int64_t p) -> int32_t {
    const int32_t count = counts[static_cast<size_t>(b)];
    if (p == count) return next[static_cast<size_t>(b)];
    return p < count ? tokens[static_cast<size_t>(b * length + p)] : 0;
  };
  Tensor hidden(observation.hidden);
  for (size_t k = 0; k < depths_.size(); ++k) {
    const auto ahead = static_cast<int64_t>(k) + 1;
    // Column i has token i + ahead; a text that is too short has none, and its cache stays empty.
    std::vector<int32_t> ids, lengths, last;
    for (int64_t b = 0; b < rows; ++b) {
      for (int64_t i = 0; i < length; ++i) ids.push_back(token(b, i + ahead));
      const auto columns = counts[static_cast<size_t>(b)] + 1 - static_cast<int32_t>(ahead);
      lengths.push_back(std::max(columns, 1));
      last.push_back(columns - 1);
    }
    Depth& depth = depths_[k];
    const MtpModule::States states =
        heads_.module(static_cast<int64_t>(k))
            .forward(heads_.base().embed(Tensor::from(ids, {rows, length}, device)), hidden,
                     depth.cache->prefill(slots, lengths));
    for (size_t b = 0; b < slots.size(); ++b)
      if (last[b] < 0) depth.cache->lengths().slice(0, slots[b], slots[b] + 1).zero();
    const Tensor newest = Tensor::from(last, {rows}, device);
    depth.last.put(slots, element_at(states.recurring, newest), slots_);
    if (k == 0) output_.put(slots, element_at(states.output, newest), slots_);
    hidden = states.recurring;
  }
  next_.put(slots, reshape(Tensor(observation.next), {rows, 1}), slots_);
  for (size_t b = 0; b < slots.size(); ++b) known_[static_cast<size_t>(slots[b])] = counts[b];
}

void ModuleProposer::observe_accepted(const decoding::Observation& observation) {
  check(observation.slots.empty() && observation.tokens.size(0) == slots_,
        "accepted tokens come for all ", slots_, " slots, got ", observation.tokens.size(0),
        " rows");
  check(next_.defined(), "accepted tokens came before any prompt");
  const Device device = observation.hidden.device();
  const int64_t length = observation.tokens.size(1);
  const Tensor counts(observation.counts), next(observation.next);
  // What modules learn: the accepted tokens behind the root, and `next`.
  const NewestRows newest(counts, length);
  const Tensor place(Array::arange(length, DType::i32, device));
  const Tensor behind =
      length == 1 ? unsqueeze(next, -1)
                  : cat({slice(Tensor(observation.tokens), 1, 1), unsqueeze(next, -1)}, 1);
  const Tensor tokens =
      where(equal(place, unsqueeze(newest.places, -1)), unsqueeze(next, -1), behind);

  // Whether some text may be so short that a depth has yet to begin.
  const int64_t deepest = static_cast<int64_t>(depths_.size());
  const bool some_short = std::any_of(known_.begin(), known_.end(), [&](int64_t known) {
    return known >= 0 && known < deepest - 1;
  });
  const Tensor before = some_short ? Tensor(depths_[0].cache->lengths().clone()) : Tensor();
  Tensor hidden(observation.hidden);
  for (int64_t k = 0; k < deepest; ++k) {
    Depth& depth = depths_[static_cast<size_t>(k)];
    Tensor learnt = tokens, read = hidden, columns = counts, skipped;
    if (some_short) {
      // The first new token stands at before + 1; this depth begins at k + 1.
      skipped =
          maximum(static_cast<double>(k) - before, Tensor(Array::zeros({}, DType::i32, device)));
      columns = counts - skipped;
      learnt = gather(tokens, 1, moved_index(skipped, length));
      read = elements_at(hidden, moved_index(skipped, length));
    }
    const nn::Sequence sequence = depth.cache->decode(length, columns.array());
    MtpModule::States states =
        heads_.module(k).forward(heads_.base().embed(learnt), read, sequence);
    depth.cache->advance(columns.array());
    if (some_short) {
      const Tensor back = moved_index(-skipped, length);
      states = {elements_at(states.output, back), elements_at(states.recurring, back)};
    }
    // The next depth reads what this one made of the token before.
    const Tensor previous = unsqueeze(depth.last.rows(), 1);
    hidden = length == 1 ? clone(previous)
                         : cat({previous, slice(states.recurring, 1, 0, length - 1)}, 1);
    depth.last.update(newest.of(states.recurring), newest.running);
    if (k == 0) output_.update(newest.of(states.output), newest.running);
  }
  next_.update(unsqueeze(next, -1), newest.running);
  for (int64_t& known : known_)
    if (known >= 0) ++known;
}

MtpModule::States ModuleProposer::run_nodes(int64_t k, const DraftPlan::Level& level,
                                            const Tensor& tokens, const Tensor& hidden) {
  const nn::Sequence sequence =
      depths_[static_cast<size_t>(k)].cache->decode(level.end - 1, {}, level.pending);
  return heads_.module(k).forward(heads_.base().embed(feedable(tokens)),
                                  index_select(hidden, 1, level.parents), sequence);
}

int64_t ModuleProposer::depth_of_texts() const {
  int64_t depth = plan_.depth();
  for (const int64_t known : known_)
    if (known >= 0) depth = std::min(depth, known);
  return depth;
}

decoding::Drafts ModuleProposer::propose(const decoding::BatchDraws& /*draws*/) {
  const NoGrad off;
  check(next_.defined(), "nothing was observed to draft behind");
  const int64_t depth = depth_of_texts();
  Tensor tokens = next_.rows();  // (S, nodes so far), the root first
  Tensor hidden;  // (S, …, dim): what the depth before made of nodes behind the root
  for (int64_t d = 1; d <= depth; ++d) {
    Tensor output = unsqueeze(output_.rows(), 1);
    if (d > 1) {
      const DraftPlan::Level& parents = plan_.level(d - 1);
      const Tensor root = unsqueeze(depths_[static_cast<size_t>(d - 2)].last.rows(), 1);
      const MtpModule::States states =
          run_nodes(d - 1, parents, slice(tokens, 1, 1), d == 2 ? root : cat({root, hidden}, 1));
      hidden = states.recurring;
      output = slice(states.output, 1, parents.begin - 1, parents.end - 1);
    }
    tokens = cat({tokens, guess_level(heads_.base(), plan_.level(d), output)}, 1);
  }
  if (const int64_t left = plan_.tree().size() - tokens.size(1); left > 0)
    tokens =
        cat({tokens,
             Tensor(Array::full({slots_, left}, decoding::kNoToken, DType::i32, tokens.device()))},
            1);
  decoding::Drafts drafts;
  drafts.tree = plan_.tree();
  drafts.tokens = tokens.array();
  return drafts;
}

}  // namespace binade::heads::mtp
