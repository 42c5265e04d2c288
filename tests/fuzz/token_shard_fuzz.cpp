// Any bytes taken for a token shard: an Error or tokens of the vocabulary.
#include <binade/core/error.h>
#include <binade/data/token_shards.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "scratch_file.h"

namespace {

void read_all(const std::filesystem::path& file, binade::data::ShardTokens::Verify verify) {
  try {
    const binade::data::ShardTokens tokens({file}, verify);
    std::vector<int32_t> out(tokens.size());
    tokens.read(0, out);
    for (const int32_t token : out) {
      if (token < 0 || token >= tokens.vocab_size()) std::abort();
    }
  } catch (const binade::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::filesystem::path file = binade::fuzz::file_of(data, size);
  read_all(file, binade::data::ShardTokens::Verify::kHeaders);
  read_all(file, binade::data::ShardTokens::Verify::kEverything);
  return 0;
}
