// INTERNAL. Dropout with a mask that is known by its key.
#pragma once

#include <binade/autograd/tensor.h>
#include <binade/core/random.h>

namespace binade::ops {

// Element i of x, counted in row-major order, is kept as the key says.
Tensor dropout_with(const PhiloxKey& key, double probability, const Tensor& x);

}  // namespace binade::ops
