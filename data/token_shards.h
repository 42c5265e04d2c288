// Tokens on disk, prepared once and read in every run without loading them.
//
// A shard is a header of 64 bytes and the tokens, all little-endian:
//   offset  0  magic "BinadeTk"
//           8  u32  version, 1
//          12  u32  bytes per token: 2 (u16) or 4 (u32)
//          16  u64  number of tokens
//          24  u64  vocabulary size; every token is less
//          32  u32  CRC-32C of the tokens' bytes
//          36  zeros
//          64  tokens
#pragma once

#include <binade/core/file.h>
#include <binade/data/token_source.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace binade::data {

struct ShardHeader {
  static constexpr int64_t kBytes = 64;
  int64_t count = 0;
  int64_t vocab_size = 0;
  int bytes_per_token = 2;
  uint32_t checksum = 0;
};

// Reads and checks the header of a shard that lies in memory. Error, naming the shard by `name`,
// for a wrong magic or version, nonsensical values, or a size other than the header says (truncated
// or too long).
ShardHeader parse_shard_header(std::span<const std::byte> shard, const std::string& name);

// Writes a row of shards: folder/tokens_00000.bin and so on. A shard appears under its name when it
// is complete; Error, and no half shard, when the disk is full.
class ShardWriter {
 public:
  static constexpr int64_t kDefaultTokensPerShard = int64_t{1} << 26;

  // u16 tokens when the vocabulary allows it. Error when the folder holds shards already.
  ShardWriter(std::filesystem::path folder, int64_t vocab_size,
              int64_t tokens_per_shard = kDefaultTokensPerShard);
  ~ShardWriter();

  // Error when a token is not in the vocabulary.
  void append(std::span<const int32_t> tokens);

  // Completes the last shard and returns all of them. What was appended is lost without it.
  std::vector<std::filesystem::path> finish();

 private:
  void flush_shard();

  std::filesystem::path folder_;
  int64_t vocab_size_, tokens_per_shard_;
  int bytes_per_token_;
  int64_t count_ = 0;    // tokens in the open shard
  std::string payload_;  // their bytes
  std::vector<std::filesystem::path> finished_;
};

// The shards of a folder, or one file, in order of their names. Error when there are none.
std::vector<std::filesystem::path> list_shards(const std::filesystem::path& folder_or_file);

// Whether list_shards would find any: a folder with shards or a file that begins with the magic.
bool is_token_shards(const std::filesystem::path& folder_or_file);

// Several shards as one row of tokens, mapped into memory.
class ShardTokens : public TokenSource {
 public:
  enum class Verify { kHeaders, kEverything };

  // Error for a shard that is damaged, or shards of different vocabularies. Headers and sizes are
  // checked always; checksums and token ids if all is to be verified, which reads every byte once.
  explicit ShardTokens(const std::vector<std::filesystem::path>& shards,
                       Verify verify = Verify::kEverything);

  int64_t size() const override { return size_; }
  int64_t vocab_size() const override { return vocab_size_; }
  // Error also when a token that is read is not in the vocabulary.
  void read(int64_t first, std::span<int32_t> out) const override;

 private:
  struct Shard {
    std::string name;
    std::unique_ptr<MappedFile> file;
    ShardHeader header;
    int64_t first = 0;  // place of its first token in the row
  };
  void copy(const Shard& shard, int64_t offset, std::span<int32_t> out) const;
  void verify(const Shard& shard) const;

  std::vector<Shard> shards_;
  int64_t size_ = 0;
  int64_t vocab_size_ = 0;
};

}  // namespace binade::data
