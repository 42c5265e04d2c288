#include <binade/core/error.h>
#include <binade/data/sampler.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace binade::data {
namespace {

// Streams of the seed: the split has one of its own, epochs have the others.
constexpr uint64_t kSplitStream = ~uint64_t{0};

}  // namespace

WindowSampler::WindowSampler(std::shared_ptr<const TokenSource> tokens,
                             const SamplerOptions& options)
    : tokens_(std::move(tokens)), options_(options) {
  check(options.batch_size >= 1 && options.batch_size <= 1 << 20, "a batch of ", options.batch_size,
        " rows is out of range");
  check(options.seq_len >= 1 && options.seq_len <= 1 << 24, "windows of ", options.seq_len,
        " tokens are out of range");
  const int64_t all = std::max<int64_t>(0, (tokens_->size() - 1) / options.seq_len);
  const bool divided = options.split != DataSplit::kAll;
  check(all >= (divided ? 2 : 1), "the data has ", tokens_->size(), " tokens, too few for ",
        divided ? "a training and a validation window" : "a window", " of ", options.seq_len,
        " tokens and their targets; use shorter sequences or more data");
  windows_ = all;
  if (!divided) return;
  check(options.validation_fraction > 0 && options.validation_fraction < 1,
        "the validation fraction ", options.validation_fraction, " is not between 0 and 1");
  const auto share = std::llround(options.validation_fraction * static_cast<double>(all));
  const int64_t validation = std::clamp<int64_t>(share, 1, all - 1);
  const bool is_train = options.split == DataSplit::kTrain;
  windows_ = is_train ? all - validation : validation;
  first_position_ = is_train ? 0 : all - validation;
  if (options.order == DataOrder::kShuffled) split_.emplace(all, options.seed, kSplitStream);
}

double WindowSampler::epochs(int64_t batches) const {
  return static_cast<double>(batches) * static_cast<double>(options_.batch_size) /
         static_cast<double>(windows_);
}

int64_t WindowSampler::window_start(int64_t batch, int64_t row) const {
  const int64_t sample = batch * options_.batch_size + row;
  const int64_t epoch = sample / windows_;
  int64_t position = sample % windows_;
  if (options_.order == DataOrder::kShuffled) {
    position = Permutation(windows_, options_.seed, static_cast<uint64_t>(epoch))(position);
  }
  position += first_position_;
  return (split_ ? (*split_)(position) : position) * options_.seq_len;
}

void WindowSampler::fill(int64_t batch, std::span<int32_t> inputs,
                         std::span<int32_t> targets) const {
  const auto size = static_cast<size_t>(tokens_per_batch());
  check(batch >= 0, "there is no batch ", batch);
  check(inputs.size() == size && targets.size() == size, "a batch has ", size,
        " tokens, but the buffers hold ", inputs.size(), " inputs and ", targets.size(),
        " targets");
  const auto length = static_cast<size_t>(options_.seq_len);
  std::vector<int32_t> window(length + 1);
  for (int64_t row = 0; row < options_.batch_size; ++row) {
    tokens_->read(window_start(batch, row), window);
    std::copy_n(window.begin(), length, inputs.begin() + row * options_.seq_len);
    std::copy_n(window.begin() + 1, length, targets.begin() + row * options_.seq_len);
  }
}

}  // namespace binade::data
