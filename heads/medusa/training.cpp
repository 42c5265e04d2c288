#include <binade/heads/medusa/training.h>

#include <algorithm>
#include <cmath>

#include <binade/core/text.h>

namespace binade::heads::medusa {

namespace {

constexpr int64_t kIgnore = -100;
constexpr int kTop = 5;

std::string head_name(int64_t k, const char* what = "") {
  return concat("head", k + 1, what);
}

std::vector<double> coefficients(int64_t heads, const MedusaLossOptions& options) {
  std::vector<double> result;
  for (int64_t k = 1; k <= heads; ++k)
    result.push_back(std::pow(options.decay, static_cast<double>(k)));
  return result;
}

// Labels are the next tokens: head k (from 0) predicts k + 1 further.
std::vector<int64_t> shifts(int64_t heads) {
  std::vector<int64_t> result;
  for (int64_t k = 1; k <= heads; ++k) result.push_back(k);
  return result;
}

// The language model's hidden states, without a tape: the batch's own where it has them.
Tensor base_states(const MedusaHeads& heads, const train::Named<Tensor>& batch, bool packed) {
  const NoGrad off;
  if (batch.contains("hidden"))
    return Tensor(batch.at("hidden").array().to(heads.base().head_weight().dtype()));
  return heads.base().hidden_states(batch.at("ids"), decoding::sequence_of(batch, packed));
}

}  // namespace

std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads, int64_t accumulation,
    std::shared_ptr<const decoding::HiddenCache> cache) {
  train::check_accumulation(documents->options().batch_size, accumulation);
  return [documents = std::move(documents), cache = std::move(cache), heads,
          accumulation](int64_t step) {
    train::Batch batch = documents->batch(step);
    if (cache) batch.add("hidden", cache->rows(documents->rows_of(step)));
    train::StepData data;
    data.micro_batches = train::micro_batches(batch, accumulation);
    for (int64_t k = 0; k < heads; ++k)
      data.normalisers.add(head_name(k), static_cast<double>(decoding::count_labels(batch, k + 1)));
    data.tokens = batch.at("ids").numel();
    return data;
  };
}

train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options) {
  const int64_t count = heads.config().heads;
  check(options.decay > 0 && options.decay <= 1, "the decay of Medusa's coefficients lies in ",
        "(0, 1], got ", options.decay);
  return [&heads, count, packed = packing.pack,
          lambda = coefficients(count, options)](const train::LossInputs& in) {
    TensorList normalisers;
    for (int64_t k = 0; k < count; ++k) normalisers.push_back(in.normalisers.at(head_name(k)));
    MultiHeadLossOptions loss_options;
    loss_options.normalisers = stack(normalisers, 0);
    loss_options.classes = heads.base().config().vocab_size;
    const MultiHeadLoss result = multi_head_loss(
        base_states(heads, in.batch, packed), heads.loss_heads(lambda),
        shifted_labels(in.batch.at("labels"), in.batch.at("documents"), shifts(count)),
        loss_options);
    train::Loss loss(result.loss);
    const NoGrad off;
    for (int64_t k = 0; k < count; ++k) {
      const Tensor hits = reshape(slice(slice(result.hits, 0, k, k + 1), 1, 0, 1), {});
      loss.scalars.add(head_name(k, "_loss"), reshape(slice(result.losses, 0, k, k + 1), {}));
      loss.scalars.add(head_name(k, "_top1"), hits / normalisers[static_cast<size_t>(k)]);
    }
    return loss;
  };
}

namespace {

// Follows the documents of a batch as chain decoding would; adds passes and tokens.
void follow_chains(const train::Batch& batch, const std::vector<std::vector<int64_t>>& likeliest,
                   int64_t& passes, int64_t& tokens) {
  const Array& labels = batch.at("labels");
  const int32_t* label = labels.data<int32_t>();
  const int64_t length = labels.size(1);
  for (int64_t b = 0; b < labels.size(0); ++b) {
    // A pass at t gives label[t] and what heads 1 … say of label[t + 1] …
    for (int64_t t = 0; t < length;) {
      if (label[b * length + t] == kIgnore) {
        ++t;
        continue;
      }
      int64_t next = t + 1;
      for (const std::vector<int64_t>& head : likeliest) {
        if (next >= length || label[b * length + next] == kIgnore) break;
        if (head[static_cast<size_t>(b * length + t)] != label[b * length + next]) break;
        ++next;
      }
      ++passes;
      tokens += next - t;
      t = next;
    }
  }
}

}  // namespace

HeadAccuracy head_accuracy(const MedusaHeads& heads, const decoding::PackedDocuments& documents,
                           const amp::Preset& preset, int64_t batches) {
  const NoGrad off;
  const Device device = heads.base().device();
  const int64_t count = heads.config().heads, rows = documents.options().batch_size;
  std::vector<double> losses(static_cast<size_t>(count), 0), valid(losses);
  std::vector<std::vector<double>> hits(static_cast<size_t>(count), std::vector<double>(kTop, 0));
  int64_t passes = 0, tokens = 0;
  for (int64_t first = 0, n = 0; first < documents.row_count() && n < batches; first += rows, ++n) {
    const train::Batch batch = documents.rows_from(first);
    train::Named<Tensor> on_device;
    for (const auto& [name, array] : batch) on_device.add(name, Tensor(array.to(device)));
    const amp::Autocast scope(preset);
    const Tensor hidden = base_states(heads, on_device, documents.options().pack);
    MultiHeadLossOptions options;
    options.classes = heads.base().config().vocab_size;
    const MultiHeadLoss result = multi_head_loss(
        hidden, heads.loss_heads(std::vector<double>(static_cast<size_t>(count), 1)),
        shifted_labels(on_device.at("labels"), on_device.at("documents"), shifts(count)), options);
    const std::vector<double> mean = result.losses.to_vector<double>(),
                              rows_valid = result.valid.to_vector<double>(),
                              top = result.hits.to_vector<double>();
    std::vector<std::vector<int64_t>> likeliest;
    for (int64_t k = 0; k < count; ++k) {
      const auto at = static_cast<size_t>(k);
      losses[at] += mean[at] * rows_valid[at];
      valid[at] += rows_valid[at];
      for (size_t i = 0; i < kTop; ++i) hits[at][i] += top[at * kTop + i];
      likeliest.push_back(argmax(heads.logits(k, hidden), -1).to_vector<int64_t>());
    }
    follow_chains(batch, likeliest, passes, tokens);
  }
  HeadAccuracy accuracy;
  for (size_t k = 0; k < losses.size(); ++k) {
    const double labels = std::max(valid[k], 1.0);
    accuracy.loss.push_back(losses[k] / labels);
    for (double& hit : hits[k]) hit /= labels;
  }
  accuracy.top = std::move(hits);
  if (passes > 0)
    accuracy.tokens_per_pass = static_cast<double>(tokens) / static_cast<double>(passes);
  return accuracy;
}

train::Validation validation_of(const HeadAccuracy& accuracy, const MedusaLossOptions& options) {
  const auto count = static_cast<int64_t>(accuracy.loss.size());
  const std::vector<double> lambda = coefficients(count, options);
  double loss = 0;
  for (size_t k = 0; k < lambda.size(); ++k) loss += lambda[k] * accuracy.loss[k];
  train::Validation validation(loss);
  for (int64_t k = 0; k < count; ++k)
    for (size_t i = 0; i < kTop; ++i)
      validation.scalars.add(concat(head_name(k, "_top"), i + 1),
                             accuracy.top[static_cast<size_t>(k)][i]);
  validation.scalars.add("tokens_per_pass", accuracy.tokens_per_pass);
  validation.score = accuracy.tokens_per_pass;
  return validation;
}

}  // namespace binade::heads::medusa
