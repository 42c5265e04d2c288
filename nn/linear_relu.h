// A linear layer with ReLU behind it.
#pragma once

#include <binade/nn/linear.h>

namespace binade::nn {

// relu(layer.forward(x)), as one op unless the layer has an adapter.
Tensor forward_relu(const Linear& layer, const Tensor& x);

}  // namespace binade::nn
