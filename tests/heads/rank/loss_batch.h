// Random batches of ragged lists, for the ranking losses and their oracle.
#pragma once

#include <random>

#include <binade/core/random.h>

#include "heads/rank/loss_oracle.h"

namespace binade::test {

enum class Values : uint8_t { random, tied, equal };  // of scores, of labels

struct BatchKind {
  std::vector<int64_t> sizes;
  Values scores = Values::random;
  Values labels = Values::random;
  bool weighted = false;
  int64_t padding = 0;      // rows behind the last list
  int64_t empty_lists = 0;  // at the end
  double spread = 2;        // of scores
  double top_label = 4;
};

// Host values of a batch.
struct RankBatchValues {
  std::vector<int64_t> offsets;
  std::vector<double> scores;
  std::vector<float> labels, weights, list_weights;
  int64_t columns = 1;

  int64_t rows() const { return static_cast<int64_t>(labels.size()); }
  int64_t lists() const { return static_cast<int64_t>(offsets.size()) - 1; }

  heads::rank::Lists arrays(Device device = {}) const {
    heads::rank::Lists lists;
    lists.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())}, device);
    lists.labels = Array::from(labels, {rows()}, device);
    if (!weights.empty()) lists.weights = Array::from(weights, {rows()}, device);
    if (!list_weights.empty())
      lists.list_weights = Array::from(list_weights, {this->lists()}, device);
    return lists;
  }
  Tensor score_tensor(DType dtype, const heads::rank::LossSpec& spec, Device device = {}) const {
    const bool single = spec.info().outputs == heads::rank::Outputs::score;
    const Shape shape = single ? Shape{rows()} : Shape{rows(), columns};
    return Tensor(Array::from(scores, shape).to(dtype).to(device), true);
  }
  // List q as the oracle sees it; draws are those of `place`.
  OracleList list(int64_t q, uint64_t seed, uint64_t step, uint64_t place) const {
    OracleList list;
    list.columns = static_cast<size_t>(columns);
    for (int64_t row = offsets[static_cast<size_t>(q)]; row < offsets[static_cast<size_t>(q) + 1];
         ++row) {
      const auto at = static_cast<size_t>(row);
      for (int64_t c = 0; c < columns; ++c)
        list.scores.push_back(scores[static_cast<size_t>(row * columns + c)]);
      list.labels.push_back(static_cast<double>(labels[at]));
      list.weights.push_back(weights.empty() ? 1 : static_cast<double>(weights[at]));
      const PhiloxBlock block = philox(seed, step, place, static_cast<uint64_t>(row) / 4);
      list.draws.push_back(static_cast<double>(uniform_of(block.word[row % 4])));
    }
    return list;
  }
};

inline RankBatchValues random_batch(const BatchKind& kind, const heads::rank::LossSpec& spec,
                                    uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, kind.spread);
  std::uniform_real_distribution<double> uniform;
  RankBatchValues batch;
  batch.columns = heads::rank::output_columns(spec, static_cast<int64_t>(kind.top_label));
  batch.offsets.push_back(0);
  const auto add_row = [&] {
    for (int64_t c = 0; c < batch.columns; ++c) {
      double score = normal(random);
      // Beside the kinks of hinges at 0 and 1.
      if (kind.scores == Values::tied) score = std::round(score * 2) / 2 + 0.125;
      if (kind.scores == Values::equal) score = 1.5;
      batch.scores.push_back(static_cast<double>(static_cast<float>(score)));
    }
    // Small grades are the common ones.
    double label = std::floor(std::pow(uniform(random), 2) * (kind.top_label + 1));
    if (kind.labels == Values::tied) label = std::min(label, 1.0);
    if (kind.labels == Values::equal) label = 2;
    batch.labels.push_back(static_cast<float>(label));
    if (kind.weighted) batch.weights.push_back(static_cast<float>(0.25 + uniform(random)));
  };
  for (const int64_t size : kind.sizes) {
    for (int64_t i = 0; i < size; ++i) add_row();
    batch.offsets.push_back(batch.offsets.back() + size);
  }
  for (int64_t i = 0; i < kind.empty_lists; ++i) batch.offsets.push_back(batch.offsets.back());
  for (int64_t i = 0; i < kind.padding; ++i) add_row();
  if (kind.weighted)
    for (int64_t q = 0; q < batch.lists(); ++q)
      batch.list_weights.push_back(static_cast<float>(0.5 + uniform(random)));
  return batch;
}

}  // namespace binade::test
