#include <binade/heads/rank/training.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/core.h>

#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/data/permutation.h>
#include <binade/heads/rank/device_metrics.h>
#include <binade/heads/rank/parts.h>
#include <binade/train/data_parallel.h>

namespace binade::heads::rank {

namespace {

Tensor rows_of(const Tensor& table, const Tensor& index) {
  const NoGrad off;
  return index_select(table, 0, index);
}

template <class T>
uint32_t added(uint32_t checksum, std::span<T> values) {
  return crc32c(values.data(), values.size_bytes(), checksum);
}

// Calls use(outputs) with what the ranker makes of a part of a set.
template <class Use>
void look_at_part(const Ranker& ranker, const ResidentSet& set, const Part& part,
                  const amp::Preset& preset, const Use& use) {
  const NoGrad off;
  const amp::Autocast scope(preset);
  use(ranker.forward(set.features(part.rows), part.list_of));
}

}  // namespace

ResidentSet::ResidentSet(data::RankingSet set, DType dtype, Device device, const Array& weights,
                         const Array& list_weights)
    : host_(std::move(set)) {
  host_.check_shapes("a set to train on");
  check(host_.documents() <= std::numeric_limits<int32_t>::max(), "a set of ", host_.documents(),
        " documents is too large; it may have 2^31 - 1");
  const auto weighed = [&](const Array& given, int64_t count, const char* what) -> Tensor {
    if (!given.defined()) return {};
    check(given.dtype() == DType::f32 && given.dims() == 1 && given.numel() == count, "weights of ",
          what, " are ", count, " numbers in f32, got ", given.dtype(), given.shape());
    return Tensor(given.to(device));
  };
  weights_ = weighed(weights, host_.documents(), "documents");
  list_weights_ = weighed(list_weights, host_.queries(), "lists");
  checksum_ = added(0, host_.offset_span());
  checksum_ = added(checksum_, host_.label_span());
  checksum_ = added(checksum_, host_.feature_span());
  features_ = Tensor(host_.features.to(dtype).to(device));
  host_.features = {};
  labels_ = Tensor(host_.labels.to(device));
}

Tensor ResidentSet::features(const Tensor& rows) const {
  return rows_of(features_, rows);
}
Array ResidentSet::labels(const Tensor& rows) const {
  return rows_of(labels_, rows).array();
}
Array ResidentSet::weights(const Tensor& rows) const {
  return weights_.defined() ? rows_of(weights_, rows).array() : Array();
}
Array ResidentSet::list_weights(const Tensor& lists) const {
  return list_weights_.defined() ? rows_of(list_weights_, lists).array() : Array();
}

std::string ResidentSet::fingerprint() const {
  uint32_t checksum = checksum_;
  for (const Tensor& weights : {weights_, list_weights_}) {
    if (!weights.defined()) continue;
    const std::vector<float> values = weights.to_vector<float>();
    checksum = added(checksum, std::span(values));
  }
  return fmt::format("{} lists, {} documents of {} features, CRC-32C {:#010x}", host_.queries(),
                     host_.documents(), features_.size(1), checksum);
}

ListBatches::ListBatches(std::shared_ptr<const ResidentSet> set, const LossSpec& loss,
                         const BatchingOptions& options)
    : set_(std::move(set)), options_(options), bucket_(options.bucket) {
  check(options.lists > 0, "a step needs at least one list, got ", options.lists);
  train::check_accumulation(options.lists, options.accumulation);
  check(options.bucket >= 0, "a bucket is 0 or more documents, got ", options.bucket);
  const std::span<const int64_t> offsets = set_->host().offset_span();
  const std::span<const float> labels = set_->host().label_span();
  int64_t documents = 0;
  for (size_t q = 0; q + 1 < offsets.size(); ++q) {
    const int64_t ends[] = {0, offsets[q + 1] - offsets[q]};
    const auto first = static_cast<size_t>(offsets[q]), count = static_cast<size_t>(ends[1]);
    if (rank::usable_lists(loss, ends, labels.subspan(first, count)) == 0) continue;
    usable_.push_back(static_cast<int64_t>(q));
    documents += ends[1];
  }
  check(!usable_.empty(), "the loss ", loss.text(), " learns from none of the ", set_->lists(),
        " lists to train on");
  const int64_t each = options.lists / options.accumulation;
  const int64_t usual = documents / usable_lists() * each;
  check(each <= INT32_MAX && usual <= INT32_MAX, "a micro-batch of ", each, " lists has about ",
        documents / usable_lists(), " documents each; it may have 2^31 - 1 in all");
  if (bucket_ > 0) return;
  constexpr int64_t kLeast = 64;
  bucket_ =
      set_->device().is_cuda() ? std::max(kLeast, (usual / 8 + kLeast - 1) / kLeast * kLeast) : 1;
}

int64_t ListBatches::steps_per_epoch() const {
  return (usable_lists() + options_.lists - 1) / options_.lists;
}

train::Batch ListBatches::batch(const std::vector<int64_t>& lists) const {
  const std::span<const int64_t> of = set_->host().offset_span();
  std::vector<int64_t> offsets = {0};
  std::vector<int32_t> rows, numbers;
  for (const int64_t q : lists) {
    const auto at = static_cast<size_t>(q);
    for (int64_t d = of[at]; d < of[at + 1]; ++d) rows.push_back(static_cast<int32_t>(d));
    offsets.push_back(static_cast<int64_t>(rows.size()));
    numbers.push_back(static_cast<int32_t>(q));
  }
  const auto capacity = (static_cast<int64_t>(rows.size()) + bucket_ - 1) / bucket_ * bucket_;
  rows.resize(static_cast<size_t>(capacity), 0);
  const auto count = static_cast<int64_t>(lists.size());
  train::Batch batch = {{"rows", Array::from(rows, {capacity})},
                        {"offsets", Array::from(offsets, {count + 1})}};
  if (set_->has_list_weights()) batch.add("lists", Array::from(numbers, {count}));
  if (options_.list_numbers)
    batch.add("list_of", Array::from(list_numbers(offsets, capacity), {capacity}));
  return batch;
}

train::StepData ListBatches::operator()(int64_t step) const {
  const int64_t count = usable_lists(), each = options_.lists / options_.accumulation;
  train::StepData data;
  int64_t place = step * options_.lists;
  for (int64_t m = 0; m < options_.accumulation; ++m) {
    std::vector<int64_t> lists;
    for (int64_t i = 0; i < each; ++i, ++place) {
      const data::Permutation order(count, options_.seed, static_cast<uint64_t>(place / count));
      lists.push_back(usable_[static_cast<size_t>(order(place % count))]);
    }
    data.micro_batches.push_back(batch(lists));
    for (const int64_t q : lists) {
      const auto at = static_cast<size_t>(q);
      data.tokens += set_->host().offset_span()[at + 1] - set_->host().offset_span()[at];
    }
  }
  data.normalisers = {{"lists", static_cast<double>(options_.lists)}};
  return data;
}

train::LossFunction ranking_loss(const Ranker& ranker, std::shared_ptr<const ResidentSet> set,
                                 const LossSpec& loss, int64_t cut) {
  return [&ranker, set = std::move(set), loss, cut](const train::LossInputs& in) {
    const Tensor& rows = in.batch.at("rows");
    Lists lists;
    lists.offsets = in.batch.at("offsets").array();
    lists.labels = set->labels(rows);
    lists.weights = set->weights(rows);
    if (set->has_list_weights()) lists.list_weights = set->list_weights(in.batch.at("lists"));
    const Tensor outputs = ranker.forward(
        set->features(rows), in.batch.contains("list_of") ? in.batch.at("list_of") : Tensor());
    train::Loss result(rank_loss(outputs, lists, loss, in.normalisers.at("lists")));
    const NoGrad off;
    DeviceMetrics metrics({.cut = cut}, set->device());
    metrics.add(ranking_scores(outputs, loss).array(), lists);
    // Σ NDCG of the micro-batch over the lists of the whole step, as it is summed over
    // micro-batches.
    result.scalars.add("ndcg", select(Tensor(metrics.sums()), 0, 0) / in.normalisers.at("lists"));
    return result;
  };
}

std::vector<double> score(const Ranker& ranker, const ResidentSet& set, const LossSpec& loss,
                          const amp::Preset& preset) {
  std::vector<double> scores;
  for (const Part& part : parts_of(set.host(), set.device()))
    look_at_part(ranker, set, part, preset,
                 [&](const Tensor& outputs) { append_scores(scores, outputs, loss); });
  return scores;
}

train::Validation validate(const Ranker& ranker, const ResidentSet& set, const LossSpec& loss,
                           const amp::Preset& preset, const JudgeOptions& judge,
                           train::DataParallel* parallel) {
  check(!judge.metrics.empty(), "a validation needs a metric");
  std::vector<double> scores;
  double total = 0;
  int64_t usable = 0;
  // Of a part: its loss, then the scores of its documents.
  const std::vector<Part> parts = parts_of(set.host(), set.device());
  const auto row_of = [&](int64_t index) {
    const Part& part = parts[static_cast<size_t>(index)];
    Lists lists;
    lists.offsets =
        Array::from(part.offsets, {static_cast<int64_t>(part.offsets.size())}).to(set.device());
    lists.labels = set.labels(part.rows);
    std::vector<double> row;
    look_at_part(ranker, set, part, preset, [&](const Tensor& outputs) {
      row = {rank_loss(outputs, lists, loss).item()};
      append_scores(row, outputs, loss);
    });
    return row;
  };
  const auto rows = train::deal(parallel, std::ssize(parts), row_of);
  for (size_t index = 0; index < parts.size(); ++index) {
    const Part& part = parts[index];
    total += rows[index].front();
    scores.insert(scores.end(), rows[index].begin() + 1, rows[index].end());
    usable +=
        usable_lists(loss, part.offsets,
                     set.host().label_span().subspan(static_cast<size_t>(part.begin),
                                                     static_cast<size_t>(part.end - part.begin)));
  }
  for (double& value : scores)
    if (std::isnan(value)) value = -std::numeric_limits<double>::infinity();
  train::Validation validation(total / static_cast<double>(std::max<int64_t>(usable, 1)));
  const Judged lists{set.host().offset_span(), set.host().label_span()};
  for (const Evaluation& one : evaluate(lists, scores, judge.metrics, judge.convention)) {
    validation.scalars.add(one.metric.name(), one.mean);
    if (validation.score) continue;
    validation.score = one.metric.smaller_is_better() ? -one.mean : one.mean;
    validation.score_of = one.metric.name();
  }
  return validation;
}

}  // namespace binade::heads::rank
