// How much a ranker relies on a feature: what a metric loses when the feature's values change
// places between documents (permutation importance; Breiman, "Random forests", 2001).
//
//   const Importance found = permutation_importance(saved, set, preset, options);
#pragma once

#include <cstdint>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/data/ranking_set.h>
#include <binade/heads/rank/files.h>
#include <binade/heads/rank/metrics.h>

namespace binade::heads::rank {

struct ImportanceOptions {
  Metric metric{Measure::ndcg, 10};
  Convention convention;
  int64_t repeats = 5;  // permutations of every feature
  uint64_t seed = 0;
  // Values change places within each list only: what the feature says of a document among those of
  // its list. Otherwise between all documents, which also takes away what it says of the list.
  bool within_lists = false;
};

struct FeatureImportance {
  int64_t feature = 0;        // its number in the files
  double drop = 0;            // mean over the permutations; negative: the metric got better
  double deviation = 0;       // of them (n − 1); 0 of a single one
  std::vector<double> drops;  // (repeats)
  bool constant = false;      // no permutation changes anything, so the drop is 0 without a run
};

struct Importance {
  Evaluation baseline;  // of the features as they are
  // From the largest drop on; equal ones in the order of their numbers. A drop is positive where
  // the metric gets worse, also of metrics that are better when smaller.
  std::vector<FeatureImportance> features;
  int64_t documents_scored = 0;  // by the network, the baseline's included
};

// `ranker`: in evaluation mode, under `preset` and on a device, which computes. `set`: raw
// features; values change places before they are scaled. The network runs over parts of the set, as
// score() does, once for each permutation that changes a value of the part: the features are in
// memory once as they are and once scaled, and a part of them a third time. Permutations are Fisher
// and Yates's with draws of Philox keyed by (seed, feature, repeat), so that they depend neither on
// the other features nor on the device. Error for fewer than 1 repeat, another number of features
// than the ranker's, lists that evaluate() does not take, and where no list counts.
Importance permutation_importance(const SavedRanker& ranker, const data::RankingSet& set,
                                  const amp::Preset& preset, const ImportanceOptions& options);

}  // namespace binade::heads::rank
