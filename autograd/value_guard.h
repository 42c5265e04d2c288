// INTERNAL. Leaves whose values something else writes between their uses, as other ranks do.
#pragma once

#include <functional>

#include <binade/autograd/tensor.h>

namespace binade {

// `before_use` is called by Tensor::array(), and by all that reads or writes the leaf's value
// through it; not for its shape, dtype and device. It may wait, or throw. Empty: nobody is called.
void set_value_guard(const Tensor& leaf, std::function<void()> before_use);

}  // namespace binade
