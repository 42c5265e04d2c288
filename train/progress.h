// The one line that is shown while a run goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include <binade/train/step.h>

namespace binade::train {

struct ProgressValues {
  int64_t step = 0, steps = 0;
  double loss = 0, smoothed = 0;
  double tokens_per_second = 0;  // NaN, here and below: not known yet
  std::string unit = "tok";
  double learning_rate = 0;
  double grad_norm = 0;
  double scale = 1;
  int64_t skipped = 0;
  double seconds_left = 0;
  int64_t peak_bytes = 0;
  std::optional<Waiting> waiting = {};
};

// "step 120/1000  loss 2.3141 (2.4010)  41.2k tok/s  lr 3.00e-04  norm 1.21  scale 65536  skipped 1
// left 1:32  peak 1.91 GiB", and "exposed 1.25 ms, others wait 2.50 ms for rank 1" where it was
// measured.
std::string format_progress(const ProgressValues& values);
std::string format_duration(double seconds);  // "1:32", "2:05:11"

// On a terminal the line is rewritten in place, at most ten times a second; elsewhere a line is
// printed every few seconds. A standard output that cannot be written to is no reason to end a run.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  void update(const std::string& text, bool last = false);
  // Prints a line of its own above the progress line.
  void message(const std::string& text);

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace binade::train
