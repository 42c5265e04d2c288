// Which windows of a row of tokens make up which batch.
#pragma once

#include <binade/data/permutation.h>
#include <binade/data/token_source.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace binade::data {

enum class DataOrder {
  kShuffled,    // every epoch in another random order
  kSequential,  // step s, row b is the window that starts at token (s * batch_size + b) * seq_len
};

enum class DataSplit { kAll, kTrain, kValidation };

struct SamplerOptions {
  int64_t batch_size = 8;  // B: rows of a batch
  int64_t seq_len = 256;   // T: tokens of a row
  DataOrder order = DataOrder::kShuffled;
  uint64_t seed = 0;
  DataSplit split = DataSplit::kAll;
  // The share of windows that kValidation gets and kTrain does not, rounded to whole windows, but
  // at least one of each. The windows are drawn by the seed when shuffled, the last ones when
  // sequential.
  double validation_fraction = 0.1;
};

// Cuts N tokens into W = (N - 1) / T windows. Window w is tokens wT .. wT + T - 1; its targets are
// the tokens one further, so the last target of a window is the first token of the next. What is
// behind the last window is not used.
//
// A batch is a pure function of its number: row b of batch s is sample n = sB + b, which is window
// n mod W of epoch n / W. Epochs follow each other without a gap; a batch may hold the end of one
// and the start of the next, and in sequential order the windows begin again from the first. So the
// whole state is the number of batches consumed.
class WindowSampler {
 public:
  // Error when there are not enough tokens for one window (of each part, if split), or an option is
  // out of range.
  WindowSampler(std::shared_ptr<const TokenSource> tokens, const SamplerOptions& options);

  const SamplerOptions& options() const { return options_; }
  int64_t window_count() const { return windows_; }  // W of this split
  int64_t tokens_per_batch() const { return options_.batch_size * options_.seq_len; }

  // Passes over the windows that are complete when `batches` were consumed, and its fraction.
  double epochs(int64_t batches) const;

  // The token that row `row` of batch `batch` starts at.
  int64_t window_start(int64_t batch, int64_t row) const;

  // Fills inputs and targets, both (B, T) row-major. Error when the sizes differ from that.
  void fill(int64_t batch, std::span<int32_t> inputs, std::span<int32_t> targets) const;

 private:
  std::shared_ptr<const TokenSource> tokens_;
  SamplerOptions options_;
  int64_t windows_ = 0;               // of this split
  int64_t first_position_ = 0;        // of this split among all windows, in the order of the split
  std::optional<Permutation> split_;  // the order of the split; none: as they lie
};

}  // namespace binade::data
