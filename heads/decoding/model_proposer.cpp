#include <binade/heads/decoding/model_proposer.h>

#include <algorithm>

#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/indexing.h>

namespace binade::heads::decoding {
namespace {

infer::DecoderOptions decoder_options(const ModelProposerOptions& options) {
  infer::DecoderOptions result;
  result.slots = options.slots;
  result.capacity = options.capacity;
  result.layers = options.layers;
  // A text that has reached the capacity is drafted on until somebody reads that it is done.
  result.spare = infer::KvCache::kMostPending;
  return result;
}

const ModelProposerOptions& checked(const nn::CausalLm& model, const nn::CausalLm& target,
                                    const ModelProposerOptions& options) {
  const int64_t own = model.config().vocab_size, wanted = target.config().vocab_size;
  check(own == wanted, "the draft model has a vocabulary of ", own, " tokens, the target one of ",
        wanted, "; they must read the same tokens");
  check(options.guesses >= 1 && options.guesses < kMostNodes, "a chain has 1 to ", kMostNodes - 1,
        " guesses, asked for ", options.guesses);
  check(options.capacity <= model.config().max_positions, "the draft model has ",
        model.config().max_positions, " positions, fewer than the ", options.capacity,
        " tokens that a text may have");
  options.sampling.validate();
  return options;
}

}  // namespace

ModelProposer::ModelProposer(const nn::CausalLm& model, const nn::CausalLm& target,
                             const ModelProposerOptions& options)
    : options_(checked(model, target, options)),
      drawn_({.sampling = options.sampling, .vocabulary = model.config().vocab_size, .names = {}}),
      decoder_(model, decoder_options(options)) {
  check(model.device() == target.device(), "the draft model is on ", model.device(),
        ", the target on ", target.device());
  next_ = Array::zeros({options.slots}, DType::i32, model.device());
}

void ModelProposer::observe(const Observation& observation) {
  if (!observation.prompts) {
    // Accepted nodes of a chain are its first ones.
    decoder_.cache().advance(observation.counts);
    next_.copy_from(observation.next);
    return;
  }
  const auto rows = static_cast<int64_t>(observation.slots.size());
  const std::vector<int32_t> counts = observation.counts.to_vector<int32_t>();
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t row = 0; row < rows; ++row) {
    prompts.push_back(observation.tokens.slice(0, row, row + 1).to_vector<int32_t>());
    prompts.back().resize(static_cast<size_t>(counts[static_cast<size_t>(row)]));
  }
  const infer::Decoder::Prompts read = decoder_.prefill(observation.slots, prompts);
  decoder_.choices().start(observation.slots,
                           std::vector<infer::SlotStates::Start>(observation.slots.size()));
  BINADE_DISPATCH(next_.device(), scatter(next_, 0, read.slots, observation.next, /*add=*/false));
  next_.bump_version();
}

Drafts ModelProposer::propose(const BatchDraws& draws) {
  const NoGrad no_grad;
  const nn::CausalLm& model = decoder_.model();
  const Device device = model.device();
  const int64_t slots = options_.slots, nodes = options_.guesses + 1;
  Drafts drafts;
  drafts.tree = DraftTree::chain(options_.guesses);
  drafts.tokens = Array::empty({slots, nodes}, DType::i32, device);
  drafts.tokens.select(1, 0).copy_from(next_);
  if (options_.sampling.temperature > 0) drawn_.prepare(drafts);
  for (int64_t n = 0; n < nodes; ++n) {
    const Array column = drafts.tokens.slice(1, n, n + 1).contiguous();
    const Array ids = Array::empty({slots, 1}, DType::i32, device);
    BINADE_DISPATCH(device, feedable_tokens(column, ids));
    const Tensor hidden = decoder_.run(Tensor(ids), {}, n);
    if (n + 1 == nodes) break;  // read for its keys alone
    const Array logits = model.logits(reshape(hidden, {slots, -1})).array();
    guess(logits, n + 1, draws, drafts);
  }
  return drafts;
}

void ModelProposer::guess(const Array& logits, int64_t number, const BatchDraws& draws,
                          const Drafts& drafts) {
  const Array column = drafts.tokens.slice(1, number, number + 1);
  if (drafts.drawn == Drawn::best) {
    BINADE_DISPATCH(logits.device(), top_tokens(logits, {}, column));
    return;
  }
  drawn_.draw(logits, number, draws, drafts);
}

}  // namespace binade::heads::decoding
