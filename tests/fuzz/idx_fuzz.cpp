// Any bytes taken for an IDX file, gzipped or not: an Error or an array whose elements can be read.
#include <binade/core/error.h>
#include <binade/data/idx.h>

#include <cstddef>
#include <cstdint>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    binade::data::read_idx(binade::fuzz::file_of(data, size)).to_vector<float>();
  } catch (const binade::Error&) {
  }
  return 0;
}
