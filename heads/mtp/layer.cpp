#include <binade/heads/mtp/layer.h>

#include <binade/infer/kv_cache.h>
#include <binade/nn/decode.h>
#include <binade/nn/models/gpt2.h>
#include <binade/nn/models/llama.h>

namespace binade::heads::mtp {

namespace {

class LlamaLayer : public OwnLayer {
 public:
  LlamaLayer(const nn::CausalLmConfig& config, std::shared_ptr<const nn::Rotary> rotary)
      : block_(add<nn::LlamaBlock>("layer", config.of_layer(config.layers - 1), 0,
                                   nn::init::normal(config.initializer_range))),
        norm_(add<nn::RmsNorm>("norm", config.dim, config.norm_eps, config.norm_from_one)),
        rotary_(std::move(rotary)) {}

  std::pair<Tensor, Tensor> forward(const Tensor& x, const nn::Sequence& sequence) const override {
    const nn::RotaryTables rotary = rotary_->at(sequence, x.size(1));
    if (block_->decodes(x, sequence, rotary)) {
      kernels::FewRows stream = nn::few_rows(x);
      block_->decode(stream, sequence, rotary);
      const nn::DecodedStream decoded = nn::decoded_norm(stream, *norm_);
      return {Tensor(decoded.whole.view(x.shape())), Tensor(decoded.normed.view(x.shape()))};
    }
    return block_->forward(x, block_->enter(x), norm_.get(), sequence, rotary);
  }

 private:
  std::shared_ptr<nn::LlamaBlock> block_;
  std::shared_ptr<nn::RmsNorm> norm_;
  std::shared_ptr<const nn::Rotary> rotary_;
};

// Knows no positions but those that the hidden states carry.
class Gpt2Layer : public OwnLayer {
 public:
  explicit Gpt2Layer(const nn::CausalLmConfig& config)
      : block_(add<nn::Gpt2Block>("layer", config, 0, nn::init::normal(config.initializer_range),
                                  nn::init::normal(config.initializer_range))),
        norm_(add<nn::LayerNorm>("norm", config.dim, config.norm_eps)) {}

  std::pair<Tensor, Tensor> forward(const Tensor& x, const nn::Sequence& sequence) const override {
    return block_->forward(x, block_->input_norm()->forward(x), *norm_, sequence);
  }

 private:
  std::shared_ptr<nn::Gpt2Block> block_;
  std::shared_ptr<nn::LayerNorm> norm_;
};

bool is_gpt2(const nn::CausalLmConfig& config) {
  return config.family == nn::Family::gpt2;
}

}  // namespace

std::shared_ptr<nn::Rotary> make_rotary(const nn::CausalLmConfig& config) {
  if (is_gpt2(config)) return nullptr;
  // Drafts may reach beyond the last position, by a tree or by what pads accepted paths.
  return std::make_shared<nn::Rotary>(config.head_size(),
                                      config.max_positions + infer::KvCache::kMostPending,
                                      config.rope_of(config.layers - 1));
}

std::shared_ptr<OwnLayer> make_own_layer(const nn::CausalLmConfig& config,
                                         std::shared_ptr<const nn::Rotary> rotary) {
  if (is_gpt2(config)) return std::make_shared<Gpt2Layer>(config);
  return std::make_shared<LlamaLayer>(config, std::move(rotary));
}

void copy_last_layer(const nn::CausalLm& model, OwnLayer& layer) {
  const nn::CausalLmConfig& config = model.config();
  const bool gpt2 = is_gpt2(config);
  const std::string last =
      concat(gpt2 ? "transformer.h." : "model.layers.", config.layers - 1, '.');
  const std::string norm = gpt2 ? "transformer.ln_f." : "model.norm.";
  std::map<std::string, nn::ParameterPtr> values;
  for (const auto& [name, parameter, order] : model.named_parameters()) {
    if (name.starts_with(last)) values["layer." + name.substr(last.size())] = parameter;
    if (name.starts_with(norm)) values["norm." + name.substr(norm.size())] = parameter;
  }
  nn::StateDict given;
  for (const auto& [name, parameter] : values) given[name] = parameter->form();
  const nn::StateMismatch mismatch = nn::compare_state(layer.form(), given);
  check(mismatch.empty(), "the model's last layer does not fit the module: ", mismatch.describe());
  for (const nn::NamedParameter& named : layer.named_parameters())
    named.parameter->assign(*values.at(named.name));
}

}  // namespace binade::heads::mtp
