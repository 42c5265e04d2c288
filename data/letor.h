// Learning-to-rank files: lines of SVMlight and LETOR, and LightGBM's group files.
//
// A line is `label qid:ID index:value … # comment`, with spaces or tabs between, and LF or CRLF at
// its end. Features that a line does not name are 0. Blank lines and lines of comment alone count
// as lines, not as documents. Values are read as f64 and rounded to f32; nothing is scaled: raw
// values as 1e8 pass the range of f16 (data/feature_scaling.h).
#pragma once

#include <binade/data/ranking_set.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data {

struct LetorOptions {
  // The number of the first feature. detect: 0 if any line has a feature 0, else 1; a note says
  // which. Sparse files of one data set should be read with the first file's answer (like()).
  enum class FirstIndex : uint8_t { detect, zero, one } first_index = FirstIndex::detect;
  // How many there are. 0: as many as the largest index says, which must be the same in all files.
  int64_t features = 0;
  // Lines of one query that are apart: an error that names both lines, or they are brought together
  // at the place of the query's first line, in the order of the files.
  bool group_by_qid = false;
  bool comments = false;  // keep what stands behind '#'
  // Values `NULL` (MQ2007-agg) and `nan`: an error, 0, or the smallest value that the feature has
  // in the query (LETOR 4.0's "MIN" version; 0 if it has none).
  enum class Missing : uint8_t { refuse, zero, query_min } missing = Missing::refuse;
  // Values outside of f32, as Istella's 1.797e308, and infinities: an error, the same as missing,
  // or the nearest end of f32, ±3.4e38.
  enum class OutOfRange : uint8_t { refuse, missing, clamp } out_of_range = OutOfRange::refuse;
  double largest_label = 31;  // 2^label − 1 is a gain; larger labels are an error
  // Documents of each query, a number a line (LightGBM's .query, XGBoost's .group), one file for
  // each file of lines: for lines without qid. Empty: FILE.query or FILE.group where lines have
  // no qid. The queries are then called 1, 2, ….
  std::vector<std::filesystem::path> group_files;
  int64_t largest_bytes = int64_t{1} << 37;  // of all features as f32; more is an error
  int threads = 0;                           // 0: as many as the machine runs at once

  // The options under which further files have the columns of `set`.
  LetorOptions like(const RankingSet& set) const;
};

// Reads files, one after another, as one set. Every Error names file, line and column (in bytes,
// from 1), what stands there and what was expected: a label that is no number, negative or too
// large; a feature index that is no number, too large, or not larger than the one before; what is
// no value; a query id that is missing; a query in two places; files with different numbers of
// features; no document at all. Which error is told does not depend on the number of threads: the
// first.
RankingSet read_letor(const std::vector<std::filesystem::path>& files,
                      const LetorOptions& options = {});

// The same for text in memory; errors call it `name`.
RankingSet parse_letor(std::string_view text, const std::string& name,
                       const LetorOptions& options = {});

}  // namespace binade::data
