#include <binade/heads/decoding/heads_loss.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/tape.h>
#include <binade/core/text.h>

namespace binade::heads::decoding {

namespace {

bool has_labels(const PackedDocuments& documents, int64_t shift) {
  for (int64_t row = 0; row < documents.row_count(); row += documents.options().batch_size)
    if (count_labels(documents.rows_from(row), shift) > 0) return true;
  return false;
}

}  // namespace

std::vector<int64_t> HeadSet::shifts() const {
  std::vector<int64_t> result;
  for (int64_t k = with_main ? 0 : 1; k <= count; ++k) result.push_back(k);
  return result;
}

std::vector<std::string> HeadSet::names() const {
  std::vector<std::string> result;
  if (with_main) result.emplace_back("main");
  for (int64_t k = 1; k <= count; ++k) result.push_back(concat("head", k));
  return result;
}

std::function<train::StepData(int64_t)> heads_data(std::shared_ptr<const PackedDocuments> documents,
                                                   const HeadSet& set, int64_t accumulation,
                                                   std::shared_ptr<const HiddenCache> cache) {
  train::check_accumulation(documents->options().batch_size, accumulation);
  const int64_t nearest = set.shifts().front();
  check(has_labels(*documents, nearest), "no row of the documents has a label ", nearest + 1,
        " tokens behind another one: there is nothing for ", set.names().front(), " to learn");
  return [documents = std::move(documents), cache = std::move(cache), names = set.names(),
          shifts = set.shifts(), accumulation](int64_t step) {
    train::Batch batch = documents->batch(step);
    if (cache) batch.add("hidden", cache->rows(documents->rows_of(step)));
    train::StepData data;
    data.micro_batches = train::micro_batches(batch, accumulation);
    for (size_t k = 0; k < names.size(); ++k)
      data.normalisers.add(names[k], static_cast<double>(count_labels(batch, shifts[k])));
    data.tokens = batch.at("ids").numel();
    return data;
  };
}

train::Loss heads_loss(const HeadSet& set, const Tensor& hidden,
                       const std::vector<DecodingHead>& heads, const train::LossInputs& in,
                       int64_t classes, const Tensor& factors) {
  const std::vector<std::string> names = set.names();
  TensorList normalisers;
  for (const std::string& name : names) normalisers.push_back(in.normalisers.at(name));
  MultiHeadLossOptions options;
  options.normalisers = stack(normalisers, 0);
  if (factors.defined()) options.normalisers = options.normalisers / factors;
  options.classes = classes;
  const Tensor documents = in.batch.contains("documents") ? in.batch.at("documents") : Tensor();
  const MultiHeadLoss result = multi_head_loss(
      hidden, heads, shifted_labels(in.batch.at("labels"), documents, set.shifts()), options);
  train::Loss loss(result.loss);
  const NoGrad off;
  const Tensor losses = factors.defined() ? result.losses / factors : result.losses;
  for (size_t k = 0; k < names.size(); ++k) {
    const auto at = static_cast<int64_t>(k);
    loss.scalars.add(names[k] + "_loss", select(losses, 0, at));
    loss.scalars.add(names[k] + "_top1", select(select(result.hits, 0, at), 0, 0) / normalisers[k]);
  }
  return loss;
}

void learn_acceptance(std::span<DecodingHead> heads, double share, const Tensor& hidden,
                      const Tensor& weight) {
  check(share >= 0 && share <= 1, "the share of the acceptance loss lies in [0, 1], got ", share);
  if (share == 0) return;
  int64_t ahead = 0;
  for (DecodingHead& head : heads) {
    head.hard = 1 - share;
    head.acceptance = share;
    head.teacher = Teacher{hidden.detach(), weight.detach(), 1, ++ahead};
  }
}

}  // namespace binade::heads::decoding
