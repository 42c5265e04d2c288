// How often trained heads are right on text that is known, and how far a chain of their guesses
// would carry: what validation looks at, for every kind of heads.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/autograd/ops/multi_head_loss.h>
#include <binade/heads/decoding/documents.h>
#include <binade/heads/decoding/heads_loss.h>
#include <binade/train/data_parallel.h>

namespace binade::heads::decoding {

struct HeadAccuracy {
  std::vector<double> loss;              // by head, nats a label
  std::vector<std::vector<double>> top;  // by head: share of labels among its 1 … 5 likeliest
  double tokens_per_pass = 1;            // τ of a chain of the heads' likeliest tokens
  std::optional<double> main_loss;       // of the model's own next token, where it was asked for
};

// Calls multi_head_loss() with these labels and options, for a batch that lies on the device.
using EvaluateHeads = std::function<MultiHeadLoss(
    const train::Named<Tensor>& batch, const Tensor& labels, const MultiHeadLossOptions&)>;

struct HeadAccuracyOptions {
  amp::Preset preset;
  int64_t batches = 1;  // read at most, of `batch_size` rows each
  int64_t classes = 0;  // MultiHeadLossOptions::classes
  HeadSet set;
  // Of ranks that do some of the batches each, all of them calling this; null: one does them all.
  train::DataParallel* parallel = nullptr;
};

// Over the first batches of rows, of the set's heads, in order. τ is found by
// following every reply as greedy chain decoding would: a pass of the model gives its own token and
// those of the heads that agree with the text, one after the other until the first that does not
// (the text is taken to be the model's greedy choice). Model and heads should be in evaluation
// mode.
HeadAccuracy head_accuracy(const PackedDocuments& documents, Device device,
                           const HeadAccuracyOptions& options, const EvaluateHeads& evaluate);

// The same for Task::validate: the loss is Σ coefficients · loss, and the main loss, where there is
// one; the score is τ.
train::Validation validation_of(const HeadAccuracy& accuracy,
                                const std::vector<double>& coefficients);

}  // namespace binade::heads::decoding
