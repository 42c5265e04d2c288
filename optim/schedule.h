// Learning-rate schedules: a pure function of the schedule step.
#pragma once

#include <cstdint>
#include <string>

namespace binade::optim {

// Linear warm-up from lr/warmup to lr over `warmup` steps, then by kind:
//   constant: lr;  linear: down to final_factor·lr at `total`;
//   cosine: final + (lr − final)·(1 + cos πt)/2 (Loshchilov & Hutter 2017);
//   wsd: lr, and linearly down over the last `decay` steps (warm-up, stable, decay; Hu et al.
//   2024).
struct Schedule {
  enum class Kind : uint8_t { constant, linear, cosine, wsd };
  Kind kind = Kind::cosine;
  double learning_rate = 1e-3;
  int64_t warmup = 0;
  int64_t total = 0;        // steps in all; unused by `constant`
  int64_t decay = 0;        // steps of wsd's last phase
  double final_factor = 0;  // share of the learning rate at the end

  static Kind parse_kind(const std::string& text);  // throws Error naming the kinds
  // The rate of step `step`, counted from 0.
  double at(int64_t step) const;
};

}  // namespace binade::optim
