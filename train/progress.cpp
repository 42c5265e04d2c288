#include <binade/train/progress.h>

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace binade::train {

namespace {

std::string format_count(double value) {
  if (!std::isfinite(value)) return "?";
  if (value >= 1e6) return fmt::format("{:.2f}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

// Failures are ignored: the reader may have gone away.
void show(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<int64_t>(seconds + 0.5);
  const int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest)
                   : fmt::format("{}:{:02}", minutes, rest);
}

std::string format_progress(const ProgressValues& v) {
  return fmt::format(
      "step {}/{}  loss {:.4f} ({:.4f})  {} {}/s  lr {:.2e}  norm {:.2f}  scale {:.10g}  "
      "skipped {}  left {}  peak {:.2f} GiB{}",
      v.step, v.steps, v.loss, v.smoothed, format_count(v.tokens_per_second), v.unit,
      v.learning_rate, v.grad_norm, v.scale, v.skipped, format_duration(v.seconds_left),
      static_cast<double>(v.peak_bytes) / 1073741824.0,
      v.waiting ? fmt::format("  exposed {:.2f} ms, others wait {:.2f} ms for rank {}",
                              1000 * v.waiting->least, 1000 * v.waiting->most, v.waiting->slowest)
                : "");
}

ProgressLine::ProgressLine() : terminal_(::isatty(STDOUT_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_ && terminal_) std::fputc('\n', stdout);
}

void ProgressLine::update(const std::string& text, bool last) {
  const auto now = std::chrono::steady_clock::now();
  const auto pause = std::chrono::milliseconds(terminal_ ? 100 : 5000);
  if (!last && shown_ && now - last_ < pause) return;
  last_ = now;
  shown_ = true;
  show(terminal_ ? "\r\033[K" + text : text + '\n');
}

void ProgressLine::message(const std::string& text) {
  show((terminal_ && shown_ ? "\r\033[K" : "") + text + '\n');
}

}  // namespace binade::train
