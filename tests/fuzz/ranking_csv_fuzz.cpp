// Any bytes taken for a table of ranked lists: an Error, or a set whose parts fit each other.
#include <binade/core/error.h>
#include <binade/data/ranking_csv.h>

#include <cstddef>
#include <cstdint>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::data;
  RankingCsv csv;
  csv.label = "y";
  csv.query = "1";
  LetorOptions options;
  options.threads = 1;
  options.largest_bytes = 1 << 24;
  options.group_by_qid = true;
  options.missing = LetorOptions::Missing::zero;
  options.out_of_range = LetorOptions::OutOfRange::clamp;
  const auto& file = binade::fuzz::file_of(data, size);
  for (const char* label : {"y", "0"}) {
    csv.label = label;
    try {
      read_ranking_csv({file}, csv, options).check_shapes("the table");
    } catch (const binade::Error&) {
    }
  }
  return 0;
}
