#include <binade/nn/linear.h>

#include <algorithm>

namespace binade::nn {

bool can_join(std::initializer_list<const Linear*> layers) {
  const bool biased = (*layers.begin())->bias() != nullptr;
  return std::all_of(layers.begin(), layers.end(), [biased](const Linear* layer) {
    return !layer->adapter() && (layer->bias() != nullptr) == biased;
  });
}

Tensor forward_joint(const Tensor& x, std::initializer_list<const Linear*> layers) {
  check(can_join(layers),
        "layers with adapters, or of which only some have a bias, cannot be joined");
  TensorList weights, biases;
  for (const Linear* layer : layers) {
    weights.push_back(layer->weight()->tensor());
    if (layer->bias()) biases.push_back(layer->bias()->tensor());
  }
  return linear_joint(x, weights, biases);
}

}  // namespace binade::nn
