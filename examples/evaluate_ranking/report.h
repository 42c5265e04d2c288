// What evaluate_ranking prints and writes.
#pragma once

#include <binade/data/ranking_set.h>
#include <binade/heads/rank/metrics.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace binade::examples {

// A metric of the scores and, where there is one, of the baseline, under one convention.
struct RankingResult {
  heads::rank::Evaluation scores;
  heads::rank::TieBounds bounds;
  std::optional<heads::rank::Evaluation> baseline;
  std::optional<heads::rank::PairedTest> test;
};

// A line with the number, its tie bounds and its convention; one more with the paired test.
std::string result_lines(const RankingResult& result);

// The same as an object of JSON, on one line.
std::string result_json(const RankingResult& result);

// A table of every list: its query id, number of documents, and every result by name; an empty
// field where the list does not count.
void write_per_query(const std::filesystem::path& path, const data::RankingSet& set,
                     const std::vector<RankingResult>& results);

}  // namespace binade::examples
