// Compares gradients with finite differences.
#pragma once

#include <functional>
#include <string>

#include <binade/autograd/tape.h>

namespace binade {

struct GradcheckOptions {
  double step = 1e-6;
  double rtol = 1e-5;
  double atol = 1e-7;
  int64_t max_elements = 64;  // per input; beyond that, evenly spread elements are checked
};

// `function` maps f64 inputs (those that require a gradient are checked) to one tensor or several;
// a fixed random weighting makes a scalar of them. Returns an empty string, or what differs where.
std::string gradcheck(const std::function<TensorList(const TensorList&)>& function,
                      const TensorList& inputs, const GradcheckOptions& options = {});
// The same of the gradient itself (double backward).
std::string gradgradcheck(const std::function<TensorList(const TensorList&)>& function,
                          const TensorList& inputs, const GradcheckOptions& options = {});

}  // namespace binade
