// CausalLm: what every decoder-only transformer here can do. Parameters bear the names that Hugging
// Face gives them ("transformer.h.0.attn.c_attn.weight", "model.layers.0.mlp.up_proj.weight").
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <binade/autograd/ops.h>
#include <binade/nn/embedding.h>
#include <binade/nn/linear.h>
#include <binade/nn/models/config.h>
#include <binade/nn/sequence.h>

namespace binade::nn {

struct CausalLmOptions {
  // Rows of the embedding and of the head are rounded up to a multiple of this (64 suits tensor
  // cores). The added rows are zero, stay out of the softmax, and out of files.
  int64_t vocabulary_multiple = 1;
  bool random_weights = true;  // false: weights are left to be read from a file
};

class CausalLm : public Module {
 public:
  const CausalLmConfig& config() const { return config_; }
  Device device() const { return embedding_->weight()->tensor().device(); }

  // ids (B, T), i32 or i64 → the hidden states behind the last norm (B, T, dim). Throws Error for
  // more tokens than the model has positions.
  Tensor hidden_states(const Tensor& ids, const Sequence& sequence = {}) const;
  // The same beside the residual streams (B, T, dim) that enter some of the layers, numbered from
  // 0.
  struct States {
    Tensor hidden;
    TensorList streams;  // in the order of `layers`
  };
  States states(const Tensor& ids, const Sequence& sequence,
                const std::vector<int64_t>& layers) const;
  // The rows of the token embedding, scaled where the family does so: ids (…) → (…, dim), without
  // positions.
  Tensor embed(const Tensor& ids) const;
  // hidden (…, dim) → (…, vocab_size).
  Tensor logits(const Tensor& hidden) const;
  Tensor forward(const Tensor& ids, const Sequence& sequence = {}) const {
    return logits(hidden_states(ids, sequence));
  }
  // Cross-entropy of targets (B, T), i32 or i64, -100 where there is none: the mean over the
  // others, or with `normaliser` (f32 scalar) their sum divided by it. Targets are the next tokens,
  // already shifted.
  Tensor loss(const Tensor& ids, const Tensor& targets, const Tensor& normaliser = {}) const;

  // The weight of the output layer, (vocabulary_rows(), dim): its own, or the embedding's where
  // they are tied. Throws Error where an adapter sits on the layer, as the weight alone is not what
  // logits() computes then.
  const ParameterPtr& head_parameter() const;
  const Tensor& head_weight() const { return head_parameter()->tensor(); }
  // vocab_size, rounded up as CausalLmOptions asked for; the rows behind it are padding.
  int64_t vocabulary_rows() const { return vocabulary_rows_; }

  // What forward passes do not keep for backward, which then recomputes it.
  void set_recompute(Recompute choice) { recompute_ = choice; }

  const std::string& embedding_name() const { return embedding_name_; }  // of its weight
  // The part of a parameter's values (or of its gradient) that files hold, in their orientation: a
  // view of `values`, which has the parameter's shape.
  Array file_view(const std::string& name, const Array& values) const;

 protected:
  CausalLm(const CausalLmConfig& config, const CausalLmOptions& options);
  // Call these where the family's order of names has them.
  void add_embedding(const std::string& name);
  void add_head();  // "lm_head", or the tied embedding

  // Layers that a pass runs. Throws Error for more than there are.
  size_t layers_of(const Sequence& sequence) const;
  // Draws weights with the given standard deviation, or leaves them to be read.
  Initialiser weight_initialiser(double stddev) const;
  Initialiser vocabulary_initialiser() const;
  // `block` maps the residual stream and its norm, {x, n}, to the next {x, n}. It must own what it
  // captures: under Recompute::blocks it runs again in backward.
  TensorList run_block(const std::function<TensorList(const TensorList&)>& block,
                       const TensorList& inputs) const;
  // Is shown the residual stream that enters each layer.
  using Entering = std::function<void(size_t layer, const Tensor& stream)>;

 private:
  virtual Tensor trunk(const Tensor& ids, const Sequence& sequence,
                       const Entering& entering) const = 0;
  // ids as (B, T), with all positions within the model's.
  void check_ids(const Tensor& ids, const Sequence& sequence) const;
  // Whether files hold this weight as (in, out), as GPT-2's Conv1D does.
  virtual bool transposed_in_files(const std::string& name) const;
  Tensor padded_logits(const Tensor& hidden) const;

  CausalLmConfig config_;
  CausalLmOptions options_;
  int64_t vocabulary_rows_;
  std::string embedding_name_;
  std::shared_ptr<Embedding> embedding_;
  std::shared_ptr<Linear> head_;  // null when tied
  Recompute recompute_ = Recompute::nothing;
};

// The model of config.family, on the CPU, with random weights.
std::shared_ptr<CausalLm> make_causal_lm(const CausalLmConfig& config,
                                         const CausalLmOptions& options = {});

}  // namespace binade::nn
