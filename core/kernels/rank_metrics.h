// Metrics of ranked lists where their scores are, for validation during training.
#pragma once

#include <binade/core/host_device.h>
#include <binade/core/kernels/kernels.h>

#include <cmath>

namespace binade::kernels {

struct RankMetricRules {
  enum class Empty : uint8_t { zero, one, skip };  // what a list without relevant documents counts

  int64_t cut = 10;         // ranks behind it do not count; 0: all do
  bool exponential = true;  // gain 2^y − 1, otherwise y; discount 1/log2(1 + r)
  Empty empty = Empty::zero;

  BINADE_HOST_DEVICE double gain(float label) const {
    return exponential ? std::exp2(static_cast<double>(label)) - 1 : label;
  }
  // Of the 1-based rank.
  BINADE_HOST_DEVICE double discount(int64_t rank) const {
    return cut > 0 && rank > cut ? 0 : 1 / std::log2(1 + static_cast<double>(rank));
  }
  // A value where a list has one; otherwise what it counts, NaN for nothing.
  BINADE_HOST_DEVICE double or_empty(bool has_value, double value) const {
    if (has_value) return value;
    return empty == Empty::zero ? 0 : empty == Empty::one ? 1 : NAN;
  }
};

// The order of scores (and of labels): falling, equals in order of their places, NaN last.
template <class C>
BINADE_HOST_DEVICE bool ranks_before(C a, int64_t a_place, C b, int64_t b_place) {
  if (a > b) return true;
  if (a < b) return false;
  const bool a_nan = a != a, b_nan = b != b;
  return a_nan == b_nan ? a_place < b_place : b_nan;
}

// What `each` and `sums` hold.
struct RankMetricColumns {
  static constexpr int kNdcg = 0, kReciprocal = 1, kNan = 2, kEach = 3;
  static constexpr int kNdcgLists = 3, kReciprocalLists = 4, kSums = 5;
};

// NDCG@cut and the reciprocal rank of the first document with a label of 1 or more (0 behind the
// cut), of every list. offsets (Q + 1) i64 as in Lists, scores (N) floating, labels (N) f32, all
// contiguous; rows from offsets[Q] on are not read. each (Q, 3) f64: both values, NaN for lists
// that do not count (without documents, or without relevant ones under `skip`), and the number of
// scores that are NaN, which rank last. sums (5) f64 += Σ NDCG, Σ reciprocal rank, Σ NaN scores,
// the lists that count for NDCG and those that count for the reciprocal rank. Ties by place. O(n·r)
// work for n documents, r of them with gain; no limit to n.
BINADE_KERNEL(rank_metrics, const Array& scores, const Array& labels, const Array& offsets,
              const RankMetricRules& rules, const Array& each, const Array& sums)

}  // namespace binade::kernels
