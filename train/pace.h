// INTERNAL. How fast a run is.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>

namespace binade::train {

// Throughput, without the time that went into validation and checkpoints. Reports arrive in
// bursts, so the recent pace is that of a window of steps.
class Pace {
 public:
  int64_t tokens_per_step = 0;

  void start() { last_ = Clock::now(); }
  void tick() {
    const auto now = Clock::now();
    training_ += std::chrono::duration<double>(now - last_).count();
    last_ = now;
    // The first steps choose algorithms and are captured; they would spoil the mean for long.
    if (++ticks_ < kFirstCounted) return;
    if (ticks_ == kFirstCounted) first_ = training_;
    window_.push_back(training_);
    if (window_.size() > kWindow) window_.pop_front();
  }
  // Tokens a second; NaN while too few steps were counted to tell.
  double recent() const {
    return rate(static_cast<int64_t>(window_.size()) - 1,
                window_.empty() ? 0 : window_.back() - window_.front());
  }
  double mean() const { return rate(ticks_ - kFirstCounted, training_ - first_); }
  double seconds_for(int64_t steps) const {
    return static_cast<double>(steps * tokens_per_step) / recent();
  }

 private:
  static constexpr int64_t kFirstCounted = 4;
  static constexpr size_t kWindow = 24;

  using Clock = std::chrono::steady_clock;
  double rate(int64_t steps, double seconds) const {
    return steps > 0 && seconds > 0 ? static_cast<double>(steps * tokens_per_step) / seconds
                                    : std::numeric_limits<double>::quiet_NaN();
  }

  Clock::time_point last_ = Clock::now();
  int64_t ticks_ = 0;
  double training_ = 0, first_ = 0;  // seconds
  std::deque<double> window_;        // `training_` at the last ticks
};

}  // namespace binade::train
