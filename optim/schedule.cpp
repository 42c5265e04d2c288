#include <binade/optim/schedule.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <binade/core/error.h>

namespace binade::optim {

Schedule::Kind Schedule::parse_kind(const std::string& text) {
  if (text == "constant") return Kind::constant;
  if (text == "linear") return Kind::linear;
  if (text == "cosine") return Kind::cosine;
  if (text == "wsd") return Kind::wsd;
  fail("unknown schedule \"", text, "\": use constant, linear, cosine or wsd");
}

double Schedule::at(int64_t step) const {
  if (step < warmup)
    return learning_rate * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double final = learning_rate * final_factor;
  // Share of the way from `begin` to the last step.
  const auto progress = [&](int64_t begin) {
    const int64_t length = std::max<int64_t>(total - 1 - begin, 1);
    return std::clamp(static_cast<double>(step - begin) / static_cast<double>(length), 0.0, 1.0);
  };
  switch (kind) {
    case Kind::constant:
      return learning_rate;
    case Kind::linear:
      return learning_rate + (final - learning_rate) * progress(warmup);
    case Kind::cosine:
      return final +
             (learning_rate - final) * (1 + std::cos(std::numbers::pi * progress(warmup))) / 2;
    case Kind::wsd: {
      const int64_t begin = std::max(total - decay, warmup);
      return step < begin ? learning_rate
                          : learning_rate + (final - learning_rate) * progress(begin);
    }
  }
  return learning_rate;
}

}  // namespace binade::optim
