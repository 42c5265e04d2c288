#include <binade/core/start_thread.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <string>

namespace binade {
namespace {

TEST_CASE("a thread gets its work and arguments", "[thread]") {
  std::atomic<int> sum = 0;
  std::thread first = start_thread([&] { sum += 1; });
  {
    const auto second = start_thread<std::jthread>(
        [&](int a, const std::string& b) { sum += a * std::stoi(b); }, 7, "6");
  }
  first.join();
  CHECK(sum == 43);
}

// What std::thread does at a limit.
struct Refused {
  template <class Work>
  explicit Refused(const Work&) {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  }
};

TEST_CASE("a thread that the system refuses is an error with a sentence", "[thread]") {
  CHECK_THROWS_WITH(
      start_thread<Refused>([] {}),
      Catch::Contains(
          "cannot start a thread: Resource temporarily unavailable; the process is at a limit"));
}

}  // namespace
}  // namespace binade
