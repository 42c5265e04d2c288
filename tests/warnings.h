// A warning that the library logs during a test fails the test, unless the test expects it:
//
//   const ExpectWarning expected("scale is stuck at its floor");
#pragma once

#include <string>
#include <vector>

namespace binade::test {

// While it lives, warnings that contain `text` are accepted. If none was logged by the end of its
// life, the test fails.
class ExpectWarning {
 public:
  explicit ExpectWarning(std::string text);
  ~ExpectWarning();
  ExpectWarning(const ExpectWarning&) = delete;
  ExpectWarning& operator=(const ExpectWarning&) = delete;

 private:
  friend void watch_warnings();

  // Offers a warning to the expectations that live; true if any of them accepts it.
  static bool accept(const std::string& warning);

  std::string text_;
  int seen_ = 0;
};

// For main.cpp: takes the library's log over, and hands out what nobody expected.
void watch_warnings();
std::vector<std::string> take_unexpected_warnings();

}  // namespace binade::test
