#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/data/token_shards.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

namespace {

std::string content_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Ids read_all(const TokenSource& tokens) {
  Ids out(tokens.size());
  tokens.read(0, out);
  return out;
}

Ids numbers(int32_t count, int32_t step) {
  Ids out(count);
  for (int32_t i = 0; i < count; ++i) out[i] = i * step;
  return out;
}

}  // namespace

TEST_CASE("shards give back what was written", "[data][shards]") {
  for (const int64_t vocab_size : {65536, 65537}) {
    const TemporaryFolder folder;
    const Ids tokens = numbers(1000, 65);
    ShardWriter writer(folder.path() / "shards", vocab_size, 300);
    writer.append(std::span(tokens).first(450));
    writer.append(std::span(tokens).subspan(450));
    const auto shards = writer.finish();
    REQUIRE(shards.size() == 4);
    REQUIRE(list_shards(folder.path() / "shards") == shards);
    REQUIRE(is_token_shards(folder.path() / "shards"));
    REQUIRE(is_token_shards(shards[0]));
    REQUIRE(std::filesystem::file_size(shards[0]) == 64 + 300 * (vocab_size == 65536 ? 2 : 4));
    const ShardTokens source(shards);
    REQUIRE(source.vocab_size() == vocab_size);
    REQUIRE(read_all(source) == tokens);
    // Windows that lie in one shard, in two and in three.
    for (const auto& [first, count] : {std::pair(0, 10), std::pair(295, 10), std::pair(250, 400),
                                       std::pair(999, 1), std::pair(1000, 0)}) {
      Ids window(count);
      source.read(first, window);
      REQUIRE(std::equal(window.begin(), window.end(), tokens.begin() + first));
    }
    Ids window(2);
    REQUIRE_THROWS_WITH(source.read(999, window), Contains("out of range"));
    REQUIRE_THROWS_WITH(source.read(-1, window), Contains("out of range"));
  }
}

TEST_CASE("the header is as documented", "[data][shards]") {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), 1000);
  writer.append(Ids{1, 999});
  const std::string bytes = content_of(writer.finish().at(0));
  REQUIRE(bytes.size() == 68);
  REQUIRE(bytes.substr(0, 8) == "BinadeTk");
  REQUIRE(bytes.substr(8, 8) == std::string("\1\0\0\0\2\0\0\0", 8));
  REQUIRE(bytes.substr(16, 8) == std::string("\2\0\0\0\0\0\0\0", 8));
  REQUIRE(bytes.substr(24, 8) == std::string("\xE8\3\0\0\0\0\0\0", 8));
  REQUIRE(bytes.substr(36, 28) == std::string(28, '\0'));
  REQUIRE(bytes.substr(64) == std::string("\1\0\xE7\3", 4));
  // CRC-32C of the payload, bit by bit from its definition (polynomial 0x1EDC6F41, reflected).
  uint32_t crc = ~0u;
  for (const char c : bytes.substr(64)) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
  }
  uint32_t stored = 0;
  std::memcpy(&stored, bytes.data() + 32, 4);
  REQUIRE(stored == ~crc);
}

TEST_CASE("a damaged shard is refused", "[data][shards][bad_input]") {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path() / "good", 1000);
  writer.append(numbers(100, 9));
  const std::string good = content_of(writer.finish().at(0));
  const auto refuse = [&](std::string bytes, const auto& message) {
    const auto file = folder.write("bad.bin", bytes);
    CHECK_THROWS_AS(ShardTokens({file}), Error);
    CHECK_THROWS_WITH(ShardTokens({file}), Contains("bad.bin") && Contains(message));
  };
  const auto with = [&](size_t offset, auto number) {
    std::string bytes = good;
    std::memcpy(bytes.data() + offset, &number, sizeof number);
    return bytes;
  };
  refuse("", "less than a header");
  refuse(good.substr(0, 63), "less than a header");
  refuse(good.substr(0, good.size() - 1), "truncated");
  refuse(good.substr(0, 64), "truncated");
  refuse(good + "x", "too long");
  refuse(with(0, 'X'), "does not begin with \"BinadeTk\"");
  refuse(with(8, uint32_t{2}), "version 2");
  refuse(with(12, uint32_t{3}), "tokens of 3 bytes");
  refuse(with(16, ~uint64_t{0}), "truncated");
  refuse(with(16, (uint64_t{1} << 63) + 100), "truncated");  // count * 2 wraps around to 200
  refuse(with(24, uint64_t{0}), "vocabulary of 0");
  refuse(with(24, uint64_t{1} << 40), "is out of range");
  refuse(with(24, uint64_t{500}), "token id 891 among tokens");
  refuse(with(70, 'x'), "damaged: its checksum");
  CHECK_THROWS_WITH(ShardTokens({folder.path() / "absent.bin"}), Contains("absent.bin"));
  CHECK_THROWS_WITH(ShardTokens({}), Contains("no token shards"));

  // Without a full check at the start, a bad token is found when it is read.
  const auto file = folder.write("bad.bin", with(24, uint64_t{500}));
  const ShardTokens lazy({file}, ShardTokens::Verify::kHeaders);
  Ids window(10);
  lazy.read(0, window);
  CHECK_THROWS_WITH(lazy.read(50, window), Contains("among tokens 50 to 60"));
}

TEST_CASE("shards of different vocabularies do not mix", "[data][shards][bad_input]") {
  const TemporaryFolder folder;
  std::vector<std::filesystem::path> shards;
  for (const int vocab_size : {100, 200}) {
    ShardWriter writer(folder.path() / std::to_string(vocab_size), vocab_size);
    writer.append(Ids{1, 2, 3});
    shards.push_back(writer.finish().at(0));
  }
  REQUIRE_THROWS_WITH(ShardTokens(shards), Contains("vocabulary of 200") && Contains("one of 100"));
}

TEST_CASE("a shard writer refuses what it cannot hold", "[data][shards][bad_input]") {
  const TemporaryFolder folder;
  {
    ShardWriter writer(folder.path(), 100);
    REQUIRE_THROWS_WITH(writer.append(Ids{100}), Contains("token id 100 is out of range"));
    REQUIRE_THROWS_WITH(writer.append(Ids{-1}), Contains("-1"));
    writer.append(Ids{1});
    // Not finished: nothing is left behind.
  }
  REQUIRE(std::filesystem::is_empty(folder.path()));
  REQUIRE_FALSE(is_token_shards(folder.path()));
  REQUIRE_THROWS_WITH(list_shards(folder.path()), Contains("no token shards"));
  ShardWriter(folder.path(), 100).finish();
  REQUIRE_THROWS_WITH(ShardWriter(folder.path(), 100), Contains("holds token shards already"));
  REQUIRE_THROWS_WITH(ShardWriter(folder.path() / "x", 0), Contains("vocabulary of 0"));
  REQUIRE_THROWS_WITH(MemoryTokens({0, 5}, 5), Contains("token 1 has id 5"));
}
