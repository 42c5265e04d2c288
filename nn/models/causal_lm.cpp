#include <binade/nn/models/causal_lm.h>

#include <cmath>

#include <binade/nn/decode.h>
#include <binade/nn/models/gpt2.h>
#include <binade/nn/models/llama.h>

namespace binade::nn {

CausalLm::CausalLm(const CausalLmConfig& config, const CausalLmOptions& options)
    : config_(config), options_(options) {
  config.validate();
  const int64_t multiple = options.vocabulary_multiple;
  check(multiple > 0, "the vocabulary cannot be padded to a multiple of ", multiple);
  vocabulary_rows_ = (config.vocab_size + multiple - 1) / multiple * multiple;
}

Initialiser CausalLm::weight_initialiser(double stddev) const {
  return options_.random_weights ? init::normal(stddev) : init::empty();
}

Initialiser CausalLm::vocabulary_initialiser() const {
  return init::zeros_behind(weight_initialiser(config_.initializer_range), config_.vocab_size);
}

void CausalLm::add_embedding(const std::string& name) {
  embedding_name_ = name + ".weight";
  embedding_ = add<Embedding>(name, vocabulary_rows_, config_.dim, vocabulary_initialiser());
}

void CausalLm::add_head() {
  if (!config_.tie_embeddings)
    head_ = add<Linear>("lm_head", config_.dim, vocabulary_rows_, false, vocabulary_initialiser());
}

Tensor CausalLm::embed(const Tensor& ids) const {
  const Tensor rows = embedding_->forward(ids);
  if (!config_.scale_embedding) return rows;
  // Rounded as the weights are, which is what Gemma was trained with.
  const double scale = std::sqrt(static_cast<double>(config_.dim));
  return rows * Array::full({}, scale, rows.dtype()).item();
}

Tensor CausalLm::padded_logits(const Tensor& hidden) const {
  if (head_ && (head_->adapter() || head_->bias())) return head_->forward(hidden);
  return output_logits(hidden, head_weight());
}

const ParameterPtr& CausalLm::head_parameter() const {
  check(!head_ || !head_->adapter(),
        "the output layer has an adapter, so its weight alone is not the layer; merge the adapter");
  return head_ ? head_->weight() : embedding_->weight();
}

Tensor CausalLm::logits(const Tensor& hidden) const {
  Tensor padded = padded_logits(hidden);
  if (vocabulary_rows_ == config_.vocab_size) return padded;
  return slice(padded, -1, 0, config_.vocab_size);
}

Tensor CausalLm::loss(const Tensor& ids, const Tensor& targets, const Tensor& normaliser) const {
  check(targets.shape() == ids.shape(), "loss: targets ", targets.shape(), " for ids ",
        ids.shape());
  LinearCrossEntropyOptions options;
  options.normaliser = normaliser;
  options.classes = config_.vocab_size;
  const Tensor hidden = hidden_states(ids);
  // An adapter adds to the logits before the loss.
  if (head_ && head_->adapter()) return cross_entropy(padded_logits(hidden), targets, options);
  return linear_cross_entropy(hidden, head_weight(), targets, options);
}

Tensor CausalLm::hidden_states(const Tensor& ids, const Sequence& sequence) const {
  return states(ids, sequence, {}).hidden;
}

CausalLm::States CausalLm::states(const Tensor& ids, const Sequence& sequence,
                                  const std::vector<int64_t>& layers) const {
  check_ids(ids, sequence);
  for (const int64_t layer : layers)
    check(layer >= 0 && layer < config_.layers, "the model has no layer ", layer, " among ",
          config_.layers);
  const RecomputeScope scope(recompute_);
  States states;
  states.streams.resize(layers.size());
  states.hidden = trunk(ids, sequence, [&](size_t layer, const Tensor& stream) {
    for (size_t i = 0; i < layers.size(); ++i)
      if (layers[i] == static_cast<int64_t>(layer)) states.streams[i] = stream;
  });
  return states;
}

size_t CausalLm::layers_of(const Sequence& sequence) const {
  check(sequence.layers >= 0 && sequence.layers <= config_.layers, "the model has ", config_.layers,
        " layers, asked for the first ", sequence.layers);
  return static_cast<size_t>(sequence.layers == 0 ? config_.layers : sequence.layers);
}

TensorList CausalLm::run_block(const std::function<TensorList(const TensorList&)>& block,
                               const TensorList& inputs) const {
  return recompute_ == Recompute::blocks && grad_enabled() ? recompute(block, inputs)
                                                           : block(inputs);
}

void CausalLm::check_ids(const Tensor& ids, const Sequence& sequence) const {
  check(ids.dims() == 2 && ids.numel() > 0, "token ids come as (batch, tokens), got ", ids.shape());
  const int64_t end = sequence.positions.defined() ? ids.size(1) : sequence.start + ids.size(1);
  check(end <= config_.max_positions, "a sequence of ", end, " tokens is longer than the model's ",
        config_.max_positions, " positions; shorten it");
}

bool CausalLm::transposed_in_files(const std::string&) const {
  return false;
}

Array CausalLm::file_view(const std::string& name, const Array& values) const {
  if (name == embedding_name_ || name == "lm_head.weight")
    return values.slice(0, 0, config_.vocab_size);
  return transposed_in_files(name) ? values.transpose(0, 1) : values;
}

std::shared_ptr<CausalLm> make_causal_lm(const CausalLmConfig& config,
                                         const CausalLmOptions& options) {
  if (config.family == Family::gpt2) return std::make_shared<Gpt2>(config, options);
  return std::make_shared<Llama>(config, options);
}

}  // namespace binade::nn
