#include <binade/infer/perplexity.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace binade::infer {
namespace {

constexpr int32_t kIgnored = -100;

// Windows of equal length: `ids` and `targets` are (windows, window), row-major.
struct Batch {
  std::vector<int32_t> ids, targets;
  int64_t windows = 0, predicted = 0;
};

// A window reads `length` tokens from `begin` and predicts those from `first_target` on, an index
// into the text.
void add_window(Batch& batch, std::span<const int32_t> tokens, int64_t begin, int64_t length,
                int64_t first_target) {
  for (int64_t i = begin; i < begin + length; ++i) {
    const bool counts = i + 1 >= first_target;
    batch.ids.push_back(tokens[static_cast<size_t>(i)]);
    batch.targets.push_back(counts ? tokens[static_cast<size_t>(i + 1)] : kIgnored);
    batch.predicted += counts;
  }
  ++batch.windows;
}

double sum_of_losses(const nn::CausalLm& model, const Batch& batch) {
  const Shape shape = {batch.windows, static_cast<int64_t>(batch.ids.size()) / batch.windows};
  const Tensor one = Tensor::scalar(1, DType::f32, model.device());
  return model
      .loss(Tensor::from(batch.ids, shape, model.device()),
            Tensor::from(batch.targets, shape, model.device()), one)
      .item();
}

}  // namespace

double Perplexity::value() const {
  return std::exp(loss);
}

Perplexity perplexity(const nn::CausalLm& model, std::span<const int32_t> tokens,
                      const PerplexityOptions& options,
                      const std::function<void(int64_t done)>& on_progress) {
  const NoGrad no_grad;
  const nn::CausalLmConfig& config = model.config();
  check(!model.training(), "perplexity needs the model in evaluation mode: call eval()");
  check(tokens.size() >= 2, "perplexity needs a text of two tokens or more, got ", tokens.size());
  const int64_t window = options.window ? options.window : config.max_positions;
  const int64_t stride = options.stride ? options.stride : window;
  check(window > 0 && window <= config.max_positions, "the window must have 1 to ",
        config.max_positions, " tokens (the model's positions), got ", window);
  check(stride > 0 && stride <= window, "the stride must be 1 to the window's ", window, ", got ",
        stride);
  check(options.batch > 0, "the batch must be positive, got ", options.batch);
  for (const int32_t id : tokens)
    check(id >= 0 && id < config.vocab_size, "the token id ", id,
          " is out of range: the model's vocabulary is ", config.vocab_size);

  const int64_t last = static_cast<int64_t>(tokens.size()) - 1;  // the last target
  Perplexity result;
  double sum = 0;
  int64_t next_target = 1;
  for (int64_t begin = 0; next_target <= last;) {
    Batch batch;
    // The last window may be shorter: it makes a batch of its own.
    const int64_t length = std::min(window, last - begin);
    while (batch.windows < options.batch && next_target <= last &&
           std::min(window, last - begin) == length) {
      add_window(batch, tokens, begin, length, next_target);
      next_target = begin + length + 1;
      begin += stride;
    }
    sum += sum_of_losses(model, batch);
    result.tokens += batch.predicted;
    if (on_progress) on_progress(result.tokens);
  }
  result.loss = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace binade::infer
