#include <binade/nn/linear_relu.h>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/linear_relu.h>

namespace binade::nn {

Tensor forward_relu(const Linear& layer, const Tensor& x) {
  if (layer.adapter()) return relu(layer.forward(x));
  return linear_relu(x, layer.weight()->tensor(), layer.bias() ? layer.bias()->tensor() : Tensor());
}

}  // namespace binade::nn
