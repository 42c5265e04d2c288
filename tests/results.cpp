#include "results.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace binade::test {

Results& Results::get() {
  static Results results;
  return results;
}

void Results::test_started() {
  start_ = std::chrono::steady_clock::now();
  reasons_.clear();
  assertions_.clear();
}

void Results::note_skip(const std::string& reason) {
  reasons_.push_back(reason);
}

void Results::note_failure(const std::string& what) {
  constexpr size_t kMostShown = 3;
  if (assertions_.size() < kMostShown) assertions_.push_back(what);
}

void Results::test_ended(const std::string& name, bool failed, bool asserted_anything) {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  tests_.push_back({name, elapsed.count()});
  const bool skipped_whole = !reasons_.empty() && !asserted_anything;
  for (const std::string& reason : reasons_)
    skips_.push_back({skipped_whole ? name : name + " (in part)", reason});
  if (failed) failures_.push_back({name, assertions_});
  ++(failed ? failed_ : skipped_whole ? skipped_ : passed_);
}

void Results::print() {
  constexpr size_t kSlowestShown = 10;
  constexpr double kWorthShowing = 0.1;  // seconds
  std::stable_sort(tests_.begin(), tests_.end(),
                   [](const Test& a, const Test& b) { return a.seconds > b.seconds; });
  tests_.resize(std::min(tests_.size(), kSlowestShown));
  if (!tests_.empty() && tests_.front().seconds >= kWorthShowing) fmt::print("\nslowest tests:\n");
  for (const Test& test : tests_)
    if (test.seconds >= kWorthShowing) fmt::print("{:8.2f} s  {}\n", test.seconds, test.name);

  if (!skips_.empty()) fmt::print("\nskipped:\n");
  for (const Skip& skip : skips_) fmt::print("  {}: {}\n", skip.test, skip.reason);

  if (!failures_.empty()) fmt::print("\nfailed:\n");
  for (const Failure& failure : failures_) {
    fmt::print("  {}\n", failure.test);
    for (const std::string& assertion : failure.assertions) fmt::print("    {}\n", assertion);
  }

  fmt::print("\n{} passed, {} failed, {} skipped\n", passed_, failed_, skipped_);
  std::fflush(stdout);
}

}  // namespace binade::test
