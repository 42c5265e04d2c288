// GRU (Cho et al. 2014) and LSTM (Hochreiter & Schmidhuber 1997): recurrent layers over sequences.
// Parameters have PyTorch's names and layout (weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0,
// …_l1, …), so that weights carry over.
//
//   nn::Gru gru(64, 128, {.layers = 2, .dropout = 0.1});
//   const auto [outputs, state] = gru.forward(x);  // x (B, T, 64) → (B, T, 128), (2, B, 128)
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <binade/autograd/tensor.h>
#include <binade/nn/module.h>

namespace binade::nn {

struct RecurrentOptions {
  int64_t layers = 1;
  bool bias = true;
  double dropout = 0;  // between layers, while training
};

// What both have: a stack of layers, whose weights are drawn as PyTorch does, from U(−1/√H, 1/√H).
class RecurrentStack : public Module {
 public:
  int64_t input_size() const { return layers_.front().input_weight->shape()[1]; }
  int64_t hidden_size() const { return layers_.front().state_weight->shape()[1]; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }

 protected:
  struct Layer {
    ParameterPtr input_weight, state_weight;  // (G·H, I or H), (G·H, H)
    ParameterPtr input_bias, state_bias;      // (G·H) or null

    // The input's part of all steps' gates at once: x (B, T, I) → (B, T, G·H).
    Tensor project(const Tensor& x) const;
    Tensor bias_of_state() const { return state_bias ? state_bias->tensor() : Tensor(); }
  };

  // `gates` G: 3 or 4. `name` is said in errors.
  RecurrentStack(const char* name, int64_t gates, int64_t input, int64_t hidden,
                 const RecurrentOptions& options);
  // Throws Error unless x is (B, T, I) and `state` (L, B, H) or undefined.
  void check_inputs(const char* what, const Tensor& x, const Tensor& state) const;
  // Layer `index` of a state (L, B, H); zeros where it is undefined.
  Tensor state_of(const Tensor& state, int64_t index, const Tensor& x) const;
  // What layer `index` reads of the outputs below it.
  Tensor dropped(const Tensor& x, int64_t index) const;
  const Layer& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }

 private:
  const char* name_;
  double dropout_;
  std::vector<Layer> layers_;
};

class Gru : public RecurrentStack {
 public:
  Gru(int64_t input, int64_t hidden, const RecurrentOptions& options = {})
      : RecurrentStack("Gru", 3, input, hidden, options) {}

  // x (B, T, I) and the states (L, B, H) in front of it, zeros where undefined → the last layer's
  // states (B, T, H), and every layer's behind the last step (L, B, H).
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& state = {}) const;
};

struct LstmState {
  Tensor hidden, cell;  // (L, B, H) each; cells are f32 under half presets
};

class Lstm : public RecurrentStack {
 public:
  Lstm(int64_t input, int64_t hidden, const RecurrentOptions& options = {})
      : RecurrentStack("Lstm", 4, input, hidden, options) {}

  // As Gru's; of `state` either may be undefined.
  std::pair<Tensor, LstmState> forward(const Tensor& x, const LstmState& state = {}) const;
};

}  // namespace binade::nn
