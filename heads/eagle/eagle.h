// EAGLE: one decoder layer that drafts from what a language model computed of the text. It reads
// the model's features of a token beside the embedding of the next one, and from then on its own
// output in place of features it does not have yet.
//
//   auto head = std::make_shared<EagleHead>(model, EagleConfig::eagle3(model->config()));
//   EagleHead::Trunk trunk = head->trunk(ids, sequence);
//   TensorList outputs = head->unroll(trunk, ids, documents, sequence, 7);   // training
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <binade/autograd/recompute.h>
#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/nn/mlp.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/nn/norm.h>
#include <binade/nn/rotary.h>

namespace binade::heads::eagle {

enum class Version : uint8_t {
  // Predicts the model's next feature (its hidden state behind the last norm), from which the
  // model's output layer makes tokens (Li et al. 2024, arXiv 2401.15077).
  eagle1,
  // Predicts tokens from streams inside the model, with an output layer of its own over a draft
  // vocabulary, and is trained on its own output (Li et al. 2025, arXiv 2503.01840).
  eagle3,
};
std::string_view name_of(Version version);     // "eagle1"
Version parse_version(std::string_view name);  // Error for another name

struct EagleConfig {
  Version version = Version::eagle3;
  // EAGLE-3: the layers of the model whose entering residual streams are its features, ascending.
  std::vector<int64_t> layers;
  // EAGLE-3: the tokens of its output layer. Those that end a text must be among them.
  decoding::DraftVocabulary vocabulary;

  static EagleConfig eagle1() {
    return {.version = Version::eagle1, .layers = {}, .vocabulary = {}};
  }
  static EagleConfig eagle3(const nn::CausalLmConfig& base,
                            decoding::DraftVocabulary vocabulary = {});
};
// {2, N/2, N − 3} of N layers, as public EAGLE-3 heads have them; of fewer than 7 layers, where
// these would not be three, {0, N/2, N − 1}. Throws Error for fewer than 3.
std::vector<int64_t> default_layers(int64_t layers);

// The layer: attention over `read` of 1 or 2 times the model's width, then a gated MLP. Parameters
// bear the names of Hugging Face's Llama, without input_layernorm.
class DraftLayer : public nn::Module {
 public:
  // `config` is that of the layer, see draft_config().
  DraftLayer(const nn::CausalLmConfig& config, int64_t read_dim);
  // read (B, T, read_dim), residual (B, T, dim) → {the stream behind the layer, norm of it}; norm
  // null: the stream twice.
  std::pair<Tensor, Tensor> forward(const Tensor& read, const Tensor& residual,
                                    const nn::RmsNorm* norm, const nn::Sequence& sequence,
                                    const nn::RotaryTables& rotary) const;
  // The same for the few rows of a draft (nn/decode.h), where decodes() says so: rows (M, …).
  bool decodes(const kernels::FewRows& read, const kernels::FewRows& residual,
               const nn::Sequence& sequence, const nn::RotaryTables& rotary) const;
  std::pair<Array, Array> decode(const kernels::FewRows& read, const kernels::FewRows& residual,
                                 const nn::RmsNorm* norm, const nn::Sequence& sequence,
                                 const nn::RotaryTables& rotary) const;

 private:
  std::shared_ptr<nn::SelfAttention> self_attn_;
  std::shared_ptr<nn::RmsNorm> post_attention_layernorm_;
  std::shared_ptr<nn::GatedMlp> mlp_;
};

// A Llama of one layer with the model's sizes and the rotary positions of its last layer: what
// engines build a draft layer from, whatever the family of the model. Throws Error for models that
// have no rotary positions or scale their embedding, which such a layer cannot follow.
nn::CausalLmConfig draft_config(const nn::CausalLmConfig& base);

// Parameters are named as files name them:
//   EAGLE-1  fc.weight (dim, 2·dim), layers.0.{self_attn,mlp}.*, layers.0.post_attention_layernorm
//   EAGLE-3  fc.weight (dim, 3·dim), midlayer.{self_attn,mlp}.*, midlayer.{input_layernorm,
//            hidden_norm,post_attention_layernorm}, norm, lm_head.weight (N, dim)
class EagleHead : public nn::Module {
 public:
  // The language model is kept; it is no child, so that it is neither trained nor saved with the
  // head. Weights are drawn on the CPU in f32; EAGLE-3's norm and output layer begin as the model's
  // last norm and the draft vocabulary's rows of its output layer, and with `copy_last` its layer
  // as the model's last one where that is Llama's. Throws Error for layers that are not three or
  // not in the model, and for a draft vocabulary without a token that ends a text.
  EagleHead(std::shared_ptr<const nn::CausalLm> base, EagleConfig config, bool copy_last = true);

  const EagleConfig& config() const { return config_; }
  const nn::CausalLm& base() const { return *base_; }
  bool own_output() const { return config_.version == Version::eagle3; }
  int64_t draft_size() const;  // N: rows of the output layer that are tokens
  // N i32 on the head's device: the token of each row; undefined: they are their own.
  Array draft_tokens() const;
  // What unroll() does not keep for backward; blocks: of a step, all but its input and its keys.
  void set_recompute(Recompute choice) { recompute_ = choice; }

  // What the head reads of the model.
  struct Trunk {
    Tensor hidden;    // (B, T, dim), behind its last norm
    Tensor features;  // EAGLE-1: the same; EAGLE-3: (B, T, 3·dim)
  };
  Trunk trunk(const Tensor& ids, const nn::Sequence& sequence) const;
  // Features as the layer reads them, in place of its own output: (B, T, dim).
  Tensor enter(const Tensor& features) const;

  struct States {
    Tensor output;     // what the output layer reads
    Tensor recurring;  // what stands in for the features of the next token
  };
  // embedding (B, T, dim): of the token behind each position; hidden (B, T, dim): enter(), or
  // `recurring`. Row i of the output is for the token after that: i + 2.
  States forward(const Tensor& embedding, const Tensor& hidden, const nn::Sequence& sequence) const;
  // output (…, dim) → (…, N).
  Tensor logits(const Tensor& output) const;
  const Tensor& output_weight() const;  // (N or more, dim)

  // Training-time test: the outputs of `steps` drafting steps at all positions at once, (B, T, dim)
  // each; step s at position i is for token i + s + 2 (s from 0). ids (B, T), documents (B, T) i32
  // or undefined, one a row. A step reads the output of the step before in place of features; its
  // query i sees what drafting from token i would see: the keys of step 0 up to i, and those of the
  // later steps at i. Its position is i + s. Rows whose token lies behind the end of a text mean
  // nothing.
  TensorList unroll(const Trunk& trunk, const Tensor& ids, const Tensor& documents,
                    const nn::Sequence& sequence, int64_t steps) const;

 private:
  // By the kernels for few rows; nothing where they do not take it.
  std::optional<States> decode(const Tensor& embedding, const Tensor& hidden,
                               const nn::Sequence& sequence, const nn::RotaryTables& rotary) const;

  std::shared_ptr<const nn::CausalLm> base_;
  EagleConfig config_;
  std::shared_ptr<nn::Rotary> rotary_;
  std::shared_ptr<nn::Linear> fc_;
  std::shared_ptr<nn::RmsNorm> input_norm_, hidden_norm_, norm_;  // EAGLE-3
  std::shared_ptr<DraftLayer> layer_;
  std::shared_ptr<nn::Linear> lm_head_;  // EAGLE-3
  Recompute recompute_ = Recompute::nothing;
};

}  // namespace binade::heads::eagle
