#include <binade/core/error.h>
#include <binade/data/token_shards.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>

namespace binade::data {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "shards are read as they lie on disk");

constexpr std::string_view kMagic = "BinadeTk";
constexpr uint32_t kVersion = 1;
constexpr int64_t kMaxVocab = std::numeric_limits<int32_t>::max();
constexpr std::string_view kPrefix = "tokens_", kExtension = ".bin";

template <class Number>
Number load(std::span<const std::byte> bytes, size_t offset) {
  Number number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}

template <class Number>
void store(std::string& bytes, size_t offset, Number number) {
  std::memcpy(bytes.data() + offset, &number, sizeof number);
}

std::string header_bytes(const ShardHeader& header) {
  std::string bytes(ShardHeader::kBytes, '\0');
  kMagic.copy(bytes.data(), kMagic.size());
  store<uint32_t>(bytes, 8, kVersion);
  store<uint32_t>(bytes, 12, header.bytes_per_token);
  store<uint64_t>(bytes, 16, header.count);
  store<uint64_t>(bytes, 24, header.vocab_size);
  store<uint32_t>(bytes, 32, header.checksum);
  return bytes;
}

bool has_shard_name(const fs::path& path) {
  return path.filename().string().starts_with(kPrefix) && path.extension() == kExtension;
}

std::vector<fs::path> shards_in(const fs::path& folder) {
  std::vector<fs::path> shards;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (has_shard_name(entry->path())) shards.push_back(entry->path());
  }
  check(!error, "cannot list folder ", folder.string(), ": ", error.message());
  std::sort(shards.begin(), shards.end());
  return shards;
}

}  // namespace

ShardHeader parse_shard_header(std::span<const std::byte> shard, const std::string& name) {
  const auto size = static_cast<int64_t>(shard.size());
  check(size >= ShardHeader::kBytes, name, " is not a token shard: it has ", size,
        " bytes, less than a header");
  check(std::memcmp(shard.data(), kMagic.data(), kMagic.size()) == 0, name,
        " is not a token shard: it does not begin with \"", kMagic, "\"");
  const auto version = load<uint32_t>(shard, 8);
  check(version == kVersion, name, " is a token shard of version ", version,
        "; this program reads version ", kVersion);
  const auto width = load<uint32_t>(shard, 12);
  check(width == 2 || width == 4, name, ": tokens of ", width, " bytes; expected 2 or 4");
  const auto vocab_size = load<uint64_t>(shard, 24);
  check(vocab_size >= 1 && vocab_size <= kMaxVocab, name, ": a vocabulary of ", vocab_size,
        " is out of range");
  const auto count = load<uint64_t>(shard, 16);
  const auto tokens = static_cast<uint64_t>(size - ShardHeader::kBytes);
  check(count <= tokens / width && count * width == tokens, name, ": the header says ", count,
        " tokens of ", width, " bytes, but ", tokens, " bytes follow; the file is ",
        count > tokens / width ? "truncated" : "too long");
  return {.count = static_cast<int64_t>(count),
          .vocab_size = static_cast<int64_t>(vocab_size),
          .bytes_per_token = static_cast<int>(width),
          .checksum = load<uint32_t>(shard, 32)};
}

ShardWriter::ShardWriter(fs::path folder, int64_t vocab_size, int64_t tokens_per_shard)
    : folder_(std::move(folder)),
      vocab_size_(vocab_size),
      tokens_per_shard_(tokens_per_shard),
      bytes_per_token_(vocab_size <= 1 << 16 ? 2 : 4) {
  check(vocab_size >= 1 && vocab_size <= kMaxVocab, "a vocabulary of ", vocab_size,
        " is out of range");
  check(tokens_per_shard >= 1, "a shard must hold at least one token");
  std::error_code error;
  fs::create_directories(folder_, error);
  check(!error, "cannot create folder ", folder_.string(), ": ", error.message());
  check(shards_in(folder_).empty(), "the folder ", folder_.string(),
        " holds token shards already; remove them or choose another folder");
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    check(token >= 0 && token < vocab_size_, "token id ", token,
          " is out of range for a vocabulary of ", vocab_size_);
    const auto number = static_cast<uint32_t>(token);
    for (int byte = 0; byte < bytes_per_token_; ++byte) {
      payload_.push_back(static_cast<char>(number >> (8 * byte)));
    }
    if (++count_ == tokens_per_shard_) flush_shard();
  }
}

void ShardWriter::flush_shard() {
  const fs::path path = folder_ / fmt::format("{}{:05}{}", kPrefix, finished_.size(), kExtension);
  AtomicFile file(path);
  file.write(header_bytes({.count = count_,
                           .vocab_size = vocab_size_,
                           .bytes_per_token = bytes_per_token_,
                           .checksum = crc32c(payload_.data(), payload_.size())}));
  file.write(payload_);
  file.commit();
  finished_.push_back(path);
  payload_.clear();
  count_ = 0;
}

std::vector<fs::path> ShardWriter::finish() {
  if (count_ > 0 || finished_.empty()) flush_shard();
  return finished_;
}

std::vector<fs::path> list_shards(const fs::path& folder_or_file) {
  if (!fs::is_directory(folder_or_file)) return {folder_or_file};
  std::vector<fs::path> shards = shards_in(folder_or_file);
  check(!shards.empty(), "no token shards (", kPrefix, "*", kExtension, ") in ",
        folder_or_file.string());
  return shards;
}

bool is_token_shards(const fs::path& folder_or_file) {
  std::error_code error;
  if (fs::is_directory(folder_or_file, error)) return !shards_in(folder_or_file).empty();
  if (!fs::is_regular_file(folder_or_file, error))
    return false;  // a named pipe would be waited for
  std::array<char, kMagic.size()> start{};
  std::ifstream(folder_or_file, std::ios::binary).read(start.data(), start.size());
  return std::string_view(start.data(), start.size()) == kMagic;
}

ShardTokens::ShardTokens(const std::vector<fs::path>& shards, Verify verify) {
  check(!shards.empty(), "no token shards were given");
  for (const fs::path& path : shards) {
    Shard shard{path.string(), std::make_unique<MappedFile>(path), {}, size_};
    shard.header = parse_shard_header(shard.file->bytes(), shard.name);
    check(shards_.empty() || shard.header.vocab_size == vocab_size_, shard.name,
          " was made with a vocabulary of ", shard.header.vocab_size, ", but ",
          shards.front().string(), " with one of ", vocab_size_);
    vocab_size_ = shard.header.vocab_size;
    size_ += shard.header.count;
    if (verify == Verify::kEverything) this->verify(shard);
    shards_.push_back(std::move(shard));
  }
}

void ShardTokens::copy(const Shard& shard, int64_t offset, std::span<int32_t> out) const {
  const std::byte* tokens = shard.file->bytes().data() + ShardHeader::kBytes;
  uint32_t largest = 0;
  const auto convert = [&](auto token) {
    for (size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&token, tokens + (offset + i) * sizeof token, sizeof token);
      largest = std::max<uint32_t>(largest, token);
      out[i] = static_cast<int32_t>(token);
    }
  };
  shard.header.bytes_per_token == 2 ? convert(uint16_t{}) : convert(uint32_t{});
  check(largest < shard.header.vocab_size, shard.name, ": token id ", largest, " among tokens ",
        offset, " to ", offset + static_cast<int64_t>(out.size()),
        " is out of range for a vocabulary of ", shard.header.vocab_size);
}

void ShardTokens::verify(const Shard& shard) const {
  const auto payload = shard.file->bytes().subspan(ShardHeader::kBytes);
  const uint32_t checksum = crc32c(payload.data(), payload.size());
  check(checksum == shard.header.checksum, shard.name, " is damaged: its checksum is ", checksum,
        ", but the header says ", shard.header.checksum);
  std::array<int32_t, 4096> block;
  for (int64_t at = 0; at < shard.header.count; at += block.size()) {
    const auto size = std::min<int64_t>(block.size(), shard.header.count - at);
    copy(shard, at, std::span(block).first(size));
  }
}

void ShardTokens::read(int64_t first, std::span<int32_t> out) const {
  check_token_range(first, out.size(), size_);
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first,
                                [](int64_t at, const Shard& s) { return at < s.first; }) -
               1;
  for (; !out.empty(); ++shard) {
    const int64_t offset = first - shard->first;
    const auto size =
        std::min<int64_t>(static_cast<int64_t>(out.size()), shard->header.count - offset);
    copy(*shard, offset, out.first(size));
    out = out.subspan(size);
    first += size;
  }
}

}  // namespace binade::data
