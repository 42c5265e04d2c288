#include <binade/nn/linear.h>

#include <algorithm>

#include <binade/autograd/ops/shape.h>

namespace binade::nn {

Tensor forward_joint(const Tensor& x, std::initializer_list<const Linear*> layers) {
  TensorList weights, biases, outputs;
  for (const Linear* layer : layers) {
    weights.push_back(layer->weight()->tensor());
    if (layer->bias()) biases.push_back(layer->bias()->tensor());
  }
  const bool adapted = std::any_of(layers.begin(), layers.end(),
                                   [](const Linear* layer) { return layer->adapter() != nullptr; });
  if (!adapted && (biases.empty() || biases.size() == weights.size()))
    return linear_joint(x, weights, biases);
  for (const Linear* layer : layers) outputs.push_back(layer->forward(x));
  return cat(outputs, -1);
}

}  // namespace binade::nn
