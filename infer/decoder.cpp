#include <binade/infer/decoder.h>

#include <algorithm>

#if BINADE_HAVE_CUDA
#include <binade/autograd/observer.h>
#include <binade/core/cuda/graph.h>
#endif

namespace binade::infer {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

// Eager steps before the capture: they time and choose algorithms and fill the pool.
constexpr int kEagerSteps = 2;

int64_t checked_capacity(const nn::CausalLm& model, int64_t capacity) {
  check(!model.training(), "generation needs the model in evaluation mode: call eval()");
  const int64_t positions = model.config().max_positions;
  check(capacity >= 0 && capacity <= positions, "a capacity of ", capacity,
        " tokens is beyond the model's ", positions, " positions");
  return capacity ? capacity : positions;
}

void check_prompts(const nn::CausalLm& model, const Rows& prompts) {
  for (const std::vector<int32_t>& prompt : prompts) {
    check(!prompt.empty(), "a prompt has no tokens; begin with the BOS token");
    for (const int32_t id : prompt)
      check(id >= 0 && id < model.config().vocab_size, "the token id ", id,
            " is out of range: the model's vocabulary is ", model.config().vocab_size);
  }
}

std::vector<int32_t> lengths_of(const Rows& prompts) {
  std::vector<int32_t> lengths;
  for (const std::vector<int32_t>& prompt : prompts)
    lengths.push_back(static_cast<int32_t>(prompt.size()));
  return lengths;
}

// Rows of prompts, padded at the end: causal attention keeps the padding out of what is before it.
Tensor padded(const Rows& prompts, int64_t longest, Device device) {
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& prompt : prompts) {
    ids.insert(ids.end(), prompt.begin(), prompt.end());
    ids.resize(ids.size() + static_cast<size_t>(longest) - prompt.size(), 0);
  }
  return Tensor::from(ids, {static_cast<int64_t>(prompts.size()), longest}, device);
}

// Tokens of a pass over prompts: on a GPU few different numbers, as matmuls are timed for each.
int64_t padded_length(const nn::CausalLm& model, int64_t longest) {
  constexpr int64_t kMultiple = 32;
  if (model.device().is_cpu()) return longest;
  return std::min((longest + kMultiple - 1) / kMultiple * kMultiple, model.config().max_positions);
}

// hidden (B, T, dim) → the rows' last tokens (B, dim).
Tensor last_tokens(const Tensor& hidden, const std::vector<int32_t>& lengths) {
  std::vector<int64_t> rows;
  for (size_t b = 0; b < lengths.size(); ++b)
    rows.push_back(static_cast<int64_t>(b) * hidden.size(1) + lengths[b] - 1);
  const Tensor index = Tensor::from(rows, {static_cast<int64_t>(rows.size())}, hidden.device());
  return index_select(reshape(hidden, {-1, hidden.size(2)}), 0, index);
}

}  // namespace

struct Decoder::Graph {
#if BINADE_HAVE_CUDA
  cuda::CapturedGraph captured;
#endif
};

Decoder::~Decoder() = default;

Decoder::Decoder(const nn::CausalLm& model, const DecoderOptions& options)
    : model_(model),
      cache_(options.layers == 0 ? model.config().layers : options.layers, options.slots,
             checked_capacity(model, options.capacity), model.device(), options.spare),
      choices_(options.slots, options.choice, model.device()),
      layers_(options.layers),
      stream_layers_(options.streams),
      capture_(options.capture) {
  check(layers_ >= 0 && layers_ <= model.config().layers, "the model has ", model.config().layers,
        " layers, a decoder was asked for the first ", layers_);
}

Decoder::Prompts Decoder::prefill(const std::vector<int32_t>& slots, const Rows& prompts,
                                  int64_t least_length) {
  const NoGrad no_grad;
  check_prompts(model_, prompts);
  const std::vector<int32_t> lengths = lengths_of(prompts);
  check(!lengths.empty(), "generation needs a prompt");
  const int64_t longest = std::max(
      padded_length(model_, *std::max_element(lengths.begin(), lengths.end())), least_length);
  const nn::Sequence sequence = cache_.prefill(slots, lengths);
  const Tensor ids = padded(prompts, longest, model_.device());
  const auto rows = static_cast<int64_t>(slots.size());
  Prompts result;
  result.ids = ids.array();
  result.lengths = Array::from(lengths, {rows}, model_.device());
  result.slots = Array::from(slots, {rows}, model_.device());
  result.hidden = hidden_states(ids, sequence);
  result.last = last_tokens(result.hidden, lengths);
  return result;
}

Decoder::Prompts Decoder::begin(const std::vector<int32_t>& slots, const Rows& prompts,
                                std::vector<SlotStates::Start> starts, int64_t least_length) {
  const NoGrad no_grad;
  if (starts.empty()) starts.resize(slots.size());
  check(starts.size() == prompts.size() && slots.size() == prompts.size(), prompts.size(),
        " prompts, ", slots.size(), " slots and ", starts.size(), " starts do not fit together");
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].size());
    check(cache_.capacity() >= length, "a prompt of ", length,
          " tokens does not fit a key-value cache with a capacity of ", cache_.capacity());
    int32_t& limit = starts[i].limit;
    if (limit == SlotStates::Start{}.limit)
      limit = static_cast<int32_t>(room(length) + starts[i].drawn);
    check_room(length, int64_t{limit} - starts[i].drawn);
  }
  Prompts read = prefill(slots, prompts, least_length);
  choices_.start(slots, starts);
  choices_.sample(model_.logits(read.last).array(), read.slots);
  return read;
}

int64_t Decoder::room(int64_t prompt) const {
  // The last token that is chosen is never read again.
  return std::min(cache_.capacity(), model_.config().longest_text(prompt)) - prompt + 1;
}

void Decoder::check_room(int64_t prompt, int64_t fresh, const std::string& name) const {
  if (fresh <= room(prompt)) return;
  const int64_t longest = model_.config().longest_text(prompt);
  check(longest >= cache_.capacity(), name, " of ", prompt, " tokens and ", fresh,
        " new ones cross the ", longest,
        " positions behind which longrope has other frequencies, for the tokens before them, too; "
        "ask for fewer, or begin with a longer prompt");
  fail(name, " of ", prompt, " tokens and ", fresh,
       " new ones do not fit a key-value cache with a capacity of ", cache_.capacity(),
       "; shorten it or ask for fewer");
}

void Decoder::step() {
#if BINADE_HAVE_CUDA
  // What watches ops reads their results back, which a graph cannot do.
  if (capture_ && model_.device().is_cuda() && !cuda::is_capturing() &&
      current_op_observer() == nullptr && eager_steps_ >= kEagerSteps) {
    if (!graph_) {
      auto graph = std::make_unique<Graph>();
      graph->captured = cuda::CapturedGraph::capture([this] { queue_step(); }, model_.device());
      graph_ = std::move(graph);
    }
    graph_->captured.replay();
    return;
  }
  ++eager_steps_;
#endif
  queue_step();
}

void Decoder::queue_step() {
  const NoGrad no_grad;
  const Tensor ids(choices_.tokens().view({slots(), 1}));
  const Tensor hidden = run(ids);
  // Before the choice: it counts the tokens of those slots that were running in this pass.
  accept({}, choices_.running());
  choose(reshape(hidden, {slots(), model_.config().dim}));
}

Tensor Decoder::run(const Tensor& ids, const TokenTree& tree, int64_t first) {
  const NoGrad no_grad;
  check(ids.dims() == 2 && ids.size(0) == slots(), "a pass of decoding reads ids (", slots(),
        ", T), got ", ids.shape());
  return hidden_states(ids, cache_.decode(ids.size(1), choices_.running(), tree, first));
}

Tensor Decoder::hidden_states(const Tensor& ids, nn::Sequence sequence) {
  sequence.layers = layers_;
  if (stream_layers_.empty()) return model_.hidden_states(ids, sequence);
  nn::CausalLm::States states = model_.states(ids, sequence, stream_layers_);
  streams_ = std::move(states.streams);
  return states.hidden;
}

void Decoder::accept(const Array& nodes, const Array& counts) {
  if (nodes.defined())
    cache_.compact(nodes, counts);
  else
    cache_.advance(counts);
}

void Decoder::choose(const Tensor& last_hidden) {
  const NoGrad no_grad;
  choices_.sample(model_.logits(last_hidden).array());
}

}  // namespace binade::infer
