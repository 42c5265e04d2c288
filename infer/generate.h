// Text generation: a batched pass over the prompts, then a token a row and step.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <binade/infer/sampling.h>
#include <binade/nn/models/causal_lm.h>

namespace binade::infer {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  int64_t min_new_tokens = 0;     // stop ids are not chosen before
  std::vector<int32_t> stop_ids;  // end a row; not part of its result
  SamplingOptions sampling;
  // On a GPU: steps that are queued before the tokens of the first of them are read. The texts do
  // not depend on it; with too few the GPU waits for the host.
  int64_t steps_ahead = 4;
};

// What the model's generation_config.json (or else config.json) says: its stop ids, and its
// sampling if it asks for any. Otherwise the most probable token is taken.
GenerateOptions generate_options(const nn::CausalLmConfig& config);

// Called for every new token (stop ids excepted), in order, as soon as the host has read it.
using TokenCallback = std::function<void(int64_t row, int32_t token)>;

// The new tokens of every prompt. Prompts may differ in length; a row's tokens are the same
// whatever else is in the batch, but for rounding. Throws Error for an empty prompt, for ids beyond
// the vocabulary, and when the longest prompt and max_new_tokens do not fit the model's positions:
// nothing is cut off silently.
std::vector<std::vector<int32_t>> generate(const nn::CausalLm& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options = {},
                                           const TokenCallback& on_token = {});

}  // namespace binade::infer
