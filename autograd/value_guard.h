// INTERNAL. Leaves whose values something else writes between their uses, as other ranks do.
#pragma once

#include <functional>

#include <binade/autograd/tensor.h>

namespace binade {

// `before_use` is called by Tensor::array(), and by all that goes through it (shape and dtype,
// too), before it gives the leaf's value away. It may wait, or throw. Empty: nobody is called.
void set_value_guard(const Tensor& leaf, std::function<void()> before_use);

}  // namespace binade
