// Learning-to-rank tables: CSV and TSV, as LightGBM and CatBoost read them.
#pragma once

#include <binade/data/letor.h>

#include <filesystem>
#include <string>
#include <vector>

namespace binade::data {

// Columns are named by the first line, or are numbers from 0. A field may stand in quotes, but must
// not contain the delimiter or a line's end.
struct RankingCsv {
  char delimiter = '\0';  // NUL: a tab, comma or semicolon, the first of these that the file has
  // Whether the first line names the columns. detect: if none of its fields is a number, "" or NA.
  enum class Header : uint8_t { detect, yes, no } header = Header::detect;
  std::string label = "0";           // its column
  std::string query;                 // its column; empty: group files have the lengths of lists
  std::vector<std::string> ignored;  // columns that are no features
};

// Reads files of the same columns, one after another, as one set. All columns that are nothing else
// are features, in their order; empty fields and NA are missing values. Options and errors are
// those of read_letor; of no use here are first_index, features and comments.
RankingSet read_ranking_csv(const std::vector<std::filesystem::path>& files, const RankingCsv& csv,
                            const LetorOptions& options = {});

}  // namespace binade::data
