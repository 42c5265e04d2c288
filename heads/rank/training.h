// Training a ranker: a set whose features lie on the device, batches of whole lists, the loss for
// train::Trainer, and validation by the measures of metrics.h.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/data/ranking_set.h>
#include <binade/heads/rank/losses.h>
#include <binade/heads/rank/metrics.h>
#include <binade/heads/rank/ranker.h>
#include <binade/train/trainer.h>

namespace binade::heads::rank {

// A set with its features and labels on a device, so that a step only sends the numbers of its
// documents.
class ResidentSet {
 public:
  // Features are kept in `dtype`. `weights`: (N) f32 of documents, 0 or more; `list_weights`: (Q).
  // Undefined: 1.
  ResidentSet(data::RankingSet set, DType dtype, Device device, const Array& weights = {},
              const Array& list_weights = {});

  // Without its features, which are kept once, where the ranker reads them: features() (N, F).
  const data::RankingSet& host() const { return host_; }
  const Tensor& features() const { return features_; }
  Device device() const { return features_.device(); }
  int64_t lists() const { return host_.queries(); }
  // Rows (n) i32, on the device → features (n, F), labels and weights (n).
  Tensor features(const Tensor& rows) const;
  Array labels(const Tensor& rows) const;
  Array weights(const Tensor& rows) const;        // undefined where all are 1
  Array list_weights(const Tensor& lists) const;  // lists (B) i32; undefined where all are 1
  bool has_list_weights() const { return list_weights_.defined(); }
  // What a resumed run is held to: counts and a checksum.
  std::string fingerprint() const;

 private:
  data::RankingSet host_;
  Tensor features_, labels_, weights_, list_weights_;
  uint32_t checksum_;  // of lists, labels and features as they were given
};

struct BatchingOptions {
  int64_t lists = 16;        // a step
  int64_t accumulation = 1;  // micro-batches of equally many lists
  uint64_t seed = 0;         // of the order of lists, another one every epoch
  // Documents are filled up to a multiple of this, so that few sizes occur and each gets a captured
  // step of its own. 0: as a GPU suits, an eighth of a usual batch (64 at least); 1: not at all.
  int64_t bucket = 0;
  bool list_numbers = false;  // rows carry the number of their list, for attention and batch norm
};

// For Task::data: lists from which the loss learns, in a shuffled order. Arrays of a micro-batch:
//   rows     (capacity) i32   numbers of documents in the set; 0 in rows that only fill up
//   offsets  (B + 1) i64      as in Lists
//   lists    (B) i32          numbers of the lists
//   list_of  (capacity) i32   number of the list in the batch, -1 in rows that fill up
// The normaliser is "lists", the number of lists; StepData::tokens counts documents.
class ListBatches {
 public:
  // Throws Error where the loss learns from no list of the set.
  ListBatches(std::shared_ptr<const ResidentSet> set, const LossSpec& loss,
              const BatchingOptions& options);
  train::StepData operator()(int64_t step) const;
  int64_t usable_lists() const { return static_cast<int64_t>(usable_.size()); }
  int64_t steps_per_epoch() const;  // the last may begin the next epoch
  int64_t bucket() const { return bucket_; }

 private:
  train::Batch batch(const std::vector<int64_t>& lists) const;

  std::shared_ptr<const ResidentSet> set_;
  BatchingOptions options_;
  std::vector<int64_t> usable_;
  int64_t bucket_;
};

// For Task::loss: rank_loss() of a micro-batch. Reports ndcg, the mean NDCG@`cut` (lists without
// relevant documents count 0) over the micro-batch's lists. `ranker` and `set` must outlive it.
train::LossFunction ranking_loss(const Ranker& ranker, std::shared_ptr<const ResidentSet> set,
                                 const LossSpec& loss, int64_t cut = 10);

// What documents are ranked by, (N) in the order of the set, computed a few lists at a time. The
// ranker should be in evaluation mode.
std::vector<double> score(const Ranker& ranker, const ResidentSet& set, const LossSpec& loss,
                          const amp::Preset& preset);

struct JudgeOptions {
  std::vector<Metric> metrics;  // the first decides
  Convention convention;
};
// For Task::validate: the mean loss and the metrics; the score is the first metric, its negative
// where smaller is better. NaN scores count as the worst there is. With `parallel` the ranks of a
// run, which all call this, score some of the lists each.
train::Validation validate(const Ranker& ranker, const ResidentSet& set, const LossSpec& loss,
                           const amp::Preset& preset, const JudgeOptions& judge,
                           train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::rank
