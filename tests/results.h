// What became of each test: the counts, the reasons for skips, the slowest tests. main.cpp feeds it
// from Catch2's events; scripts/test.sh reads the line that print() ends with.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace binade::test {

class Results {
 public:
  static Results& get();

  void test_started();
  void note_skip(const std::string& reason);
  void note_failure(const std::string& what);  // of an assertion: where, and what was found
  void test_ended(const std::string& name, bool failed, bool asserted_anything);

  // The slowest tests, the skips with their reasons, the failed tests with their first assertions,
  // and the line "N passed, N failed, N skipped".
  void print();

 private:
  struct Test {
    std::string name;
    double seconds;
  };
  struct Skip {
    std::string test;
    std::string reason;
  };
  struct Failure {
    std::string test;
    std::vector<std::string> assertions;
  };

  std::chrono::steady_clock::time_point start_;
  // Of the running test.
  std::vector<std::string> reasons_;
  std::vector<std::string> assertions_;
  std::vector<Test> tests_;
  std::vector<Skip> skips_;
  std::vector<Failure> failures_;
  int passed_ = 0;
  int failed_ = 0;
  int skipped_ = 0;
};

}  // namespace binade::test
