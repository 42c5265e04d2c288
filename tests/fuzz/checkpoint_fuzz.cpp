// Any bytes taken for a checkpoint. Checksums would hide the rest of the reader from random bytes,
// so an input that begins with '*' gives the values and the checksums of a file whose checksum of
// metadata is right: "*VALUES*CHECKSUMS".
#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/train/checkpoint.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "scratch_file.h"

namespace {

void write_with_checksum(const std::string& values, const std::string& checksums) {
  using namespace binade;
  const std::string both = values + checksums;
  const Array one = Array::zeros({1}, DType::f32);
  write_safetensors(fuzz::scratch_file(), {{"model.weight", one}},
                    {{"binade_checkpoint", std::to_string(train::kCheckpointFormat)},
                     {"values", values},
                     {"checksums", checksums},
                     {"metadata_checksum", std::to_string(crc32c(both.data(), both.size()))}});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade;
  try {
    if (size > 0 && data[0] == '*') {
      const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
      const size_t cut = std::min(text.find('*'), text.size());
      write_with_checksum(text.substr(0, cut), cut < text.size() ? text.substr(cut + 1) : "");
    } else {
      fuzz::file_of(data, size);
    }
    train::read_checkpoint(fuzz::scratch_file());
  } catch (const Error&) {
  }
  return 0;
}
