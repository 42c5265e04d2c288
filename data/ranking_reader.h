// INTERNAL. Puts a set together from the lines of several files.
#pragma once

#include <binade/data/letor_lines.h>

#include <string>
#include <string_view>
#include <vector>

namespace binade::data::letor {

struct Source {
  std::string name;  // of the file, for errors; group files lie beside it
  std::string_view text;
  int64_t first_line = 1;  // the number of the text's first line in the file
};

// Reads sources one after another, as lines of LETOR, or of CSV with these columns. See read_letor.
RankingSet read_sources(std::vector<Source> sources, const LetorOptions& options,
                        const CsvColumns* csv = nullptr);

}  // namespace binade::data::letor
