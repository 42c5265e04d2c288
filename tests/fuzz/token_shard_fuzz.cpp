// Any bytes taken for a token shard: an Error or tokens of the vocabulary.
#include <binade/core/error.h>
#include <binade/data/token_shards.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace {

// A file of this process's own; shards are mapped from files.
std::filesystem::path scratch_file() {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / binade::concat("binade-shard-fuzz-", ::getpid());
  static const bool registered = [] {
    std::atexit([] { std::filesystem::remove(path); });
    return true;
  }();
  static_cast<void>(registered);
  return path;
}

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
  const std::filesystem::path file = scratch_file();
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  read_all(file, binade::data::ShardTokens::Verify::kHeaders);
  read_all(file, binade::data::ShardTokens::Verify::kEverything);
  return 0;
}
