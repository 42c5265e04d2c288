// NDCG and MRR of batches of lists where their scores are, for validation during training: nothing
// waits for the device until the numbers are read.
#pragma once

#include <cstdint>

#include <binade/core/array.h>
#include <binade/heads/rank/lists.h>
#include <binade/heads/rank/metrics.h>

namespace binade::heads::rank {

struct DeviceMetricOptions {
  int64_t cut = 10;  // of NDCG@k and MRR@k; 0: whole lists
  Gain gain = Gain::exponential;
  EmptyLists empty = EmptyLists::zero;
};

// Sums over the batches that were added. Discount 1/log2(1 + r), ties by input order, unweighted
// lists: the values of evaluate() under Convention::preset("zero") with this gain and policy.
class DeviceMetrics {
 public:
  explicit DeviceMetrics(const DeviceMetricOptions& options = {}, Device device = {});

  // scores (N) of any floating dtype, in the order of the lists' labels. Shapes alone matter to the
  // host, so that a captured step may call it, with buckets of a fixed size. NaN ranks last and is
  // counted. Error for other shapes or dtypes.
  void add(const Array& scores, const Lists& lists);
  void reset();

  // (5) f64 on the device: Σ NDCG, Σ reciprocal rank, NaN scores, and the lists that count for the
  // first and for the second.
  const Array& sums() const { return sums_; }

  struct Values {
    double ndcg = 0, mrr = 0;  // means; NaN if no list counts
    int64_t ndcg_lists = 0, mrr_lists = 0;
    int64_t nan_scores = 0;
  };
  Values read() const;  // waits for the device

 private:
  DeviceMetricOptions options_;
  Array sums_;
};

}  // namespace binade::heads::rank
