#include <binade/autograd/gradcheck.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <binade/core/random.h>

namespace binade {

namespace {

using Function = std::function<TensorList(const TensorList&)>;

bool is_checked(const Tensor& input) {
  return input.defined() && input.requires_grad();
}

// Fresh leaves with the inputs' values, so that nobody's gradients are touched.
TensorList leaves_of(const TensorList& inputs) {
  TensorList leaves;
  for (const Tensor& input : inputs) {
    if (is_checked(input))
      check(input.dtype() == DType::f64,
            "gradcheck: inputs that require a gradient must be f64, "
            "got ",
            input.dtype());
    leaves.push_back(is_checked(input) ? Tensor(input.array().clone(), true) : input);
  }
  return leaves;
}

// The weights, in [½, 1½) so that none vanishes, with which output number `output` enters the
// scalar that is differentiated.
std::vector<double> weights_of(size_t output, int64_t count) {
  std::vector<double> weights(static_cast<size_t>(count));
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = 0.5 + uniform_of(philox(20180213, 0, output, i).word[0]);
  return weights;
}

TensorList seeds_of(const TensorList& outputs) {
  TensorList seeds;
  for (size_t k = 0; k < outputs.size(); ++k) {
    const Tensor& output = outputs[k];
    seeds.push_back(Tensor::from(weights_of(k, output.numel()), output.shape(), output.device()));
  }
  return seeds;
}

// Outputs that depend on the inputs, in order.
TensorList differentiable(const TensorList& outputs) {
  TensorList chosen;
  std::copy_if(outputs.begin(), outputs.end(), std::back_inserter(chosen),
               [](const Tensor& output) { return output.defined() && output.requires_grad(); });
  return chosen;
}

double weighted_sum(const Function& function, const TensorList& inputs) {
  const TensorList outputs = differentiable(function(inputs));
  double total = 0;
  for (size_t k = 0; k < outputs.size(); ++k) {
    const std::vector<double> values = outputs[k].to_vector<double>();
    const std::vector<double> weights = weights_of(k, outputs[k].numel());
    for (size_t i = 0; i < values.size(); ++i) total += weights[i] * values[i];
  }
  return total;
}

// The weighted sum with one element of one input moved by `delta`.
double moved(const Function& function, const TensorList& inputs, size_t input, size_t element,
             double delta) {
  TensorList leaves = leaves_of(inputs);
  leaves[input].array().data<double>()[element] += delta;
  return weighted_sum(function, leaves);
}

}  // namespace

std::string gradcheck(const Function& function, const TensorList& inputs,
                      const GradcheckOptions& options) {
  check(std::any_of(inputs.begin(), inputs.end(), is_checked),
        "gradcheck: no input requires a gradient");
  const EnableGrad on;
  const TensorList leaves = leaves_of(inputs);
  const TensorList outputs = differentiable(function(leaves));
  if (outputs.empty()) return "no output depends on an input that requires a gradient";
  TensorList checked;
  std::copy_if(leaves.begin(), leaves.end(), std::back_inserter(checked), is_checked);
  const TensorList gradients = grad(outputs, checked, seeds_of(outputs));

  for (size_t input = 0, next = 0; input < inputs.size(); ++input) {
    if (!is_checked(inputs[input])) continue;
    const Tensor& gradient = gradients[next++];
    const int64_t count = inputs[input].numel();
    std::vector<double> analytic(static_cast<size_t>(count), 0.0);  // not reached: zero
    if (gradient.defined()) {
      if (!(gradient.shape() == inputs[input].shape()) || gradient.dtype() != DType::f64)
        return concat("input ", input, ": gradient of ", gradient.shape(), ' ', gradient.dtype(),
                      " for an input of ", inputs[input].shape(), " f64");
      analytic = gradient.to_vector<double>();
    }
    const int64_t steps = std::min(count, options.max_elements);
    for (int64_t i = 0; i < steps; ++i) {
      const auto element = static_cast<size_t>(i * count / steps);
      const double above = moved(function, inputs, input, element, options.step);
      const double below = moved(function, inputs, input, element, -options.step);
      const double numeric = (above - below) / (2 * options.step);
      const double difference = std::abs(numeric - analytic[element]);
      if (!(difference <= options.atol + options.rtol * std::abs(numeric)))
        return concat("input ", input, ", element ", element, ": gradient ", analytic[element],
                      ", finite difference ", numeric);
    }
  }
  return "";
}

std::string gradgradcheck(const Function& function, const TensorList& inputs,
                          const GradcheckOptions& options) {
  // The gradient as a function of the inputs and of the seeds.
  const size_t count = inputs.size();
  TensorList arguments = inputs;
  {
    const EnableGrad on;
    for (const Tensor& seed : seeds_of(differentiable(function(leaves_of(inputs)))))
      arguments.emplace_back(seed.array(), true);
  }
  const Function gradient = [&function, count](const TensorList& arguments) {
    const TensorList inputs(arguments.begin(), arguments.begin() + static_cast<long>(count));
    const TensorList seeds(arguments.begin() + static_cast<long>(count), arguments.end());
    TensorList checked;
    std::copy_if(inputs.begin(), inputs.end(), std::back_inserter(checked), is_checked);
    return grad(differentiable(function(inputs)), checked, seeds, {.create_graph = true});
  };
  return gradcheck(gradient, arguments, options);
}

}  // namespace binade
