// Perplexity of a model on a text.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include <binade/nn/models/causal_lm.h>

namespace binade::infer {

struct PerplexityOptions {
  int64_t window = 0;  // tokens a forward pass sees; 0: the model's positions
  int64_t stride = 0;  // tokens a window moves on; 0: the window, so that no token is seen twice
  int64_t batch = 8;   // windows a forward pass
};

struct Perplexity {
  int64_t tokens = 0;    // predicted ones: all but the first
  double loss = 0;       // mean negative log-likelihood a token, nats
  double value() const;  // exp(loss)
};

// Every token but the first is predicted once, with at least window − stride tokens before it where
// there are as many. Throws Error for fewer than two tokens, ids beyond the vocabulary, a window
// beyond the model's positions, or a stride beyond the window. `on_progress` gets the tokens done.
Perplexity perplexity(const nn::CausalLm& model, std::span<const int32_t> tokens,
                      const PerplexityOptions& options = {},
                      const std::function<void(int64_t done)>& on_progress = {});

}  // namespace binade::infer
