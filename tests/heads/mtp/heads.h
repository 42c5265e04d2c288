// Multi-token prediction to test with.
#pragma once

#include <memory>
#include <random>

#include <binade/heads/mtp/mtp.h>

#include "nn/tiny_models.h"

namespace binade::test {

inline std::shared_ptr<nn::CausalLm> mtp_base(nn::Family family = nn::Family::llama,
                                              int64_t multiple = 1) {
  auto model = small_model(small_config(family), {.vocabulary_multiple = multiple});
  model->set_trainable(false);
  return model;
}

// Heads in which every weight matters and no two are alike, in evaluation mode.
inline std::shared_ptr<heads::mtp::MtpHeads> mtp_heads(const std::shared_ptr<nn::CausalLm>& base,
                                                       const heads::mtp::MtpConfig& config) {
  auto heads = std::make_shared<heads::mtp::MtpHeads>(base, config);
  for (const nn::NamedParameter& named : heads->named_parameters()) {
    const Tensor noise(nn::init::normal(0.1)(named.parameter->shape(), Device::cpu()));
    named.parameter->assign((Tensor(named.parameter->master()) + noise).array());
  }
  heads->eval();
  return heads;
}

inline const std::vector<heads::mtp::MtpConfig> kMtpConfigs = {
    {.kind = heads::mtp::Kind::parallel, .depth = 3},
    {.kind = heads::mtp::Kind::sequential, .depth = 2},
    {.kind = heads::mtp::Kind::sequential,
     .depth = 3,
     .conventions = {.recurs_behind_norm = false, .zero_first_embedding = true}},
    {.kind = heads::mtp::Kind::recursive,
     .depth = 3,
     .conventions = {.embedding_first = false, .zero_first_embedding = true}},
    {.kind = heads::mtp::Kind::recursive, .depth = 2, .conventions = {.recurs_behind_norm = false}},
};

}  // namespace binade::test
