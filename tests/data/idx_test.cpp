#include <sys/stat.h>

#include <catch2/catch.hpp>

#include <binade/data/idx.h>
#include <binade/data/token_shards.h>

#include "../temporary_folder.h"

using namespace binade;
using Catch::Matchers::Contains;

TEST_CASE("IDX files are read, and what stands in their place is refused", "[data][bad_input]") {
  const test::TemporaryFolder folder;
  folder.write("two", std::string("\0\0\x08\x01\0\0\0\x02\x05\xff", 10));
  CHECK(data::read_idx(folder / "two").to_vector<uint8_t>() == std::vector<uint8_t>{5, 255});
  folder.write("more", std::string("\0\0\x08\x01\0\0\0\x02\x05\xff!", 11));
  CHECK_THROWS_WITH(data::read_idx(folder / "more"), Contains("more data than its header says"));
  folder.write("cut", std::string("\0\0\x08\x01\0\0\0\x02\x05", 9));
  CHECK_THROWS_WITH(data::read_idx(folder / "cut"), Contains("is truncated"));
  CHECK_THROWS_WITH(data::read_idx(folder.path()), Contains("it is a folder"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(data::read_idx(folder / "pipe"), Contains("it is not a regular file"));
}

TEST_CASE("a named pipe is no token shard, and is not waited for", "[data][shards]") {
  const test::TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_FALSE(data::is_token_shards(folder / "pipe"));
}
