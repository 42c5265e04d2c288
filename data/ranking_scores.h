// Scores of documents in text files, as LightGBM, XGBoost and RankLib's users exchange them: one
// number a line, in the order of the documents in their files.
#pragma once

#include <binade/data/ranking_set.h>

#include <filesystem>
#include <span>
#include <vector>

namespace binade::data {

// The score of every document of the set (N), in its order. `documents`: how many the files have;
// 0: as many as the set. Error that names file and line for what is no number (NaN is none), and
// for another number of lines than there are documents in the files.
std::vector<double> read_scores(const std::filesystem::path& path, const RankingSet& set,
                                int64_t documents = 0);

// Writes scores (N) of a whole set back in the order of the files, with every digit they need.
// Error for another number of scores.
void write_scores(const std::filesystem::path& path, const RankingSet& set,
                  std::span<const double> scores);

}  // namespace binade::data
