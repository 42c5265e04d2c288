#include <binade/heads/decoding/head_accuracy.h>

#include <algorithm>

#include <binade/autograd/tape.h>
#include <binade/core/text.h>

namespace binade::heads::decoding {

namespace {

constexpr int64_t kIgnore = -100;
constexpr size_t kTop = 5;

// Passes of chain decoding and the tokens that they give.
struct Chains {
  // labels (B, T): the next tokens; ranks (K, B, T): the heads' labels among their guesses.
  void follow(const Array& labels, const std::vector<int32_t>& ranks, int64_t first_head) {
    const int32_t* label = labels.data<int32_t>();
    const int64_t rows = labels.size(0), length = labels.size(1);
    const int64_t heads = static_cast<int64_t>(ranks.size()) / (rows * length);
    for (int64_t b = 0; b < rows; ++b)
      // A pass at t gives label[t] and what heads 1 … say of label[t + 1] …
      for (int64_t t = 0; t < length;) {
        const int64_t here = b * length + t;
        if (label[here] == kIgnore) {
          ++t;
          continue;
        }
        int64_t given = 1;
        for (int64_t k = first_head; k < heads; ++k, ++given) {
          if (t + given >= length || label[here + given] == kIgnore) break;
          if (ranks[static_cast<size_t>(k * rows * length + here)] != 0) break;
        }
        ++passes;
        tokens += given;
        t += given;
      }
  }

  int64_t passes = 0, tokens = 0;
};

}  // namespace

HeadAccuracy head_accuracy(const PackedDocuments& documents, Device device,
                           const HeadAccuracyOptions& options, const EvaluateHeads& evaluate) {
  const NoGrad off;
  const MultiHeadLossOptions loss_options{.classes = options.classes, .ranks = true};
  const int64_t rows = documents.options().batch_size;
  const size_t first_head = options.set.with_main ? 1 : 0;
  const int64_t batches =
      std::min(options.batches, (documents.row_count() + rows - 1) / std::max<int64_t>(rows, 1));
  // Of a batch: passes and tokens of its chains, then of every head the labels, their loss and how
  // many of them are among its 1 … 5 likeliest.
  constexpr size_t kChains = 2, kOfHead = 2 + kTop;
  const auto row_of = [&](int64_t n) {
    const train::Batch batch = documents.rows_from(n * rows);
    train::Named<Tensor> on_device;
    for (const auto& [name, array] : batch) on_device.add(name, Tensor(array.to(device)));
    const amp::Autocast scope(options.preset);
    const MultiHeadLoss result = evaluate(
        on_device,
        shifted_labels(on_device.at("labels"), on_device.at("documents"), options.set.shifts()),
        loss_options);
    Chains chains;
    chains.follow(batch.at("labels"), result.ranks.to_vector<int32_t>(),
                  static_cast<int64_t>(first_head));
    std::vector<double> row = {static_cast<double>(chains.passes),
                               static_cast<double>(chains.tokens)};
    const auto mean = result.losses.to_vector<double>(), valid = result.valid.to_vector<double>(),
               hits = result.hits.to_vector<double>();
    for (size_t k = 0; k < mean.size(); ++k) {
      row.push_back(valid[k]);
      row.push_back(mean[k] * valid[k]);
      for (size_t i = 0; i < kTop; ++i) row.push_back(hits[k * kTop + i]);
    }
    return row;
  };
  std::vector<double> sums;
  for (const std::vector<double>& row : train::deal(options.parallel, batches, row_of)) {
    sums.resize(row.size(), 0);
    for (size_t i = 0; i < row.size(); ++i) sums[i] += row[i];
  }
  HeadAccuracy accuracy;
  if (sums.empty()) return accuracy;
  if (sums[0] > 0) accuracy.tokens_per_pass = sums[1] / sums[0];
  for (size_t k = 0; kChains + (k + 1) * kOfHead <= sums.size(); ++k) {
    const double* of_head = sums.data() + kChains + k * kOfHead;
    const double labels = std::max(of_head[0], 1.0), loss = of_head[1] / labels;
    if (k < first_head) {
      accuracy.main_loss = loss;
      continue;
    }
    accuracy.loss.push_back(loss);
    std::vector<double>& top = accuracy.top.emplace_back();
    for (size_t i = 0; i < kTop; ++i) top.push_back(of_head[2 + i] / labels);
  }
  return accuracy;
}

train::Validation validation_of(const HeadAccuracy& accuracy,
                                const std::vector<double>& coefficients) {
  double loss = accuracy.main_loss.value_or(0);
  for (size_t k = 0; k < accuracy.loss.size(); ++k) loss += coefficients[k] * accuracy.loss[k];
  train::Validation validation(loss);
  if (accuracy.main_loss) validation.scalars.add("main_loss", *accuracy.main_loss);
  for (size_t k = 0; k < accuracy.top.size(); ++k)
    for (size_t i = 0; i < kTop; ++i)
      validation.scalars.add(concat("head", k + 1, "_top", i + 1), accuracy.top[k][i]);
  validation.scalars.add("tokens_per_pass", accuracy.tokens_per_pass);
  validation.score = accuracy.tokens_per_pass;
  return validation;
}

}  // namespace binade::heads::decoding
