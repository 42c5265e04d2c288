// Scores of documents in text files, as LightGBM, XGBoost and RankLib's users exchange them: one
// number a line, in the order of the documents in their files. Weights of documents and of lists
// are files of the same form.
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

// The weight of every document of the set (N) f32, in its order. Error as above, and for a weight
// that is negative or not finite in f32, by file and line.
Array read_weights(const std::filesystem::path& path, const RankingSet& set);
// The weight of every list of the set (Q) f32, in its order, which is that of the lists' first
// lines in their files. Errors likewise; also where all weights are 0.
Array read_list_weights(const std::filesystem::path& path, const RankingSet& set);

// Writes scores (N) of a whole set back in the order of the files, with every digit they need.
// Error for another number of scores.
void write_scores(const std::filesystem::path& path, const RankingSet& set,
                  std::span<const double> scores);

}  // namespace binade::data
