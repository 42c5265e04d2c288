#include <binade/heads/eagle/proposer.h>

#include <algorithm>

#include <binade/autograd/ops.h>
#include <binade/autograd/tape.h>
#include <binade/core/kernels/drafts.h>

namespace binade::heads::eagle {

namespace {

constexpr int64_t kUsualNodes = 60;

Tensor number(int64_t value, Device device) {
  return Tensor(Array::full({}, static_cast<double>(value), DType::i32, device));
}

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
  if (const Array tokens = head.draft_tokens(); tokens.defined()) token_of_place_ = Tensor(tokens);
  std::vector<int64_t> bits;
  for (int n = 0; n < infer::KvCache::kMostPending; ++n)
    bits.push_back(static_cast<int64_t>(uint64_t{1} << n));
  own_bits_ = Tensor::from(bits, {std::ssize(bits)}, device);
  std::vector<int32_t> parents;
  for (int64_t n = 0; n < options_.width * options_.width; ++n)
    parents.push_back(static_cast<int32_t>(n / options_.width));
  parent_of_ = Tensor::from(parents, {std::ssize(parents)}, device);
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

Tensor EagleProposer::tokens_of(const Tensor& places) const {
  if (!token_of_place_.defined()) return to(places, DType::i32);
  return reshape(index_select(token_of_place_, 0, reshape(places, {-1})), places.shape());
}

EagleHead::States EagleProposer::run_level(const Tensor& tokens, const Tensor& recurring,
                                           const infer::TokenTree& tree, int64_t first) {
  const Array fed = tokens.array().contiguous();
  const Array ids = Array::empty(fed.shape(), DType::i32, fed.device());
  BINADE_DISPATCH(ids.device(), feedable_tokens(fed, ids));
  const nn::Sequence sequence = cache_.decode(tokens.size(1), {}, tree, first);
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
      [this](const Tensor& output) { return head_.logits(output); },
      token_of_place_.defined() ? token_of_place_.array() : Array());
  Tensor output = output_.rows(), recurring = recurring_.rows();
  for (int64_t level = 1; level <= depth; ++level) {
    const Array column = drafts.tokens.slice(1, level, level + 1);
    if (options_.temperature > 0)
      drawn_.draw(head_.logits(output).array(), level, draws, drafts);
    else
      likeliest.guess(output, column);
    if (level == depth) break;
    const EagleHead::States made =
        run_level(Tensor(column), unsqueeze(recurring, 1), {}, level - 1);
    output = rows_of(made.output);
    recurring = rows_of(made.recurring);
  }
  return drafts;
}

EagleProposer::Beams EagleProposer::grow(const Tensor& output, const Tensor& recurring,
                                         const Beams& beams, int64_t level, Pool& pool) const {
  const int64_t slots = options_.slots, width = options_.width;
  const Device device = output.device();
  // output (S, P, dim) of P parents: the best guesses of each.
  const Tensor logits = head_.logits(output);
  auto [scores, places] = topk(log_softmax(to(logits, DType::f32), -1), width, -1);
  if (beams.scores.defined()) scores = scores + unsqueeze(beams.scores, -1);
  const int64_t made = scores.numel() / slots;
  scores = reshape(scores, {slots, made});
  const Tensor tokens = reshape(tokens_of(places), {slots, made});
  const Tensor parents =
      beams.nodes.defined()
          ? reshape(expand(unsqueeze(beams.nodes, -1), {slots, width, width}), {slots, made})
          : Tensor(Array::zeros({slots, made}, DType::i32, device));
  int64_t before = 1;  // the root
  for (const Tensor& part : pool.scores) before += part.size(1);
  pool.scores.push_back(scores);
  pool.tokens.push_back(tokens);
  pool.parents.push_back(parents);

  if (level == options_.depth) return {};
  Beams next;
  Tensor chosen;  // (S, W) i64 among those made
  std::tie(next.scores, chosen) = topk(scores, width, -1);
  next.tokens = gather(tokens, 1, chosen);
  next.nodes = to(chosen, DType::i32) + number(before, device);
  const Tensor own = reshape(slice(own_bits_, 0, (level - 1) * width, level * width), {1, width});
  if (level == 1) {
    next.recurring = expand(recurring, {slots, width, recurring.size(2)});
    next.visible = expand(own, {slots, width});
    return next;
  }
  const Tensor parent = reshape(index_select(parent_of_, 0, reshape(chosen, {-1})), chosen.shape());
  next.recurring = decoding::elements_at(recurring, parent);
  next.visible = gather(beams.visible, 1, parent) + own;
  return next;
}

decoding::Drafts EagleProposer::tree() {
  Pool pool;
  Beams beams;
  Tensor output = unsqueeze(output_.rows(), 1), recurring = unsqueeze(recurring_.rows(), 1);
  for (int64_t level = 1;; ++level) {
    beams = grow(output, recurring, beams, level, pool);
    if (level == options_.depth) break;
    const Array depths =
        Array::full({options_.width}, static_cast<double>(level - 1), DType::i32, output.device());
    const EagleHead::States made =
        run_level(beams.tokens, beams.recurring,
                  {.depths = depths, .visible = beams.visible.array().contiguous()},
                  (level - 1) * options_.width);
    output = made.output;
    recurring = made.recurring;
  }
  // The best of all, in the order in which they were made: parents in front of their children. Of
  // equal scores the first is better, so that no child is taken without its parent.
  const Tensor best =
      sort(topk(cat(pool.scores, 1), options_.nodes - 1, -1).second, -1).first;  // (S, R)
  const Tensor nodes = to(best, DType::i32) + number(1, best.device());
  const Tensor root(Array::zeros({options_.slots, 1}, DType::i32, best.device()));
  const Tensor kept = cat({root, nodes}, 1);
  const Tensor parents = gather(cat(pool.parents, 1), 1, best);
  decoding::Drafts drafts;
  drafts.tokens = cat({next_.rows(), gather(cat(pool.tokens, 1), 1, best)}, 1).array();
  drafts.parents =
      cat({root - number(1, best.device()), to(searchsorted(kept, parents), DType::i32)}, 1)
          .array();
  return drafts;
}

}  // namespace binade::heads::eagle
