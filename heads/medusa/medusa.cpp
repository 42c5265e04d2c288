#include <binade/heads/medusa/medusa.h>

#include <binade/core/text.h>
#include <binade/nn/decode.h>

namespace binade::heads::medusa {

MedusaHeads::Block::Block(int64_t dim)
    : linear_(add<nn::Linear>("linear", dim, dim, true, nn::init::zeros())) {}

MedusaHeads::Head::Head(const nn::CausalLm& base, const MedusaConfig& config) {
  for (int64_t j = 0; j < config.layers; ++j)
    blocks_.push_back(add<Block>(std::to_string(j), base.config().dim));
  if (!config.own_output) return;
  const nn::Parameter& weight = *base.head_parameter();
  output_ = add<nn::Linear>(std::to_string(config.layers), weight.shape()[1], weight.shape()[0],
                            false, nn::init::empty());
  // As the model computes with it.
  if (weight.has_master())
    output_->weight()->assign(weight.tensor().array());
  else
    output_->weight()->assign(weight);
}

MedusaHeads::MedusaHeads(std::shared_ptr<const nn::CausalLm> base, const MedusaConfig& config)
    : base_(std::move(base)), config_(config) {
  check(base_ != nullptr, "Medusa heads need a language model");
  check(config.heads > 0 && config.layers >= 0, "Medusa needs heads and no negative number of ",
        "layers, got ", config.heads, " heads of ", config.layers, " layers");
  check(config.layers > 0 || config.own_output,
        "Medusa heads without layers and without an output layer of their own have nothing to ",
        "train");
  for (int64_t k = 0; k < config.heads; ++k)
    heads_.push_back(add<Head>(std::to_string(k), *base_, config));
}

const MedusaHeads::Head& MedusaHeads::head(int64_t k) const {
  check(k >= 0 && k < config_.heads, "there is no Medusa head ", k, ": there are ", config_.heads,
        ", numbered from 0");
  return *heads_[static_cast<size_t>(k)];
}

Tensor MedusaHeads::output_weight(int64_t k) const {
  const std::shared_ptr<nn::Linear>& output = head(k).output();
  return output ? output->weight()->tensor() : base_->head_weight();
}

Tensor MedusaHeads::hidden(int64_t k, const Tensor& hidden) const {
  Tensor h = hidden;
  for (const auto& block : head(k).blocks()) h = h + silu(block->linear()->forward(h));
  return h;
}

Tensor MedusaHeads::logits(int64_t k, const Tensor& hidden) const {
  return output(k, this->hidden(k, hidden));
}

Tensor MedusaHeads::output(int64_t k, const Tensor& hidden) const {
  return slice(nn::output_logits(hidden, output_weight(k)), -1, 0, base_->config().vocab_size);
}

std::vector<DecodingHead> MedusaHeads::loss_heads(const std::vector<double>& coefficients) const {
  check(static_cast<int64_t>(coefficients.size()) == config_.heads, "there are ", config_.heads,
        " Medusa heads, but ", coefficients.size(), " coefficients");
  std::vector<DecodingHead> heads;
  for (int64_t k = 0; k < config_.heads; ++k) {
    DecodingHead loss_head;
    for (const auto& block : head(k).blocks())
      loss_head.blocks.push_back(
          {block->linear()->weight()->tensor(), block->linear()->bias()->tensor()});
    loss_head.weight = output_weight(k);
    loss_head.coefficient = coefficients[static_cast<size_t>(k)];
    heads.push_back(std::move(loss_head));
  }
  return heads;
}

}  // namespace binade::heads::medusa
