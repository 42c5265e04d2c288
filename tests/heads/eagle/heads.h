// EAGLE heads to test with.
#pragma once

#include <memory>

#include <binade/heads/eagle/eagle.h>

#include "nn/tiny_models.h"

namespace binade::test {

inline std::shared_ptr<nn::CausalLm> eagle_base(int64_t multiple = 1) {
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.layers = 3;
  config.max_positions = 96;  // the largest tree is one pass
  auto model = small_model(config, {.vocabulary_multiple = multiple});
  model->set_trainable(false);
  return model;
}

// Every third token, and those that end a text.
inline heads::decoding::DraftVocabulary some_tokens(const nn::CausalLmConfig& base) {
  std::vector<int32_t> ids;
  for (int64_t id = 0; id < base.vocab_size; ++id)
    if (id % 3 == 0 ||
        std::find(base.stop_ids().begin(), base.stop_ids().end(), id) != base.stop_ids().end())
      ids.push_back(static_cast<int32_t>(id));
  return {std::move(ids), base.vocab_size};
}

// A head in which every weight matters, in evaluation mode.
inline std::shared_ptr<heads::eagle::EagleHead> eagle_head(
    const std::shared_ptr<nn::CausalLm>& base, heads::eagle::EagleConfig config) {
  auto head = std::make_shared<heads::eagle::EagleHead>(base, std::move(config));
  for (const nn::NamedParameter& named : head->named_parameters()) {
    const Tensor noise(nn::init::normal(0.06)(named.parameter->shape(), Device::cpu()));
    named.parameter->assign((Tensor(named.parameter->master()) + noise).array());
  }
  head->eval();
  return head;
}

inline std::vector<heads::eagle::EagleConfig> eagle_configs(const nn::CausalLmConfig& base) {
  return {heads::eagle::EagleConfig::eagle1(), heads::eagle::EagleConfig::eagle3(base),
          heads::eagle::EagleConfig::eagle3(base, some_tokens(base))};
}

}  // namespace binade::test
