// Tables of numbers in text files: CSV, TSV and their kin.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <binade/core/array.h>

namespace binade::data {

struct CsvTable {
  std::vector<std::string> names;  // of the columns; empty where the file names none
  Array values;                    // (rows, columns) f32 on the CPU; NaN where a field is missing
};

// Reads a table whose fields are numbers, with tabs, commas or semicolons between them (the first
// of these that the first line has; none: one column). A first line without a number names the
// columns. Fields may stand in quotes; empty ones, "NA" and "nan" are missing. Empty lines are left
// out. Throws Error with the line for a field that is no number or that f32 cannot hold, and for a
// line with more or fewer fields than the first; also for a file without a row, and one that cannot
// be read or has more than 1 GiB.
CsvTable read_csv(const std::filesystem::path& path);

}  // namespace binade::data
