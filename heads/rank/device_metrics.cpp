#include <binade/heads/rank/device_metrics.h>

#include <binade/core/kernels/rank_metrics.h>

namespace binade::heads::rank {

using Columns = kernels::RankMetricColumns;

DeviceMetrics::DeviceMetrics(const DeviceMetricOptions& options, Device device)
    : options_(options), sums_(Array::zeros({Columns::kSums}, DType::f64, device)) {
  check(options.cut >= 0, "metrics cannot be cut at rank ", options.cut);
}

void DeviceMetrics::add(const Array& scores, const Lists& lists) {
  const Array& offsets = lists.offsets;
  check(offsets.defined() && offsets.dtype() == DType::i64 && offsets.dims() == 1 &&
            offsets.numel() >= 1,
        "the offsets of lists must be i64 of shape (Q + 1)");
  check(lists.labels.defined() && lists.labels.dtype() == DType::f32 && scores.defined() &&
            is_floating(scores.dtype()) && scores.dims() == 1 &&
            lists.labels.shape() == scores.shape(),
        "metrics need floating scores (N) and f32 labels (N), got ",
        scores.defined() ? scores.shape() : Shape(), " and ",
        lists.labels.defined() ? lists.labels.shape() : Shape());
  for (const Array& array : {offsets, lists.labels, scores})
    check(array.device() == sums_.device(), "metrics on ", sums_.device(),
          " were given lists or scores on ", array.device());
  kernels::RankMetricRules rules;
  rules.cut = options_.cut;
  rules.exponential = options_.gain == Gain::exponential;
  using Empty = kernels::RankMetricRules::Empty;
  rules.empty = options_.empty == EmptyLists::zero  ? Empty::zero
                : options_.empty == EmptyLists::one ? Empty::one
                                                    : Empty::skip;
  const Array each =
      Array::empty({offsets.numel() - 1, Columns::kEach}, DType::f64, sums_.device());
  BINADE_DISPATCH(sums_.device(), rank_metrics(scores.contiguous(), lists.labels.contiguous(),
                                               offsets.contiguous(), rules, each, sums_));
  sums_.bump_version();
}

void DeviceMetrics::reset() {
  sums_.zero();
}

DeviceMetrics::Values DeviceMetrics::read() const {
  const auto sums = sums_.to_vector<double>();
  Values values;
  values.ndcg_lists = static_cast<int64_t>(sums[Columns::kNdcgLists]);
  values.mrr_lists = static_cast<int64_t>(sums[Columns::kReciprocalLists]);
  values.nan_scores = static_cast<int64_t>(sums[Columns::kNan]);
  values.ndcg = sums[Columns::kNdcg] / sums[Columns::kNdcgLists];
  values.mrr = sums[Columns::kReciprocal] / sums[Columns::kReciprocalLists];
  return values;
}

}  // namespace binade::heads::rank
