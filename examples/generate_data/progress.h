// What generate_data shows while it works.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include <binade/train/progress.h>

namespace binade::examples {

class GenerationProgress {
 public:
  GenerationProgress(bool quiet, int64_t before, int64_t total)
      : quiet_(quiet), before_(before), total_(total) {}

  // `ended` conversations of this run, `tokens` of all its replies so far.
  void show(int64_t ended, int64_t tokens) {
    const double now = seconds();
    if (quiet_ || now < next_) return;
    next_ = now + 0.1;
    line_.update(text(ended, tokens, now));
  }
  // The last line; seconds since the beginning.
  double end(int64_t ended, int64_t tokens) {
    const double now = seconds();
    if (!quiet_) line_.update(text(ended, tokens, now), /*last=*/true);
    return now;
  }

 private:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  std::string text(int64_t ended, int64_t tokens, double now) const {
    const auto missing = static_cast<double>(total_ - before_ - ended);
    const double left = ended > 0 ? now / static_cast<double>(ended) * missing : NAN;
    return fmt::format("{}/{} conversations  {:.0f} tok/s  left {}", before_ + ended, total_,
                       static_cast<double>(tokens) / now, train::format_duration(left));
  }

  bool quiet_;
  int64_t before_, total_;
  double next_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  train::ProgressLine line_;
};

}  // namespace binade::examples
