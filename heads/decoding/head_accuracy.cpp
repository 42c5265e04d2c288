#include <binade/heads/decoding/head_accuracy.h>

#include <algorithm>

#include <binade/autograd/tape.h>
#include <binade/core/text.h>

namespace binade::heads::decoding {

namespace {

constexpr int64_t kIgnore = -100;
constexpr size_t kTop = 5;

// Sums over batches.
struct HeadSums {
  explicit HeadSums(size_t heads) : loss(heads, 0), valid(heads, 0), hits(heads * kTop, 0) {}
  void add(const MultiHeadLoss& result) {
    const auto mean = result.losses.to_vector<double>(), rows = result.valid.to_vector<double>(),
               top = result.hits.to_vector<double>();
    for (size_t k = 0; k < loss.size(); ++k) {
      loss[k] += mean[k] * rows[k];
      valid[k] += rows[k];
    }
    for (size_t i = 0; i < hits.size(); ++i) hits[i] += top[i];
  }
  double mean_loss(size_t k) const { return loss[k] / std::max(valid[k], 1.0); }

  std::vector<double> loss, valid, hits;
};

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
  std::optional<HeadSums> sums;
  Chains chains;
  for (int64_t n = 0; n < options.batches && n * rows < documents.row_count(); ++n) {
    const train::Batch batch = documents.rows_from(n * rows);
    train::Named<Tensor> on_device;
    for (const auto& [name, array] : batch) on_device.add(name, Tensor(array.to(device)));
    const amp::Autocast scope(options.preset);
    const MultiHeadLoss result = evaluate(
        on_device,
        shifted_labels(on_device.at("labels"), on_device.at("documents"), options.set.shifts()),
        loss_options);
    if (!sums) sums.emplace(static_cast<size_t>(result.losses.numel()));
    sums->add(result);
    chains.follow(batch.at("labels"), result.ranks.to_vector<int32_t>(),
                  static_cast<int64_t>(first_head));
  }
  HeadAccuracy accuracy;
  if (!sums) return accuracy;
  if (options.set.with_main) accuracy.main_loss = sums->mean_loss(0);
  for (size_t k = first_head; k < sums->loss.size(); ++k) {
    accuracy.loss.push_back(sums->mean_loss(k));
    std::vector<double>& top = accuracy.top.emplace_back();
    for (size_t i = 0; i < kTop; ++i)
      top.push_back(sums->hits[k * kTop + i] / std::max(sums->valid[k], 1.0));
  }
  if (chains.passes > 0)
    accuracy.tokens_per_pass =
        static_cast<double>(chains.tokens) / static_cast<double>(chains.passes);
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
