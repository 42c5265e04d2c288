// Exponential moving average of the masters: average ← decay·average + (1−decay)·master after every
// update that was applied.
#pragma once

#include <vector>

#include <binade/optim/optimizer.h>

namespace binade::optim {

class Ema {
 public:
  Ema(const Optimizer& optimizer, double decay);
  void update(const Array& found_inf);  // after Optimizer::update
  // The averages by parameter name.
  nn::StateDict state() const;
  void load_state(const nn::StateDict& state);
  // Exchanges masters and averages (and rewrites the compute copies): once to evaluate with the
  // averages, again to train on.
  void swap();

 private:
  const Optimizer& optimizer_;
  double decay_;
  std::vector<Array> averages_;
};

}  // namespace binade::optim
