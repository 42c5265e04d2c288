#include <algorithm>

#include <binade/autograd/tape.h>
#include <binade/core/kernels/drafts.h>
#include <binade/heads/mtp/draft_plan.h>
#include <binade/heads/mtp/proposer.h>

namespace binade::heads::mtp {

namespace {

// x (S, M, D) → (S·M, D).
Tensor rows_of(const Tensor& x) {
  return reshape(x, {-1, x.size(2)});
}

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
      guesses_(draft_output(heads.base(), options.vocabulary)),
      slots_(options.slots) {
  check(heads.config().kind != Kind::parallel, "parallel heads are no modules");
  check_tree(heads, tree, options.vocabulary);
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
  const std::vector<int32_t> slots = decoding::slots_of(observation.slots, rows);
  const auto tokens = observation.tokens.to_vector<int32_t>(),
             counts = observation.counts.to_vector<int32_t>(),
             next = observation.next.to_vector<int32_t>();
  const auto token = [&](int64_t b, int64_t p) -> int32_t {
    const int32_t count = counts[static_cast<size_t>(b)];
    if (p == count) return next[static_cast<size_t>(b)];
    return p < count ? tokens[static_cast<size_t>(b * length + p)] : 0;
  };
  if (accepted_.waiting)  // the text it belongs to is gone
    for (const int32_t slot : slots)
      for (const Array& rows : {accepted_.counts, accepted_.running})
        rows.slice(0, slot, slot + 1).zero();
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
    depth.last.put(slots, decoding::element_at(states.recurring, newest), slots_);
    if (k == 0) output_.put(slots, decoding::element_at(states.output, newest), slots_);
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
  if (!accepted_.tokens.defined() || accepted_.tokens.size(1) != length) {
    accepted_.tokens = Array::empty({slots_, length}, DType::i32, device);
    accepted_.counts = Array::empty({slots_}, DType::i32, device);
    accepted_.running = Array::empty({slots_, 1}, DType::boolean, device);
    accepted_.newest = Array::empty({slots_}, DType::i32, device);
    accepted_.states = {};
  }
  BINADE_DISPATCH(
      device,
      learnt_tokens(observation.tokens.contiguous(), observation.counts, observation.next,
                    {accepted_.tokens, accepted_.counts, accepted_.running, accepted_.newest}));

  // Whether some text may be so short that a depth has yet to begin.
  const auto deepest = static_cast<int64_t>(depths_.size());
  const bool some_short = std::any_of(known_.begin(), known_.end(), [&](int64_t known) {
    return known >= 0 && known < deepest - 1;
  });
  infer::KvCache& cache = *depths_[0].cache;
  accepted_.lengths = some_short ? cache.lengths().clone() : Array();
  const nn::Sequence sequence = cache.decode(length, accepted_.counts);
  const MtpModule::States states = heads_.module(0).forward(
      heads_.base().embed(Tensor(accepted_.tokens)), Tensor(observation.hidden), sequence);
  cache.advance(accepted_.counts);
  accepted_.waiting = deepest > 1;
  if (accepted_.waiting) {
    const Array& made = states.recurring.array();
    if (!accepted_.states.defined())
      accepted_.states = Array::empty(made.shape(), made.dtype(), made.device());
    accepted_.states.copy_from(made);
  }
  output_.update(rows_of(states.output), accepted_.newest, accepted_.running);
  next_.update(reshape(Tensor(observation.next), {slots_, 1}), {}, accepted_.running);
  for (int64_t& known : known_)
    if (known >= 0) ++known;
}

void ModuleProposer::learn_accepted() {
  if (!accepted_.waiting) return;
  const Tensor tokens(accepted_.tokens), counts(accepted_.counts);
  const int64_t length = tokens.size(1);
  Tensor recurring(accepted_.states);
  for (int64_t k = 0;; ++k) {
    // The next depth reads what this one made of the token before.
    Depth& depth = depths_[static_cast<size_t>(k)];
    const Tensor previous = unsqueeze(depth.last.rows(), 1);
    Tensor read =
        length == 1 ? clone(previous) : cat({previous, slice(recurring, 1, 0, length - 1)}, 1);
    depth.last.update(rows_of(recurring), accepted_.newest, accepted_.running);
    if (k + 1 == static_cast<int64_t>(depths_.size())) break;
    Tensor learnt = tokens, columns = counts, skipped;
    if (accepted_.lengths.defined()) {
      // The first new token stands at lengths + 1; this depth begins at k + 2.
      skipped = maximum(static_cast<double>(k + 1) - Tensor(accepted_.lengths),
                        Tensor(Array::zeros({}, DType::i32, tokens.device())));
      columns = counts - skipped;
      learnt = gather(tokens, 1, moved_index(skipped, length));
      read = decoding::elements_at(read, moved_index(skipped, length));
    }
    infer::KvCache& cache = *depths_[static_cast<size_t>(k + 1)].cache;
    const nn::Sequence sequence = cache.decode(length, columns.array());
    recurring = heads_.module(k + 1).forward(heads_.base().embed(learnt), read, sequence).recurring;
    cache.advance(columns.array());
    if (skipped.defined())
      recurring = decoding::elements_at(recurring, moved_index(-skipped, length));
  }
  accepted_.waiting = false;
}

bool ModuleProposer::learns_beside_guesses() const {
  if (depth_of_texts() != plan_.depth()) return false;
  if (plan_.depth() <= 1) return true;  // there is nothing beyond the first depth
  return accepted_.waiting && !accepted_.lengths.defined() &&
         accepted_.tokens.size(1) + plan_.level(plan_.depth() - 1).end - 1 <=
             infer::KvCache::kMostPending;
}

MtpModule::States ModuleProposer::learn_beside_guesses(int64_t k, const Tensor& tokens,
                                                       const Tensor& states) {
  const DraftPlan::Level& level = plan_.level(k);
  const int64_t columns = accepted_.tokens.size(1), rows = columns + level.end - 1;
  const Device device = tokens.device();
  const kernels::ModulePass pass{
      accepted_.counts, level.pending.depths, level.pending.visible, level.parents.array(),
      columns,          states.size(1)};
  const kernels::ModulePassRows made{Array::empty({slots_, rows}, DType::i32, device),
                                     Array::empty({slots_, rows}, DType::i64, device),
                                     Array::empty({slots_, rows}, DType::i32, device),
                                     Array::empty({slots_}, DType::i32, device)};
  BINADE_DISPATCH(device, module_pass_rows(pass, made));
  decoding::SlotRows& above = depths_[static_cast<size_t>(k - 1)].last;
  const Tensor before = cat({unsqueeze(above.rows(), 1), states}, 1);
  const Tensor read =
      embedding(reshape(before, {-1, before.size(2)}), Tensor(made.sources));  // (S, rows, dim)
  above.update(rows_of(states), made.newest, accepted_.running);
  const Tensor fed = cat({Tensor(accepted_.tokens), feedable(slice(tokens, 1, 1))}, 1);
  infer::KvCache& cache = *depths_[static_cast<size_t>(k)].cache;
  const nn::Sequence sequence =
      cache.decode(rows, {}, {.depths = made.depths, .visible = made.visible});
  MtpModule::States result = heads_.module(k).forward(heads_.base().embed(fed), read, sequence);
  cache.advance(accepted_.counts);
  return result;
}

MtpModule::States ModuleProposer::run_nodes(int64_t k, const DraftPlan::Level& level,
                                            const Tensor& tokens, const Tensor& states) {
  const Tensor root = unsqueeze(depths_[static_cast<size_t>(k - 1)].last.rows(), 1);
  const Tensor above = states.defined() ? cat({root, states}, 1) : root;
  const nn::Sequence sequence =
      depths_[static_cast<size_t>(k)].cache->decode(level.end - 1, {}, level.pending);
  return heads_.module(k).forward(heads_.base().embed(feedable(slice(tokens, 1, 1))),
                                  index_select(above, 1, level.parents), sequence);
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
  const bool beside = accepted_.waiting && learns_beside_guesses();
  if (!beside) learn_accepted();
  const int64_t columns = beside ? accepted_.tokens.size(1) : 0;  // in front of the nodes
  Tensor tokens = next_.rows();  // (S, nodes so far), the root first
  // (S, …, dim): what the depth before made of accepted tokens and of nodes behind the root.
  Tensor states = beside ? Tensor(accepted_.states) : Tensor();
  for (int64_t d = 1; d <= depth; ++d) {
    Tensor output = unsqueeze(output_.rows(), 1);
    if (d > 1) {
      const DraftPlan::Level& parents = plan_.level(d - 1);
      const MtpModule::States made = beside ? learn_beside_guesses(d - 1, tokens, states)
                                            : run_nodes(d - 1, parents, tokens, states);
      states = made.recurring;
      output = slice(made.output, 1, columns + parents.begin - 1, columns + parents.end - 1);
    }
    tokens = cat({tokens, guess_level(guesses_, plan_.level(d), output)}, 1);
  }
  accepted_.waiting = false;
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
