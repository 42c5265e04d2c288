// The model that is held against BAGEL's public code.
#pragma once

#include <binade/nn/mot/model.h>

namespace binade::test {

// Of the sizes in public_names.json: tiny in its widths alone. Patches, channels and position
// tables are BAGEL-7B-MoT's.
inline nn::MotConfig public_config(nn::ExpertChoice experts) {
  nn::MotConfig config;
  config.block = {.dim = 32, .heads = 4, .kv_heads = 2, .hidden = 48, .experts = experts};
  config.layers = 2;
  config.vocab_size = 97;
  config.max_positions = 512;
  config.rope_theta = 1e6;
  config.vit = {.dim = 16, .layers = 2, .heads = 2, .hidden = 40};
  config.pixels = {.channels = 3, .patch = 14, .side = 70};
  config.latents = {.channels = 16, .patch = 2, .side = 64};
  return config;
}

}  // namespace binade::test
