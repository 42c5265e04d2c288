#include <binade/dist/shards.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "ranks.h"

namespace binade::test {
namespace {

// Who owns each element, by brute force: buckets of whole units, of each of which every rank has an
// equal share of whole chunks, in turn; of the last one the chunks that there are.
std::vector<int> owners(int64_t elements, int ranks, int64_t bucket, int64_t chunk) {
  while (bucket % (ranks * chunk) != 0) ++bucket;
  std::vector<int> owner;
  for (int64_t begin = 0; begin < elements; begin += bucket) {
    const int64_t size = std::min(bucket, elements - begin);
    int64_t chunks = 0;
    while (chunks * chunk < size) ++chunks;
    int64_t share = 0;
    while (share * ranks < chunks) ++share;
    for (int64_t at = 0; at < size; ++at) owner.push_back(static_cast<int>(at / (share * chunk)));
  }
  return owner;
}

struct Case {
  int64_t elements;
  int ranks;
  int64_t bucket, chunk;
};

const std::vector<Case> kCases = {{1, 1, 1, 1},    {1, 4, 1, 8},     {100, 2, 16, 8},
                                  {128, 4, 32, 8}, {129, 4, 33, 8},  {97, 3, 1, 4},
                                  {64, 2, 64, 8},  {1000, 4, 96, 8}, {1000, 4, 5000, 8}};

TEST_CASE("shards: every element has one owner, in order", "[dist]") {
  for (const Case& one : kCases) {
    CAPTURE(one.elements, one.ranks, one.bucket, one.chunk);
    const dist::Shards shards(one.elements, one.ranks, one.bucket, one.chunk);
    const std::vector<int> owner = owners(one.elements, one.ranks, one.bucket, one.chunk);
    std::vector<int64_t> before(static_cast<size_t>(one.ranks), 0);
    bool same = true;
    for (int64_t at = 0; at < one.elements; ++at) {
      for (int rank = 0; rank < one.ranks; ++rank)
        same = same && shards.owned_before(rank, at) == before[static_cast<size_t>(rank)];
      ++before[static_cast<size_t>(owner[static_cast<size_t>(at)])];
    }
    CHECK(same);
    for (int rank = 0; rank < one.ranks; ++rank)
      CHECK(shards.owned(rank) == before[static_cast<size_t>(rank)]);
    std::vector<int> by_slices(static_cast<size_t>(one.elements), -1);
    for (int64_t bucket = 0; bucket < shards.buckets(); ++bucket)
      for (int rank = 0; rank < one.ranks; ++rank)
        for (int64_t at = shards.slice(bucket, rank).begin; at < shards.slice(bucket, rank).end;
             ++at)
          by_slices[static_cast<size_t>(at)] = rank;
    CHECK(by_slices == owner);
    // Rows for chunks have the owner of their elements.
    const dist::Shards rows = shards.of_chunks();
    for (int64_t row = 0; row < rows.elements(); ++row)
      for (int rank = 0; rank < one.ranks; ++rank) {
        const bool owned = rows.owned_before(rank, row + 1) > rows.owned_before(rank, row);
        if (owned != (owner[static_cast<size_t>(row * one.chunk)] == rank)) CHECK(false);
      }
  }
}

TEST_CASE("shards: elements are taken, put back and gathered", "[dist]") {
  for (const Case& one : kCases)
    for (const int64_t width : {1, 3}) {
      CAPTURE(one.elements, one.ranks, one.bucket, one.chunk, width);
      const dist::Shards shards(one.elements, one.ranks, one.bucket, one.chunk);
      std::vector<float> values(static_cast<size_t>(one.elements * width));
      std::iota(values.begin(), values.end(), 1.0F);
      const Array whole = Array::from(values, {one.elements, width});
      const Array again = Array::zeros({one.elements, width}, DType::f32);
      const std::vector<int> owner = owners(one.elements, one.ranks, one.bucket, one.chunk);
      for (int rank = 0; rank < one.ranks; ++rank) {
        std::vector<float> expected;
        for (int64_t at = 0; at < one.elements; ++at)
          for (int64_t i = 0; i < width && owner[static_cast<size_t>(at)] == rank; ++i)
            expected.push_back(values[static_cast<size_t>(at * width + i)]);
        const Array shard = Array::zeros({shards.owned(rank), width}, DType::f32);
        shards.take(whole, rank, shard);
        CHECK(shard.to_vector<float>() == expected);
        shards.put(shard, rank, again);
      }
      CHECK(again.to_vector<float>() == values);

      if (one.ranks == 1) continue;
      const auto errors = run_ranks(one.ranks, [&](dist::World& world) {
        const Array mine = Array::zeros({one.elements, width}, DType::f32);
        const Array shard = Array::zeros({shards.owned(world.rank()), width}, DType::f32);
        shards.take(whole, world.rank(), shard);
        shards.put(shard, world.rank(), mine);
        shards.all_gather(world.communicator(), mine);
        check(mine.to_vector<float>() == values, "a rank has gathered something else");
      });
      for (const std::string& error : errors) CHECK(error == "");
    }
}

TEST_CASE("shards: buffers that do not fit are refused", "[dist]") {
  const dist::Shards shards(100, 2, 16, 8);
  const Array whole = Array::zeros({100}, DType::f32);
  CHECK_THROWS_WITH(shards.take(whole, 0, Array::zeros({7}, DType::f32)),
                    Catch::Contains("the shard of rank 0 of 100 elements has 52"));
  CHECK_THROWS_WITH(dist::Shards(0, 2, 16), Catch::Contains("a buffer of 0 elements"));
  CHECK_THROWS_WITH(dist::Shards(10, 2, 0), Catch::Contains("buckets of 0"));
}

}  // namespace
}  // namespace binade::test
