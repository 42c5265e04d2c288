#include <binade/infer/generate.h>

#include <algorithm>

#include <binade/infer/kv_cache.h>

namespace binade::infer {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

void check_prompts(const nn::CausalLm& model, const Rows& prompts, const GenerateOptions& options) {
  check(!prompts.empty(), "generation needs a prompt");
  check(options.max_new_tokens > 0, "max_new_tokens must be positive, got ",
        options.max_new_tokens);
  const nn::CausalLmConfig& config = model.config();
  for (const std::vector<int32_t>& prompt : prompts) {
    check(!prompt.empty(), "a prompt has no tokens; begin with the BOS token");
    for (const int32_t id : prompt)
      check(id >= 0 && id < config.vocab_size, "the token id ", id,
            " is out of range: the model's vocabulary is ", config.vocab_size);
    // The last token that is generated is never read again.
    const int64_t needed = static_cast<int64_t>(prompt.size()) + options.max_new_tokens - 1;
    check(needed <= config.max_positions, "a prompt of ", prompt.size(), " tokens and ",
          options.max_new_tokens, " new ones do not fit the model's ", config.max_positions,
          " positions; shorten the prompt or lower max_new_tokens");
  }
}

// Rows of prompts, padded at the end: causal attention keeps the padding out of what is before it.
Tensor padded(const Rows& prompts, int64_t longest, Device device) {
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& prompt : prompts) {
    ids.insert(ids.end(), prompt.begin(), prompt.end());
    ids.resize(ids.size() + static_cast<size_t>(longest) - prompt.size(), 0);
  }
  return Tensor::from(ids, {static_cast<int64_t>(prompts.size()), longest}, device);
}

// hidden (B, T, D) → the rows' last tokens (B, D).
Tensor last_tokens(const Tensor& hidden, const std::vector<int64_t>& lengths) {
  std::vector<int64_t> rows;
  for (size_t b = 0; b < lengths.size(); ++b)
    rows.push_back(static_cast<int64_t>(b) * hidden.size(1) + lengths[b] - 1);
  const Tensor index = Tensor::from(rows, {static_cast<int64_t>(rows.size())}, hidden.device());
  return index_select(reshape(hidden, {-1, hidden.size(2)}), 0, index);
}

}  // namespace

GenerateOptions generate_options(const nn::CausalLmConfig& config) {
  GenerateOptions options;
  for (const int64_t id : config.stop_ids()) options.stop_ids.push_back(static_cast<int32_t>(id));
  const nn::GenerationConfig& said = config.generation;
  if (said.do_sample)
    options.sampling = {.temperature = said.temperature, .top_k = said.top_k, .top_p = said.top_p};
  return options;
}

Rows generate(const nn::CausalLm& model, const Rows& prompts, const GenerateOptions& options,
              const TokenCallback& on_token) {
  const NoGrad no_grad;
  options.sampling.validate();
  check(!model.training(), "generation needs the model in evaluation mode: call eval()");
  check_prompts(model, prompts, options);

  const auto batch = static_cast<int64_t>(prompts.size());
  std::vector<int64_t> lengths;
  for (const std::vector<int32_t>& prompt : prompts)
    lengths.push_back(static_cast<int64_t>(prompt.size()));
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());

  KvCache cache(model.config().layers, batch, longest + options.max_new_tokens);
  Tensor hidden = last_tokens(
      model.hidden_states(padded(prompts, longest, model.device()), cache.next(longest)), lengths);
  cache.advance(lengths);

  Rows generated(prompts.size());
  std::vector<bool> done(prompts.size(), false);
  for (int64_t step = 0;; ++step) {
    const bool may_stop = step >= options.min_new_tokens;
    const std::vector<int32_t> chosen =
        sample(model.logits(hidden).array(), options.sampling, static_cast<uint64_t>(step),
               may_stop ? std::vector<int32_t>{} : options.stop_ids);
    for (size_t row = 0; row < chosen.size(); ++row) {
      if (done[row]) continue;
      if (std::count(options.stop_ids.begin(), options.stop_ids.end(), chosen[row]) > 0) {
        done[row] = true;
        continue;
      }
      generated[row].push_back(chosen[row]);
      if (on_token) on_token(static_cast<int64_t>(row), chosen[row]);
    }
    const bool all_done = std::all_of(done.begin(), done.end(), [](bool is) { return is; });
    if (all_done || step + 1 == options.max_new_tokens) return generated;

    // Rows that are done go on with the others; what they get is not used.
    const Tensor ids = Tensor::from(chosen, {batch, 1}, model.device());
    hidden = reshape(model.hidden_states(ids, cache.next(1)), {batch, model.config().dim});
    cache.advance(1);
  }
}

}  // namespace binade::infer
