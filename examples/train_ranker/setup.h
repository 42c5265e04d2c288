// From the options of train_ranker to the parts of a run.
#pragma once

#include <memory>
#include <optional>

#include <binade/data/feature_scaling.h>
#include <binade/data/letor.h>
#include <binade/heads/rank/files.h>
#include <binade/heads/rank/training.h>

#include "../device.h"
#include "../training/setup.h"
#include "options.h"

namespace binade::examples {

// What is trained on, validated on and tested on (the last two may be without lists), as read.
struct RankingFiles {
  data::RankingSet train;
  std::optional<data::RankingSet> valid, test;
  Array weights;  // of the documents to train on, or undefined
};
// Throws Error for files that are not there, are malformed or do not fit each other.
RankingFiles read_files(const TrainRankerOptions& options);

// A ranker for so many features, and how they are scaled: those of --init, or new ones.
heads::rank::SavedRanker make_ranker(const TrainRankerOptions& options,
                                     const data::RankingSet& train);

heads::rank::JudgeOptions judge_of(const TrainRankerOptions& options);

}  // namespace binade::examples
