// Batch norm (Ioffe & Szegedy 2015) over the documents of a step's lists.
#pragma once

#include <string>

#include <binade/nn/module.h>

namespace binade::heads::rank {

inline constexpr double kNormEpsilon = 1e-5;  // of all norms in a ranker

class BatchNorm : public nn::Module {
 public:
  explicit BatchNorm(int64_t width);

  // x (N, width), half or f32 → the same; statistics are f32. While training: the batch's mean and
  // variance, which move the running ones by a tenth (the variance unbiased, as in PyTorch) unless
  // they are not finite. `documents` (N, 1) f32: 1 for rows that are documents, 0 for rows that
  // only fill a batch up, which then count nowhere; undefined: all are.
  Tensor forward(const Tensor& x, const Tensor& documents = {}) const;

 private:
  nn::ParameterPtr weight_, bias_;
  nn::BufferPtr running_mean_, running_var_;
};

// What a trained one does: (x − mean)·scale + bias, (width) f32 each. `name`: the module's in the
// state.
struct BatchNormSteps {
  Array mean, scale, bias;
};
BatchNormSteps batch_norm_steps(const nn::StateDict& state, const std::string& name);

}  // namespace binade::heads::rank
