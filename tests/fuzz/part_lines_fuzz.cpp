// Any bytes taken for a file of samples: an Error, or samples that fit a row.
#include <binade/core/error.h>
#include <binade/data/part_lines.h>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade::data;
  const auto encode = [](std::string_view text) {
    return std::vector<int32_t>(text.begin(), text.end());
  };
  const auto as_it_is = [](const binade::Array& picture) { return picture; };
  try {
    read_part_lines(binade::fuzz::file_of(data, size), {SlotLayout{}, encode, as_it_is});
  } catch (const binade::Error&) {
  }
  return 0;
}
