// The files of simulate_clicks.
#pragma once

#include <binade/data/ranking_set.h>
#include <binade/heads/rank/clicks.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "../output_files.h"

namespace binade::examples {

// The files that write_click_files() writes, for --output PATH.
std::vector<OutputFile> click_files(const std::string& path);

// Writes four files. The lines of three go together:
//   PATH            LETOR lines, a list for each session, which is called QUERY/SESSION (from 1);
//                   documents in the order of the set, labels 0 or 1 for clicks; comments are kept
//   PATH.weights    1/propensity of the document's rank, cut to `largest_weight` unless that is 0
//   PATH.positions  the rank, from 1
// PATH.list-weights has a line for each session, the number of its clicks: a loss whose targets are
// shares of the session's clicks becomes a sum over clicks by it, as inverse propensities want it.
// Returns how many lines have the weight 0, as their rank's propensity is unknown (NaN) or 0.
int64_t write_click_files(const std::string& path, const data::RankingSet& set,
                          const heads::rank::ClickLog& log, std::span<const double> propensities,
                          double largest_weight);

}  // namespace binade::examples
