#include <binade/heads/eagle/eagle.h>

#include <algorithm>
#include <set>

#include <binade/autograd/ops.h>
#include <binade/core/text.h>
#include <binade/heads/eagle/step_keys.h>
#include <binade/infer/kv_cache.h>
#include <binade/nn/decode.h>

namespace binade::heads::eagle {

namespace {

constexpr int64_t kFeatures = 3;  // of EAGLE-3

EagleConfig checked(const nn::CausalLmConfig& base, EagleConfig config) {
  if (config.version == Version::eagle1) {
    check(config.layers.empty() && config.vocabulary.whole(),
          "EAGLE-1 reads the model's last hidden states and drafts with its output layer: it has ",
          "neither layers nor a draft vocabulary");
    return config;
  }
  check(std::ssize(config.layers) == kFeatures &&
            std::is_sorted(config.layers.begin(), config.layers.end()) &&
            std::adjacent_find(config.layers.begin(), config.layers.end()) == config.layers.end() &&
            config.layers.front() >= 0 && config.layers.back() < base.layers,
        "EAGLE-3 reads the streams of ", kFeatures, " layers, ascending, of the model's ",
        base.layers, ", numbered from 0");
  if (config.vocabulary.whole()) return config;
  const std::vector<int32_t>& ids = config.vocabulary.ids();
  check(ids.back() < base.vocab_size, "the draft vocabulary has the token ", ids.back(),
        ", but the model has ", base.vocab_size);
  for (const int64_t stop : base.stop_ids())
    check(std::binary_search(ids.begin(), ids.end(), stop), "the draft vocabulary lacks the token ",
          stop, ", which ends a text: no draft would ever reach the end");
  return config;
}

// The model's parameter of this name, f32 on the CPU.
Array parameter_of(const nn::CausalLm& base, const std::string& name) {
  for (const nn::NamedParameter& named : base.named_parameters())
    if (named.name == name) return named.parameter->peek().to(Device::cpu()).to(DType::f32);
  fail("the model has no parameter ", name);
}

// Of the model; 1 + w where its norms are kept as w.
Array norm_of(const nn::CausalLm& base, const std::string& name) {
  const Array weight = parameter_of(base, name);
  if (!base.config().norm_from_one) return weight.clone();
  return (Tensor(weight) + 1.0).array();
}

constexpr std::string_view kLayer = "midlayer.";  // of EAGLE-3

// The state of an EAGLE-3 head whose layer is the model's last one, where that is a layer of Llama:
// q, k and v read the stream with its weights, and the embedding beside it with those that the head
// has. Queries and keys with norms of their own have another scale, and stay what they are.
nn::StateDict begun_as_last(const nn::CausalLm& base, nn::StateDict state) {
  const nn::CausalLmConfig& config = base.config();
  const std::string last = concat("model.layers.", config.layers - 1, '.');
  std::set<std::string> names;
  for (const nn::NamedParameter& named : base.named_parameters())
    if (named.name.starts_with(last)) names.insert(named.name.substr(last.size()));
  if (names.count("input_layernorm.weight") == 0 || names.count("mlp.up_proj.weight") == 0 ||
      names.count("pre_feedforward_layernorm.weight") > 0)
    return state;
  const int64_t dim = config.dim;
  for (auto& [name, values] : state) {
    if (!name.starts_with(kLayer)) continue;
    std::string own = name.substr(kLayer.size());
    if (own == "input_layernorm.weight") continue;  // of the embedding
    if (own == "hidden_norm.weight") own = "input_layernorm.weight";
    const bool scaled = own == "self_attn.q_proj.weight" || own == "self_attn.k_proj.weight";
    if (names.count(own) == 0 || (scaled && config.qk_norm != nn::QkNorm::none)) continue;
    const Array of_model = own.find("layernorm") == std::string::npos
                               ? parameter_of(base, last + own)
                               : norm_of(base, last + own);
    values = values.to(Device::cpu()).to(DType::f32).clone();
    if (values.shape() == of_model.shape())
      values.copy_from(of_model);
    else
      values.slice(1, dim, 2 * dim).copy_from(of_model);
  }
  return state;
}

}  // namespace

std::string_view name_of(Version version) {
  return version == Version::eagle1 ? "eagle1" : "eagle3";
}

Version parse_version(std::string_view name) {
  for (const Version version : {Version::eagle1, Version::eagle3})
    if (name == name_of(version)) return version;
  fail("there is no version '", name, "' of EAGLE; there are eagle1 and eagle3");
}

std::vector<int64_t> default_layers(int64_t layers) {
  check(layers >= kFeatures, "EAGLE-3 reads streams of ", kFeatures,
        " layers, but the model has only ", layers);
  if (layers < 7) return {0, layers / 2, layers - 1};
  return {2, layers / 2, layers - 3};
}

EagleConfig EagleConfig::eagle3(const nn::CausalLmConfig& base,
                                decoding::DraftVocabulary vocabulary) {
  return {.version = Version::eagle3,
          .layers = default_layers(base.layers),
          .vocabulary = std::move(vocabulary)};
}

nn::CausalLmConfig draft_config(const nn::CausalLmConfig& base) {
  check(base.family != nn::Family::gpt2 && base.rotates(base.layers - 1),
        "an EAGLE head is a layer of Llama: a '", nn::name_of(base.family),
        "' model whose last layer has no rotary positions cannot have one");
  check(!base.scale_embedding, "the '", nn::name_of(base.family),
        "' model scales its embedding, which engines do not do in front of an EAGLE head");
  nn::CausalLmConfig config = nn::CausalLmConfig::of(nn::Family::llama);
  config.vocab_size = base.vocab_size;
  config.dim = base.dim;
  config.layers = 1;
  config.heads = base.heads;
  config.kv_heads = base.kv_heads;
  config.head_dim = base.head_dim;
  config.hidden = base.hidden_size();
  config.max_positions = base.max_positions;
  config.norm_eps = base.norm_eps;
  config.initializer_range = base.initializer_range;
  config.rope = base.rope_of(base.layers - 1);
  config.bos_ids = base.bos_ids;
  config.eos_ids = base.eos_ids;
  config.pad_ids = base.pad_ids;
  return config;
}

DraftLayer::DraftLayer(const nn::CausalLmConfig& config, int64_t read_dim) {
  const nn::Initialiser weight = nn::init::normal(config.initializer_range);
  nn::SelfAttentionOptions attention;
  attention.dim = config.dim;
  attention.input_dim = read_dim;
  attention.heads = config.heads;
  attention.kv_heads = config.key_heads();
  attention.head_dim = config.head_size();
  attention.weight = attention.output_weight = weight;
  self_attn_ = add<nn::SelfAttention>("self_attn", attention);
  post_attention_layernorm_ =
      add<nn::RmsNorm>("post_attention_layernorm", config.dim, config.norm_eps);
  mlp_ = add<nn::GatedMlp>("mlp", nn::GatedMlpOptions{.dim = config.dim,
                                                      .hidden = config.hidden_size(),
                                                      .activation = config.activation,
                                                      .weight = weight});
}

std::pair<Tensor, Tensor> DraftLayer::forward(const Tensor& read, const Tensor& residual,
                                              const nn::RmsNorm* norm, const nn::Sequence& sequence,
                                              const nn::RotaryTables& rotary) const {
  const auto [middle, normed] =
      post_attention_layernorm_->forward_add(self_attn_->forward(read, sequence, rotary), residual);
  const Tensor made = mlp_->forward(normed);
  if (norm != nullptr) return norm->forward_add(made, middle);
  const Tensor sum = made + middle;
  return {sum, sum};
}

bool DraftLayer::decodes(const kernels::FewRows& read, const kernels::FewRows& residual,
                         const nn::Sequence& sequence, const nn::RotaryTables& rotary) const {
  return nn::decodes_layer(*self_attn_, *mlp_, *post_attention_layernorm_, read, residual, sequence,
                           rotary);
}

std::pair<Array, Array> DraftLayer::decode(const kernels::FewRows& read,
                                           const kernels::FewRows& residual,
                                           const nn::RmsNorm* norm, const nn::Sequence& sequence,
                                           const nn::RotaryTables& rotary) const {
  const kernels::FewRows stream = nn::decode_layer(*self_attn_, *mlp_, *post_attention_layernorm_,
                                                   read, residual, sequence, rotary);
  if (norm == nullptr) return {stream.x, stream.x};
  const nn::DecodedStream decoded = nn::decoded_norm(stream, *norm);
  return {decoded.whole, decoded.normed};
}

EagleHead::EagleHead(std::shared_ptr<const nn::CausalLm> base, EagleConfig config, bool copy_last)
    : base_(std::move(base)),
      config_((check(base_ != nullptr, "EAGLE needs a language model"),
               checked(base_->config(), std::move(config)))) {
  const nn::CausalLmConfig layer = draft_config(base_->config());
  const nn::Initialiser weight = nn::init::normal(layer.initializer_range);
  // Drafts may reach beyond the last position, as may what pads accepted paths.
  rotary_ = add<nn::Rotary>("rotary", layer.head_size(),
                            layer.max_positions + infer::KvCache::kMostPending, layer.rope);
  const auto norm = [&](const char* name) {
    return add<nn::RmsNorm>(name, layer.dim, layer.norm_eps);
  };
  if (!own_output()) {
    fc_ = add<nn::Linear>("fc", 2 * layer.dim, layer.dim, false, weight);
    layer_ = add<DraftLayer>("layers.0", layer, layer.dim);
    return;
  }
  fc_ = add<nn::Linear>("fc", kFeatures * layer.dim, layer.dim, false, weight);
  input_norm_ = norm("midlayer.input_layernorm");
  hidden_norm_ = norm("midlayer.hidden_norm");
  layer_ = add<DraftLayer>("midlayer", layer, 2 * layer.dim);
  norm_ = norm("norm");
  lm_head_ = add<nn::Linear>("lm_head", layer.dim, draft_size(), false, weight);
  const NoGrad off;
  const bool tied = base_->config().tie_embeddings;
  Tensor rows(parameter_of(*base_, tied ? base_->embedding_name() : "lm_head.weight")
                  .slice(0, 0, layer.vocab_size));
  if (const Array tokens = draft_tokens(); tokens.defined())
    rows = index_select(rows, 0, Tensor(tokens.to(Device::cpu())));
  if (copy_last) load_state(begun_as_last(*base_, state()));
  norm_->load_state({{"weight", norm_of(*base_, "model.norm.weight")}});
  lm_head_->load_state({{"weight", rows.array().clone()}});
}

int64_t EagleHead::draft_size() const {
  return config_.vocabulary.size(base_->config().vocab_size);
}

Array EagleHead::draft_tokens() const {
  if (config_.vocabulary.whole()) return {};
  return Array::from(config_.vocabulary.ids(), {draft_size()}, base_->device());
}

EagleHead::Trunk EagleHead::trunk(const Tensor& ids, const nn::Sequence& sequence) const {
  if (!own_output()) {
    const Tensor hidden = base_->hidden_states(ids, sequence);
    return {hidden, hidden};
  }
  const nn::CausalLm::States states = base_->states(ids, sequence, config_.layers);
  return {states.hidden, cat(states.streams, -1)};
}

Tensor EagleHead::enter(const Tensor& features) const {
  return own_output() ? fc_->forward(features) : features;
}

std::optional<EagleHead::States> EagleHead::decode(const Tensor& embedding, const Tensor& hidden,
                                                   const nn::Sequence& sequence,
                                                   const nn::RotaryTables& rotary) const {
  if (!sequence.cache || !nn::is_few_rows(embedding) || hidden.dtype() != embedding.dtype())
    return {};
  kernels::FewRows read, residual = nn::few_rows(hidden);
  std::vector<nn::NormedInput> inputs;
  if (own_output()) {
    inputs = {{embedding, input_norm_.get()}, {hidden, hidden_norm_.get()}};
    read = nn::joined_rows(inputs);
  } else {
    const Tensor u = nn::few_rows_of_norms({{embedding, nullptr}, {hidden, nullptr}}, *fc_);
    if (!u.defined()) return {};
    read = residual = nn::few_rows(u);
  }
  if (!layer_->decodes(read, residual, sequence, rotary)) return {};
  if (!inputs.empty()) nn::put_norms(inputs, read);
  const auto [stream, normed] = layer_->decode(read, residual, norm_.get(), sequence, rotary);
  return States{Tensor(normed.view(hidden.shape())), Tensor(stream.view(hidden.shape()))};
}

EagleHead::States EagleHead::forward(const Tensor& embedding, const Tensor& hidden,
                                     const nn::Sequence& sequence) const {
  const nn::RotaryTables rotary = rotary_->at(sequence, embedding.size(1));
  if (std::optional<States> decoded = decode(embedding, hidden, sequence, rotary)) return *decoded;
  if (!own_output()) {
    const Tensor u = fc_->forward(cat({embedding, hidden}, -1));
    const Tensor feature = layer_->forward(u, u, nullptr, sequence, rotary).first;
    return {feature, feature};
  }
  const Tensor read = cat({input_norm_->forward(embedding), hidden_norm_->forward(hidden)}, -1);
  const auto [stream, normed] = layer_->forward(read, hidden, norm_.get(), sequence, rotary);
  return {normed, stream};
}

const Tensor& EagleHead::output_weight() const {
  return own_output() ? lm_head_->weight()->tensor() : base_->head_weight();
}

Tensor EagleHead::logits(const Tensor& output) const {
  return own_output() ? nn::output_logits(output, output_weight()) : base_->logits(output);
}

TensorList EagleHead::unroll(const Trunk& trunk, const Tensor& ids, const Tensor& documents,
                             const nn::Sequence& sequence, int64_t steps) const {
  constexpr int64_t kMostSteps = 17;  // the first, and as many columns as attention takes
  check(steps >= 1 && steps <= kMostSteps, "a training-time test has 1 to ", kMostSteps,
        " steps, got ", steps);
  const RecomputeScope scope(recompute_);
  std::vector<int64_t> shifts;
  for (int64_t s = 1; s <= steps; ++s) shifts.push_back(s);
  const Tensor tokens = shifted_labels(ids, documents, shifts, /*ignore_index=*/0);
  Tensor hidden = enter(trunk.features);
  TensorList outputs, keys, values;
  for (int64_t s = 0; s < steps; ++s) {
    nn::Sequence at = sequence;
    at.mask = {};
    at.documents = {};
    at.start = sequence.start + s;
    if (sequence.positions.defined()) {
      at.start = 0;
      at.positions = sequence.positions + Tensor(Array::full({}, static_cast<double>(s), DType::i32,
                                                             sequence.positions.device()));
    }
    // inputs: the embedding, the hidden states, then keys and values of the steps before.
    const auto step = [this, at, documents](const TensorList& in) -> TensorList {
      const auto middle = in.begin() + 2 + (std::ssize(in) - 2) / 2;
      StepKeys seen({in.begin() + 2, middle}, {middle, in.end()}, documents);
      nn::Sequence pass = at;
      pass.cache = &seen;
      const States made = forward(in[0], in[1], pass);
      return {made.output, made.recurring, seen.newest_keys(), seen.newest_values()};
    };
    TensorList inputs{base_->embed(select(tokens, 0, s)), hidden};
    inputs.insert(inputs.end(), keys.begin(), keys.end());
    inputs.insert(inputs.end(), values.begin(), values.end());
    const TensorList made =
        recompute_ == Recompute::blocks && grad_enabled() ? recompute(step, inputs) : step(inputs);
    outputs.push_back(made[0]);
    hidden = made[1];
    keys.push_back(made[2]);
    values.push_back(made[3]);
  }
  return outputs;
}

}  // namespace binade::heads::eagle
