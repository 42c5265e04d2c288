// Any bytes taken for lines of LETOR: an Error, or a set whose parts fit each other. One thread and
// several say the same.
#include <binade/core/error.h>
#include <binade/data/letor.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

using namespace binade::data;

// What came of it, in words.
std::string outcome(std::string_view text, const LetorOptions& options) {
  try {
    const RankingSet set = parse_letor(text, "lines", options);
    set.check_shapes("lines");
    for (const float label : set.label_span())
      if (!(label >= 0 && label <= 31)) std::abort();
    for (const float value : set.feature_span())
      if (!std::isfinite(value)) std::abort();
    for (int64_t i = 0; i < set.comments.size(); ++i) document_name(set.comments[i]);
    return std::to_string(set.documents()) + ' ' + std::to_string(set.queries());
  } catch (const binade::Error& error) {
    return error.what();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  LetorOptions strict;
  strict.largest_bytes = 1 << 24;
  LetorOptions lenient = strict;
  lenient.group_by_qid = lenient.comments = true;
  lenient.missing = LetorOptions::Missing::query_min;
  lenient.out_of_range = LetorOptions::OutOfRange::missing;
  for (LetorOptions options : {strict, lenient}) {
    options.threads = 1;
    const std::string one = outcome(text, options);
    options.threads = 3;
    if (outcome(text, options) != one) std::abort();
  }
  return 0;
}
