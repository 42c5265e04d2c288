#include <binade/heads/eagle/proposer.h>

#include <algorithm>

#include <binade/autograd/ops.h>
#include <binade/autograd/tape.h>
#include <binade/core/kernels/draft_trees.h>

namespace binade::heads::eagle {

namespace {

constexpr int64_t kUsualNodes = 60;

// x (S, M, D) → (S·M, D).
Tensor rows_of(const Tensor& x) {
  return reshape(x, {-1, x.size(-1)});
}

// What a tree of these sizes makes before the best are chosen.
int64_t pool_size(const EagleProposerOptions& options) {
  return options.width + (options.depth - 1) * options.width * options.width;
}

EagleProposerOptions checked(const EagleHead& head, EagleProposerOptions options) {
  check(options.slots >= 1, "a proposer needs 1 or more slots, got ", options.slots);
  check(options.depth >= 1 && options.depth < decoding::kMostNodes && options.width >= 1,
        "an EAGLE draft is 1 to ", decoding::kMostNodes - 1,
        " levels deep, each of 1 or more tokens, got ", options.depth, " of ", options.width);
  check(options.width <= kernels::kMostTreeWidth, "a tree takes up to ", kernels::kMostTreeWidth,
        " guesses of a node, asked for ", options.width);
  check(options.width <= head.draft_size(), "a level of ", options.width,
        " tokens is wider than the draft vocabulary of ", head.draft_size());
  check((options.depth - 1) * options.width <= infer::KvCache::kMostPending, "a tree of ",
        options.depth, " levels, ", options.width, " wide, has more than ",
        infer::KvCache::kMostPending, " nodes that are guessed behind; make it less deep or wide");
  if (options.nodes == 0)
    options.nodes =
        options.width == 1 ? options.depth + 1 : std::min(kUsualNodes, pool_size(options) + 1);
  check(options.nodes >= 2 && options.nodes <= decoding::kMostNodes &&
            options.nodes <= pool_size(options) + 1,
        "a draft of ", options.depth, " levels, ", options.width, " wide, has 2 to ",
        std::min(decoding::kMostNodes, pool_size(options) + 1), " nodes, asked for ",
        options.nodes);
  check(options.width > 1 || options.nodes == options.depth + 1, "a chain of ", options.depth,
        " guesses has ", options.depth + 1, " nodes, asked for ", options.nodes);
  check(options.temperature >= 0 && (options.temperature == 0 || options.width == 1),
        "guesses are drawn for chains alone, at a temperature of 0 or more; a tree takes the ",
        "likeliest ones");
  if (options.capacity == 0) options.capacity = head.base().config().max_positions;
  return options;
}

}  // namespace

EagleProposer::EagleProposer(const EagleHead& head, const EagleProposerOptions& options)
    : head_(head),
      options_(checked(head, options)),
      drawn_({.sampling = {.temperature = options_.temperature},
              .vocabulary = head.base().config().vocab_size,
              .names = head.config().vocabulary.ids()}),
      // What pads accepted paths and what was guessed goes behind the text.
      cache_(1, options_.slots, options_.capacity + infer::KvCache::kMostPending,
             head.base().device()) {
  const Device device = head.base().device();
  token_of_place_ = head.draft_tokens();
  for (int64_t level = 1; options_.width > 1 && level < options_.depth; ++level)
    depths_.push_back(
        Array::full({options_.width}, static_cast<double>(level - 1), DType::i32, device));
}

decoding::ProposerNeeds EagleProposer::needs() const {
  decoding::ProposerNeeds needs;
  if (head_.own_output())
    needs.residual_layers = head_.config().layers;
  else
    needs.hidden = true;
  return needs;
}

Tensor EagleProposer::features_of(const decoding::Observation& seen) const {
  if (!head_.own_output()) {
    check(seen.hidden.defined(), "EAGLE-1 needs the hidden states of what it observes");
    return Tensor(seen.hidden);
  }
  check(seen.residuals.size() == head_.config().layers.size(), "EAGLE-3 needs the streams of ",
        head_.config().layers.size(), " layers, got ", seen.residuals.size());
  TensorList streams;
  for (const Array& stream : seen.residuals) streams.emplace_back(stream);
  return head_.enter(cat(streams, -1));
}

void EagleProposer::observe(const decoding::Observation& observation) {
  const NoGrad off;
  check(observation.next.defined(), "EAGLE needs the token behind what it observes");
  if (observation.prompts)
    observe_prompts(observation);
  else
    observe_accepted(observation);
  observed_ = true;
}

void EagleProposer::observe_prompts(const decoding::Observation& seen) {
  const int64_t rows = seen.tokens.size(0), length = seen.tokens.size(1);
  const Device device = seen.tokens.device();
  const std::vector<int32_t> slots = decoding::slots_of(seen.slots, rows);
  const std::vector<int32_t> counts = seen.counts.to_vector<int32_t>();
  const kernels::LearntTokens learnt{
      Array::empty({rows, length}, DType::i32, device), Array::empty({rows}, DType::i32, device),
      Array::empty({rows, 1}, DType::boolean, device), Array::empty({rows}, DType::i32, device)};
  BINADE_DISPATCH(device, learnt_tokens(seen.tokens.contiguous(), seen.counts, seen.next, learnt));
  const EagleHead::States made = head_.forward(head_.base().embed(Tensor(learnt.tokens)),
                                               features_of(seen), cache_.prefill(slots, counts));
  const auto newest = [&](const Tensor& x) {
    return index_select(rows_of(x), 0, Tensor(learnt.newest));
  };
  output_.put(slots, newest(made.output), options_.slots);
  recurring_.put(slots, newest(made.recurring), options_.slots);
  next_.put(slots, reshape(Tensor(seen.next), {rows, 1}), options_.slots);
}

void EagleProposer::observe_accepted(const decoding::Observation& seen) {
  check(seen.slots.empty() && seen.tokens.size(0) == options_.slots,
        "accepted tokens come for all ", options_.slots, " slots, got ", seen.tokens.size(0),
        " rows");
  check(observed_, "accepted tokens came before any prompt");
  const Device device = seen.tokens.device();
  const int64_t slots = options_.slots, length = seen.tokens.size(1);
  const kernels::LearntTokens learnt{
      Array::empty({slots, length}, DType::i32, device), Array::empty({slots}, DType::i32, device),
      Array::empty({slots, 1}, DType::boolean, device), Array::empty({slots}, DType::i32, device)};
  BINADE_DISPATCH(device, learnt_tokens(seen.tokens.contiguous(), seen.counts, seen.next, learnt));
  const nn::Sequence sequence = cache_.decode(length, learnt.counts);
  const EagleHead::States made =
      head_.forward(head_.base().embed(Tensor(learnt.tokens)), features_of(seen), sequence);
  cache_.advance(learnt.counts);
  output_.update(rows_of(made.output), learnt.newest, learnt.running);
  recurring_.update(rows_of(made.recurring), learnt.newest, learnt.running);
  next_.update(reshape(Tensor(seen.next), {slots, 1}), {}, learnt.running);
}

EagleHead::States EagleProposer::run_level(const Array& ids, const Tensor& recurring,
                                           const infer::TokenTree& tree, int64_t first) {
  const nn::Sequence sequence = cache_.decode(ids.size(1), {}, tree, first);
  return head_.forward(head_.base().embed(Tensor(ids)), recurring, sequence);
}

decoding::Drafts EagleProposer::propose(const decoding::BatchDraws& draws) {
  const NoGrad off;
  check(observed_, "nothing was observed to draft behind");
  return options_.width == 1 ? chain(draws) : tree();
}

decoding::Drafts EagleProposer::chain(const decoding::BatchDraws& draws) {
  const int64_t slots = options_.slots, depth = options_.depth;
  const Device device = head_.base().device();
  decoding::Drafts drafts;
  drafts.tree = decoding::DraftTree::chain(depth);
  drafts.tokens = Array::empty({slots, depth + 1}, DType::i32, device);
  drafts.tokens.select(1, 0).copy_from(next_.rows().array().view({slots}));
  if (options_.temperature > 0) drawn_.prepare(drafts);
  const decoding::DraftOutput likeliest(
      [this](const Tensor& output) { return head_.logits(output); }, token_of_place_);
  Tensor output = output_.rows(), recurring = recurring_.rows();
  for (int64_t level = 1; level <= depth; ++level) {
    const Array column = drafts.tokens.slice(1, level, level + 1);
    if (options_.temperature > 0)
      drawn_.draw(head_.logits(output).array(), level, draws, drafts);
    else
      likeliest.guess(output, column);
    if (level == depth) break;
    const Array ids = Array::empty({slots, 1}, DType::i32, device);
    BINADE_DISPATCH(device, feedable_tokens(column.contiguous(), ids));
    const EagleHead::States made = run_level(ids, unsqueeze(recurring, 1), {}, level - 1);
    output = rows_of(made.output);
    recurring = rows_of(made.recurring);
  }
  return drafts;
}

kernels::TreeBeams EagleProposer::beams() const {
  const Shape shape{options_.slots, options_.width};
  const auto make = [&](DType dtype) { return Array::empty(shape, dtype, head_.base().device()); };
  return {make(DType::i32), make(DType::f32), make(DType::i32), make(DType::i64), make(DType::i32)};
}

void EagleProposer::grow(const Tensor& output, int64_t level, const kernels::TreeBeams& behind,
                         const kernels::DraftPool& pool, const kernels::TreeBeams& next) const {
  const int64_t width = options_.width;
  const Device device = output.device();
  const Array logits = head_.logits(output).array();
  const Shape shape{logits.size(0), width};
  const kernels::TreeLevel made{.columns = Array::empty(shape, DType::i32, device),
                                .scores = Array::empty(shape, DType::f32, device),
                                .names = token_of_place_,
                                .first = level == 1 ? 0 : width + (level - 2) * width * width,
                                .pending = (level - 1) * width};
  BINADE_DISPATCH(device, top_tokens(logits, Array(), made.columns));
  BINADE_DISPATCH(device, log_probabilities(logits, made.columns, made.scores));
  BINADE_DISPATCH(device, grow_tree(made, behind, pool, next));
}

decoding::Drafts EagleProposer::tree() {
  const Device device = head_.base().device();
  const int64_t slots = options_.slots, width = options_.width, all = pool_size(options_);
  const kernels::DraftPool pool{Array::empty({slots, all}, DType::f32, device),
                                Array::empty({slots, all}, DType::i32, device),
                                Array::empty({slots, all}, DType::i32, device)};
  kernels::TreeBeams behind;
  Tensor output = output_.rows(), recurring = recurring_.rows();
  for (int64_t level = 1; level < options_.depth; ++level) {
    const kernels::TreeBeams next = beams();
    grow(output, level, behind, pool, next);
    const Tensor above = index_select(recurring, 0, Tensor(next.sources.view({slots * width})));
    const EagleHead::States made =
        run_level(next.ids, reshape(above, {slots, width, above.size(1)}),
                  {.depths = depths_[static_cast<size_t>(level - 1)], .visible = next.visible},
                  (level - 1) * width);
    output = rows_of(made.output);
    recurring = rows_of(made.recurring);
    behind = next;
  }
  grow(output, options_.depth, behind, pool, {});
  decoding::Drafts drafts;
  drafts.tokens = Array::empty({slots, options_.nodes}, DType::i32, device);
  drafts.parents = Array::empty({slots, options_.nodes}, DType::i32, device);
  BINADE_DISPATCH(device, best_nodes(pool, next_.rows().array().view({slots}),
                                     {drafts.tokens, drafts.parents}));
  return drafts;
}

}  // namespace binade::heads::eagle
