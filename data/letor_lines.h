// INTERNAL. Lines of LETOR and CSV files become rows of numbers.
#pragma once

#include <binade/data/letor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data::letor {

// What the columns of a CSV file are.
struct CsvColumns {
  static constexpr int64_t kLabel = -1, kQuery = -2, kIgnored = -3;
  char delimiter = ',';
  std::vector<int64_t> roles;  // of every column: one of these, or the place of a feature
};

// Where a line's numbers go. What is not known is assumed, and the result says whether it held.
struct Layout {
  int first_index = 1;
  bool first_index_known = false;
  int64_t width = 0;  // features of a row
  bool width_known = false;
  bool query_ids = true;            // whether lines have them
  const CsvColumns* csv = nullptr;  // null: lines of LETOR
};

// Lines that follow each other and belong to one query.
struct Run {
  std::string_view id;
  int64_t line = 0;  // the first one, counted from 1 in the file
  int64_t rows = 0;
};

struct Problem {
  int64_t line = 0, column = 0;  // from 1
  std::string text;
};

// What a block of lines holds.
struct Block {
  int64_t rows = 0;
  std::vector<Run> runs;
  std::vector<std::string_view> comments;                  // of each row, if asked for
  int64_t smallest_index = INT64_MAX, largest_index = -1;  // as the lines number them
  int64_t missing = 0;                                     // values that are left as NaN
  int64_t out_of_range = 0;                                // beyond f32, whatever became of them
  double largest = 0;                                      // magnitude of a value
  std::optional<Problem> problem;                          // the first one, at which reading ended
};

// Parses whole lines, the last of which ends with '\n', too. Features and labels have room for a
// row a line; rows follow each other without gaps. A feature outside of an assumed layout is only
// noted in smallest_index and largest_index.
Block parse_lines(std::string_view lines, int64_t first_line, const Layout& layout,
                  const LetorOptions& options, float* features, float* labels);

// Whether the first line with a document has a query id.
bool has_query_ids(std::string_view text);

}  // namespace binade::data::letor
