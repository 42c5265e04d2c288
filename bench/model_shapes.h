// The shapes of public models, from their config.json: what benchmarks fill with random weights.
#pragma once

#include <binade/nn/models/causal_lm.h>

namespace binade {

inline nn::CausalLmConfig llama_31_8b() {
  nn::CausalLmConfig config = nn::CausalLmConfig::of(nn::Family::llama);
  config.vocab_size = 128256;
  config.dim = 4096;
  config.layers = 32;
  config.heads = 32;
  config.kv_heads = 8;
  config.hidden = 14336;
  config.max_positions = 131072;
  config.norm_eps = 1e-5;
  config.rope.theta = 500000;
  config.tie_embeddings = false;
  return config;
}

// With room for longer rows than the model itself has.
inline nn::CausalLmConfig smollm2_135m() {
  nn::CausalLmConfig config = nn::CausalLmConfig::of(nn::Family::llama);
  config.vocab_size = 49152;
  config.dim = 576;
  config.layers = 30;
  config.heads = 9;
  config.kv_heads = 3;
  config.hidden = 1536;
  config.max_positions = 131072;
  config.norm_eps = 1e-5;
  config.rope.theta = 100000;
  config.tie_embeddings = true;
  return config;
}

}  // namespace binade
