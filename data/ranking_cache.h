// Parsed lists, kept beside their files: opening them again takes no parsing.
//
// A cache is a safetensors file: offsets, labels, features, query_id_ends, query_id_bytes and,
// where the set has them, comment_ends, comment_bytes and file_rows. Its metadata has the signature
// of what was read (names, sizes, times of change and a checksum of the ends of every file, and the
// options), the reader's notes and CRC-32C of every 4 MiB of each tensor.
#pragma once

#include <binade/data/letor.h>

#include <filesystem>
#include <vector>

namespace binade::data {

struct RankingCache {
  // How much of a cache is compared with its checksums when it is opened. quick: everything up to
  // 256 MiB; of larger ones, all but the features, and of these 256 MiB in blocks over all of it.
  enum class Verify : uint8_t { quick, everything } verify = Verify::quick;
  // Empty: beside the first file, as FILE.XXXXXXXX.ranking, where X depend on the options and on
  // the names of all files. What cannot be written there is told in a note; a file that is named
  // here must be written.
  std::filesystem::path file;
};

// As read_letor, through a cache: features and labels are read-only views of a mapped file. It is
// written where there is none, or where it belongs to other options, other content of the files or
// a damaged file; a note says which.
RankingSet read_letor_cached(const std::vector<std::filesystem::path>& files,
                             const LetorOptions& options = {}, const RankingCache& cache = {});

}  // namespace binade::data
