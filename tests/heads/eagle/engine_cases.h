// The heads that are held against serving engines: a model of 8 layers, heads wider than its width
// and a rotary base of its own, and what EAGLE heads of it there are.
#pragma once

#include <string>
#include <vector>

#include "heads/eagle/heads.h"

namespace binade::test {

inline std::shared_ptr<nn::CausalLm> engine_base() {
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.layers = 8;
  config.head_dim = 16;
  config.rope.theta = 700;
  config.tie_embeddings = false;
  auto model = small_model(config);
  model->set_trainable(false);
  return model;
}

struct EngineCase {
  std::string name;  // begins with the version
  heads::eagle::EagleConfig config;
  bool sglang = true;  // that it reads it, too
};
inline std::vector<EngineCase> engine_cases(const nn::CausalLmConfig& base) {
  using heads::eagle::EagleConfig;
  EagleConfig other = EagleConfig::eagle3(base, some_tokens(base)), first = other;
  other.layers = {1, 3, 7};
  first.layers = {0, 4, 6};
  return {{.name = "eagle1", .config = EagleConfig::eagle1()},
          {.name = "eagle3", .config = EagleConfig::eagle3(base, some_tokens(base))},
          {.name = "eagle3_all_tokens", .config = EagleConfig::eagle3(base)},
          {.name = "eagle3_other_layers", .config = other},
          {.name = "eagle3_embedding", .config = first, .sglang = false}};
}

}  // namespace binade::test
