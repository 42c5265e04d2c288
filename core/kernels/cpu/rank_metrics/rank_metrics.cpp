#include <binade/core/kernels/rank_metrics.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>

namespace binade::kernels::cpu {
namespace {

using Columns = RankMetricColumns;

// The places of a list's documents in order of their keys.
template <class C>
void order_by(const C* keys, int64_t count, std::vector<int64_t>& order) {
  order.resize(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(),
            [keys](int64_t a, int64_t b) { return ranks_before(keys[a], a, keys[b], b); });
}

template <class C>
void measure_list(const C* scores, const float* labels, int64_t count, const RankMetricRules& rules,
                  std::vector<int64_t>& order, double* each) {
  each[Columns::kNan] = static_cast<double>(
      std::count_if(scores, scores + count, [](C score) { return score != score; }));
  if (count == 0) {
    each[Columns::kNdcg] = each[Columns::kReciprocal] = NAN;
    return;
  }
  double dcg = 0, ideal = 0, reciprocal = 0;
  bool relevant = false;
  order_by(scores, count, order);
  for (int64_t rank = 1; rank <= count; ++rank) {
    const float label = labels[order[static_cast<size_t>(rank - 1)]];
    dcg += rules.gain(label) * rules.discount(rank);
    if (label >= 1 && !relevant) {
      relevant = true;
      if (rules.cut == 0 || rank <= rules.cut) reciprocal = 1 / static_cast<double>(rank);
    }
  }
  order_by(labels, count, order);
  for (int64_t rank = 1; rank <= count; ++rank)
    ideal += rules.gain(labels[order[static_cast<size_t>(rank - 1)]]) * rules.discount(rank);
  each[Columns::kNdcg] = rules.or_empty(ideal > 0, dcg / ideal);
  each[Columns::kReciprocal] = rules.or_empty(relevant, reciprocal);
}

}  // namespace

void rank_metrics(const Array& scores, const Array& labels, const Array& offsets,
                  const RankMetricRules& rules, const Array& each, const Array& sums) {
  const int64_t lists = offsets.numel() - 1;
  const int64_t* starts = offsets.data<int64_t>();
  auto* values = each.data<double>();
  visit_compute(scores.dtype(), [&](auto zero) {
    using C = decltype(zero);
    parallel_for(lists, 64, [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      std::vector<int64_t> order;
      for (int64_t q = begin; q < end; ++q) {
        const int64_t count = starts[q + 1] - starts[q], item = size_of(scores.dtype());
        const auto* row = static_cast<const std::byte*>(scores.data()) + starts[q] * item;
        measure_list(reader.read(row, item, scores.dtype(), count),
                     labels.data<float>() + starts[q], count, rules, order,
                     values + q * Columns::kEach);
      }
    });
  });
  auto* out = sums.data<double>();
  for (int64_t q = 0; q < lists; ++q)
    for (int column = 0; column < Columns::kEach; ++column) {
      const double value = values[q * Columns::kEach + column];
      if (value != value) continue;
      out[column] += value;
      if (column == Columns::kNdcg) ++out[Columns::kNdcgLists];
      if (column == Columns::kReciprocal) ++out[Columns::kReciprocalLists];
    }
}

}  // namespace binade::kernels::cpu
