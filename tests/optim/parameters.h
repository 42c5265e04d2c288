// Parameters with given values and given gradients, for tests of what is done with them.
#pragma once

#include <string>
#include <vector>

#include <binade/nn/module.h>
#include <binade/optim/flat_group.h>

namespace binade::test {

// A module that is nothing but its parameters.
class Parameters : public nn::Module {
 public:
  template <class T>
  nn::ParameterPtr put(const std::string& name, const std::vector<T>& values, const Shape& shape,
                       bool keep_full_precision = false) {
    return add_parameter(name, Array::from(values, shape), keep_full_precision);
  }
  void tie(const std::string& name, const nn::ParameterPtr& parameter) {
    share_parameter(name, parameter);
  }
  // Everything in one group.
  std::vector<optim::ParameterGroup> group(double weight_decay = 0) const {
    return {{named_parameters(), 1, weight_decay}};
  }
};

// Adds `values` to the parameter's gradient, as a backward pass would.
template <class T>
void give_gradient(const nn::ParameterPtr& parameter, const std::vector<T>& values) {
  const Tensor& tensor = parameter->tensor();
  const Array gradient = Array::from(values, tensor.shape(), tensor.device()).to(tensor.dtype());
  tensor.backward(Tensor(gradient));
}

}  // namespace binade::test
