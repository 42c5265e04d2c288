#include <binade/infer/generate.h>

#include <algorithm>
#include <numeric>

#include <binade/core/transfer.h>
#include <binade/infer/decoder.h>

namespace binade::infer {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

// Throws Error unless they fit; the longest prompt's length.
int64_t check_prompts(const nn::CausalLm& model, const Rows& prompts,
                      const GenerateOptions& options) {
  check(!prompts.empty(), "generation needs a prompt");
  check(options.max_new_tokens > 0, "max_new_tokens must be positive, got ",
        options.max_new_tokens);
  check(options.steps_ahead >= 0, "steps_ahead must be 0 or more, got ", options.steps_ahead);
  const int64_t positions = model.config().max_positions;
  int64_t longest = 0;
  for (const std::vector<int32_t>& prompt : prompts) {
    // The last token that is generated is never read again.
    const auto length = static_cast<int64_t>(prompt.size());
    check(options.max_new_tokens <= positions && length + options.max_new_tokens - 1 <= positions,
          "a prompt of ", length, " tokens and ", options.max_new_tokens,
          " new ones do not fit the model's ", positions,
          " positions; shorten the prompt or lower max_new_tokens");
    longest = std::max(longest, length);
  }
  return longest;
}

// The texts as the host has read them.
class Texts {
 public:
  Texts(size_t rows, const std::vector<int32_t>& stop_ids, const TokenCallback& on_token)
      : rows_(rows), done_(rows, false), stop_ids_(stop_ids), on_token_(on_token) {}

  // One step of all rows.
  void add(const Array& packed) {
    const std::vector<SlotStates::Seen> seen = SlotStates::read(packed);
    for (size_t row = 0; row < seen.size(); ++row) {
      if (done_[row]) continue;
      const int32_t token = seen[row].token;
      done_[row] = !seen[row].running;
      if (std::count(stop_ids_.begin(), stop_ids_.end(), token) > 0) continue;
      rows_[row].push_back(token);
      if (on_token_) on_token_(static_cast<int64_t>(row), token);
    }
  }
  bool all_done() const {
    return std::all_of(done_.begin(), done_.end(), [](bool is) { return is; });
  }
  Rows take() { return std::move(rows_); }

 private:
  Rows rows_;
  std::vector<bool> done_;
  const std::vector<int32_t>& stop_ids_;
  const TokenCallback& on_token_;
};

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
  const int64_t longest = check_prompts(model, prompts, options);
  DecoderOptions decoding;
  decoding.slots = static_cast<int64_t>(prompts.size());
  decoding.capacity = longest + options.max_new_tokens - 1;
  decoding.choice = {options.sampling, options.stop_ids, options.stop_ids, options.min_new_tokens};
  Decoder decoder(model, decoding);

  std::vector<int32_t> slots(prompts.size());
  std::iota(slots.begin(), slots.end(), 0);
  const SlotStates::Start start{.limit = static_cast<int32_t>(options.max_new_tokens)};
  decoder.begin(slots, prompts, std::vector<SlotStates::Start>(slots.size(), start));

  Texts texts(prompts.size(), options.stop_ids, on_token);
  Downloader downloads;  // steps whose tokens are under way
  for (int64_t step = 1;; ++step) {
    downloads.download(decoder.choices().packed());
    const bool last = step == options.max_new_tokens;
    const auto ahead = static_cast<size_t>(last ? 0 : options.steps_ahead);
    for (const Array& packed : downloads.take_but(ahead)) texts.add(packed);
    if (last || texts.all_done()) break;
    decoder.step();
  }
  downloads.take(/*wait=*/true);  // page-locked memory must outlive the copies into it
  return texts.take();
}

}  // namespace binade::infer
