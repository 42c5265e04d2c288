#include <binade/heads/mtp/mtp.h>

#include <algorithm>
#include <array>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/text.h>
#include <binade/nn/decode.h>

namespace binade::heads::mtp {

namespace {

constexpr std::array<std::string_view, 3> kKinds = {"parallel", "sequential", "recursive"};
constexpr int64_t kDeepest = 63;

// The embedding where the position is not 0, otherwise zeros.
Tensor without_first(const Tensor& embedding, const nn::Sequence& sequence) {
  if (!sequence.positions.defined()) {
    if (sequence.start != 0) return embedding;
    const Tensor first = slice(embedding, 1, 0, 1);
    const Tensor zeros(Array::zeros(first.shape(), first.dtype(), first.device()));
    return embedding.size(1) == 1 ? zeros : cat({zeros, slice(embedding, 1, 1)}, 1);
  }
  const Tensor zero(Array::zeros({}, DType::i32, embedding.device()));
  return masked_fill(embedding, unsqueeze(equal(sequence.positions, zero), -1), 0);
}

}  // namespace

std::string_view name_of(Kind kind) {
  return kKinds[static_cast<size_t>(kind)];
}

Kind parse_kind(std::string_view name) {
  for (const Kind kind : {Kind::parallel, Kind::sequential, Kind::recursive})
    if (name == name_of(kind)) return kind;
  fail("there is no kind '", name,
       "' of multi-token prediction; there are parallel, sequential and recursive");
}

MtpModule::MtpModule(const nn::CausalLmConfig& config, const Conventions& conventions,
                     std::shared_ptr<const nn::Rotary> rotary)
    : conventions_(conventions),
      embedding_norm_(add<nn::RmsNorm>("embedding_norm", config.dim, config.norm_eps)),
      hidden_norm_(add<nn::RmsNorm>("hidden_norm", config.dim, config.norm_eps)),
      projection_(add<nn::Linear>("projection", 2 * config.dim, config.dim, false,
                                  nn::init::normal(config.initializer_range))),
      layer_(make_own_layer(config, std::move(rotary))) {
  add_child("", layer_);
}

MtpModule::States MtpModule::forward(const Tensor& embedding, const Tensor& hidden,
                                     const nn::Sequence& sequence) const {
  nn::NormedInput first{
      conventions_.zero_first_embedding ? without_first(embedding, sequence) : embedding,
      embedding_norm_.get()};
  nn::NormedInput second{hidden, hidden_norm_.get()};
  if (!conventions_.embedding_first) std::swap(first, second);
  Tensor u = sequence.cache ? nn::few_rows_of_norms({first, second}, *projection_) : Tensor();
  if (!u.defined())
    u = projection_->forward(
        cat({first.norm->forward(first.x), second.norm->forward(second.x)}, -1));
  const auto [stream, normed] = layer_->forward(u, sequence);
  return {normed, conventions_.recurs_behind_norm ? normed : stream};
}

MtpHeads::MtpHeads(std::shared_ptr<const nn::CausalLm> base, const MtpConfig& config,
                   bool copy_last)
    : base_(std::move(base)), config_(config) {
  check(base_ != nullptr, "multi-token prediction needs a language model");
  check(config.depth >= 1 && config.depth <= kDeepest, "multi-token prediction reaches 1 to ",
        kDeepest, " tokens beyond the next, not ", config.depth);
  rotary_ = make_rotary(base_->config());
  if (rotary_) add_child("rotary", rotary_);
  const int64_t parts = config.kind == Kind::recursive ? 1 : config.depth;
  for (int64_t k = 0; k < parts; ++k) {
    if (config.kind == Kind::parallel) {
      heads_.push_back(make_own_layer(base_->config(), rotary_));
      add_child(std::to_string(k), heads_.back());
    } else {
      modules_.push_back(
          add<MtpModule>(std::to_string(k), base_->config(), config.conventions, rotary_));
    }
    if (copy_last)
      copy_last_layer(*base_, heads_.empty() ? modules_.back()->layer() : *heads_.back());
  }
}

MtpHeads::Trunk MtpHeads::trunk(const Tensor& ids, const nn::Sequence& sequence) const {
  if (config_.kind != Kind::parallel) return {base_->hidden_states(ids, sequence), {}};
  const nn::CausalLm::States states = base_->states(ids, sequence, {base_->config().layers - 1});
  return {states.hidden, states.streams[0]};
}

TensorList MtpHeads::outputs(const Trunk& trunk, const Tensor& ids, const Tensor& documents,
                             const nn::Sequence& sequence) const {
  const RecomputeScope scope(recompute_);
  TensorList outputs;
  if (config_.kind == Kind::parallel) {
    for (const std::shared_ptr<OwnLayer>& layer : heads_)
      outputs.push_back(run([layer, sequence](const TensorList& in)
                                -> TensorList { return {layer->forward(in[0], sequence).second}; },
                            {trunk.stream})[0]);
    return outputs;
  }
  std::vector<int64_t> shifts;
  for (int64_t k = 1; k <= config_.depth; ++k) shifts.push_back(k);
  const Tensor tokens = shifted_labels(ids, documents, shifts, /*ignore_index=*/0);
  Tensor hidden = trunk.hidden;
  for (int64_t k = 0; k < config_.depth; ++k) {
    const TensorList states = run(
        [module = module_at(k), sequence](const TensorList& in) -> TensorList {
          const MtpModule::States made = module->forward(in[0], in[1], sequence);
          return {made.output, made.recurring};
        },
        {base_->embed(select(tokens, 0, k)), hidden});
    outputs.push_back(states[0]);
    hidden = states[1];
  }
  return outputs;
}

TensorList MtpHeads::run(const std::function<TensorList(const TensorList&)>& part,
                         const TensorList& inputs) const {
  return recompute_ == Recompute::blocks && grad_enabled() ? recompute(part, inputs) : part(inputs);
}

std::vector<DecodingHead> MtpHeads::loss_heads(const TensorList& outputs,
                                               const std::vector<double>& coefficients) const {
  check(static_cast<int64_t>(coefficients.size()) == config_.depth &&
            outputs.size() == coefficients.size(),
        "multi-token prediction of ", config_.depth, " tokens got ", outputs.size(), " states and ",
        coefficients.size(), " coefficients");
  std::vector<DecodingHead> heads;
  for (size_t k = 0; k < outputs.size(); ++k)
    heads.push_back({.hidden = outputs[k],
                     .blocks = {},
                     .weight = base_->head_weight(),
                     .coefficient = coefficients[k]});
  return heads;
}

const std::shared_ptr<MtpModule>& MtpHeads::module_at(int64_t k) const {
  check(k >= 0 && k < config_.depth && !modules_.empty(), "there is no module of depth ", k + 1,
        " among ", modules_.empty() ? 0 : config_.depth);
  return modules_[std::min(static_cast<size_t>(k), modules_.size() - 1)];
}

const MtpModule& MtpHeads::module(int64_t k) const {
  return *module_at(k);
}

Tensor MtpHeads::parallel_output(int64_t k, const Tensor& stream,
                                 const nn::Sequence& sequence) const {
  check(k >= 0 && k < static_cast<int64_t>(heads_.size()), "there is no parallel head ", k,
        " among ", heads_.size(), ", numbered from 0");
  return heads_[static_cast<size_t>(k)]->forward(stream, sequence).second;
}

}  // namespace binade::heads::mtp
