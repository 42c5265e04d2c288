#include <binade/core/error.h>
#include <binade/data/prefetcher.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <thread>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

void fill_with_number(int64_t number, std::span<int32_t> inputs, std::span<int32_t> targets) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] = static_cast<int32_t>(number * 100 + static_cast<int64_t>(i));
    targets[i] = inputs[i] + 1;
  }
}

void require_batch(const Batch& batch, int64_t number) {
  REQUIRE(batch.number == number);
  REQUIRE(batch.tokens == 8);
  for (int i = 0; i < 8; ++i) {
    REQUIRE(batch.inputs[i] == number * 100 + i);
    REQUIRE(batch.targets[i] == number * 100 + i + 1);
  }
}

}  // namespace

TEST_CASE("batches come in order, from any first one", "[data][prefetcher]") {
  for (const int depth : {1, 2, 5}) {
    for (const int64_t first : {0, 41}) {
      Prefetcher prefetcher(fill_with_number, 8, {.depth = depth, .first_batch = first});
      for (int64_t n = first; n < first + 50; ++n) {
        REQUIRE(prefetcher.next_batch() == n);
        require_batch(*prefetcher.next(), n);
      }
      REQUIRE(prefetcher.next_batch() == first + 50);
    }
  }
}

TEST_CASE("a batch keeps its buffers while it is held", "[data][prefetcher]") {
  std::shared_ptr<const Batch> kept;
  {
    Prefetcher prefetcher(fill_with_number, 8, {.depth = 3});
    kept = prefetcher.next();
    std::mt19937 random(3);
    std::shared_ptr<const Batch> other;
    for (int64_t n = 1; n < 100; ++n) {
      other = prefetcher.next();
      if (random() % 4 == 0) std::this_thread::yield();
      require_batch(*other, n);
      require_batch(*kept, 0);
    }
  }
  require_batch(*kept, 0);  // even when the prefetcher is gone
}

TEST_CASE("keeping every batch is refused instead of waiting forever",
          "[data][prefetcher][bad_input]") {
  Prefetcher prefetcher(fill_with_number, 8, {.depth = 2});
  auto a = prefetcher.next(), b = prefetcher.next();
  REQUIRE_THROWS_WITH(prefetcher.next(), Contains("all 2 batches"));
  a.reset();
  require_batch(*prefetcher.next(), 2);
}

TEST_CASE("what filling throws is thrown when its batch is due", "[data][prefetcher][bad_input]") {
  Prefetcher prefetcher(
      [](int64_t number, std::span<int32_t> inputs, std::span<int32_t> targets) {
        check(number != 4, "no batch four");
        fill_with_number(number, inputs, targets);
      },
      8, {.depth = 3});
  for (int64_t n = 0; n < 4; ++n) require_batch(*prefetcher.next(), n);
  REQUIRE_THROWS_WITH(prefetcher.next(), "no batch four");
  REQUIRE_THROWS_WITH(prefetcher.next(), "no batch four");
  REQUIRE(prefetcher.next_batch() == 4);
}

TEST_CASE("no more batches are made than the depth allows", "[data][prefetcher]") {
  std::atomic<int64_t> made = 0;
  {
    Prefetcher prefetcher(
        [&](int64_t number, auto inputs, auto targets) {
          fill_with_number(number, inputs, targets);
          ++made;
        },
        8, {.depth = 3});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (made < 3 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    REQUIRE(made == 3);
  }  // stops without anyone having asked for a batch
  REQUIRE(made == 3);
}

TEST_CASE("buffers come from the caller if wanted", "[data][prefetcher]") {
  int given = 0, freed = 0;
  {
    std::shared_ptr<const Batch> kept;
    Prefetcher prefetcher(fill_with_number, 8, {.depth = 2, .allocate = [&](int64_t count) {
                                                  ++given;
                                                  CHECK(count == 8);
                                                  return std::shared_ptr<int32_t[]>(
                                                      new int32_t[count], [&](int32_t* p) {
                                                        ++freed;
                                                        delete[] p;
                                                      });
                                                }});
    CHECK(given == 4);
    kept = prefetcher.next();
    require_batch(*kept, 0);
    CHECK(freed == 0);
  }
  CHECK(given == 4);
  CHECK(freed == 4);
}

TEST_CASE("a prefetcher of nothing is refused", "[data][prefetcher][bad_input]") {
  CHECK_THROWS_WITH(Prefetcher(fill_with_number, 8, {.depth = 0}), Contains("at least one batch"));
  CHECK_THROWS_WITH(Prefetcher(fill_with_number, 0), Contains("at least one token"));
}
