#include <binade/data/ordered_prefetcher.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <binade/autograd/ops.h>
#include <binade/core/error.h>
#include <binade/core/random.h>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

// Threads of this process.
int64_t thread_count() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

// When those of earlier tests have ended: their number stays for 0.2 s.
int64_t settled_thread_count() {
  int64_t count = thread_count();
  for (int unchanged = 0; unchanged < 10; ++unchanged) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const int64_t now = thread_count();
    if (now != count) unchanged = 0;
    count = now;
  }
  return count;
}

void wait_for(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  REQUIRE(condition());
}

}  // namespace

TEST_CASE("what several threads make comes in order", "[data][ordered_prefetcher]") {
  for (const int workers : {1, 2, 5})
    for (const int ahead : {0, 1, 3})
      for (const int64_t first : {0, 41}) {
        OrderedPrefetcher<std::string> prefetcher(
            [](int64_t number) {
              // Later ones may be done first.
              if (number % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
              return std::to_string(number);
            },
            {.workers = workers, .ahead = ahead, .first = first});
        for (int64_t n = first; n < first + 30; ++n) {
          REQUIRE(prefetcher.next_number() == n);
          REQUIRE(prefetcher.next() == std::to_string(n));
        }
      }
}

TEST_CASE("random numbers do not depend on the threads", "[data][ordered_prefetcher]") {
  const auto drawn = [](int workers, uint64_t seed, int64_t first) {
    OrderedPrefetcher<std::vector<float>> prefetcher(
        [](int64_t number) {
          const Tensor x = Tensor::ones({static_cast<int64_t>(40 + number % 3)});
          return (dropout(x, 0.5, true) + dropout(x, 0.5, true)).to_vector<float>();
        },
        {.workers = workers, .first = first, .seed = seed});
    std::vector<std::vector<float>> values;
    for (int i = 0; i < 12; ++i) values.push_back(prefetcher.next());
    return values;
  };
  const auto one = drawn(1, 7, 0), four = drawn(4, 7, 0);
  CHECK(one == four);
  CHECK(one[0] != one[3]);  // of the same size
  CHECK(drawn(3, 8, 0) != one);
  CHECK(drawn(2, 7, 3)[0] == one[3]);
}

TEST_CASE("what a worker throws reaches the caller when it is due",
          "[data][ordered_prefetcher][bad_input]") {
  for (const int workers : {1, 4}) {
    std::atomic<int64_t> last = 0;
    OrderedPrefetcher<int64_t> prefetcher(
        [&](int64_t number) {
          if (number > last) last = number;
          if (number == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          if (number == 4) throw std::runtime_error("no batch four");
          return number;
        },
        {.workers = workers, .ahead = 100});
    for (int64_t n = 0; n < 4; ++n) REQUIRE(prefetcher.next() == n);
    REQUIRE_THROWS_WITH(prefetcher.next(), "no batch four");
    REQUIRE_THROWS_WITH(prefetcher.next(), "no batch four");
    CHECK(prefetcher.next_number() == 4);
    CHECK(last < 100);  // nothing is begun behind a failure
  }
}

TEST_CASE("no more is made than asked for, and ending early leaves no thread",
          "[data][ordered_prefetcher]") {
  const int64_t before = settled_thread_count();
  std::atomic<int64_t> made = 0;
  {
    OrderedPrefetcher<int64_t> prefetcher(
        [&](int64_t number) {
          ++made;
          return number;
        },
        {.workers = 3, .ahead = 5});
    CHECK(thread_count() == before + 3);
    wait_for([&] { return made == 5; });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(made == 5);
    CHECK(prefetcher.next() == 0);
    wait_for([&] { return made == 6; });
  }  // with five that nobody asked for
  wait_for([&] { return thread_count() == before; });
  CHECK(made == 6);
  {
    std::atomic<bool> begun = false;
    const OrderedPrefetcher<int64_t> slow(
        [&](int64_t number) {
          begun = true;
          std::this_thread::sleep_for(std::chrono::milliseconds(30));
          return number;
        },
        {.workers = 1});
    wait_for([&] { return begun.load(); });
  }  // waits for the one that is being made
  wait_for([&] { return thread_count() == before; });
}

TEST_CASE("a prefetcher without threads is refused", "[data][ordered_prefetcher][bad_input]") {
  const auto make = [](int64_t number) { return number; };
  CHECK_THROWS_WITH(OrderedPrefetcher<int64_t>(make, {.workers = 0}), Contains("one thread"));
  CHECK_THROWS_WITH(OrderedPrefetcher<int64_t>(make, {.ahead = -1}), Contains("ahead"));
}
