// A transformer layer of a language model's family that stands by itself, with a norm behind it.
#pragma once

#include <memory>
#include <utility>

#include <binade/nn/models/causal_lm.h>
#include <binade/nn/norm.h>
#include <binade/nn/rotary.h>

namespace binade::heads::mtp {

// Parameters are named "layer.…", as the family names those of its layers, and "norm.…". Its number
// in a key-value cache is 0: each layer has a cache of its own.
class OwnLayer : public nn::Module {
 public:
  // x (B, T, dim), a residual stream → {the stream behind the layer, its norm}.
  virtual std::pair<Tensor, Tensor> forward(const Tensor& x,
                                            const nn::Sequence& sequence) const = 0;
};

// Tables of rotary positions that layers share, those of the model's last layer; null for a family
// without them.
std::shared_ptr<nn::Rotary> make_rotary(const nn::CausalLmConfig& config);

// A layer as the model's last is (its window, its positions), with weights drawn as the model's
// are.
std::shared_ptr<OwnLayer> make_own_layer(const nn::CausalLmConfig& config,
                                         std::shared_ptr<const nn::Rotary> rotary);

// Gives the layer the values of the model's last layer, and the norm those of its last norm: it
// then continues what enters that layer as the model does.
void copy_last_layer(const nn::CausalLm& model, OwnLayer& layer);

}  // namespace binade::heads::mtp
