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

// Options that a resumed run may have otherwise: those of every program and what is done at the
// end.
std::vector<std::string> may_change();

// Throws Error for a loss or steps of scaling that there are not: before files are read, which may
// take a while.
void check_names(const TrainRankerOptions& options);

// What is trained on, validated on and tested on (the last two may be without lists), as read.
struct RankingFiles {
  data::RankingSet train;
  std::optional<data::RankingSet> valid, test;
  Array weights;  // of the documents to train on, or undefined
};
// Throws Error for files that are not there, are malformed or do not fit each other. What the
// reader had to decide is in the notes of `train`.
RankingFiles read_files(const TrainRankerOptions& options);

// A ranker for so many features, and how they are scaled: those of --init, or new ones.
heads::rank::SavedRanker make_ranker(const TrainRankerOptions& options,
                                     const data::RankingSet& train);

heads::rank::JudgeOptions judge_of(const TrainRankerOptions& options);
// Throws Error where a set to validate or test on cannot be judged so, for example for a label that
// the convention's gain table lacks: before training, not at its first validation.
void check_judged(const RankingFiles& files, const heads::rank::JudgeOptions& judging);

}  // namespace binade::examples
