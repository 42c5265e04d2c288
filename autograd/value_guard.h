// INTERNAL. Leaves whose values something else writes between their uses, as other ranks do.
#pragma once

#include <functional>

#include <binade/autograd/tensor.h>

namespace binade {

// `before_use` is called by Tensor::array(), and by all that reads or writes the leaf's value
// through it; not for its shape, dtype and device. It may wait, throw, give the leaf another value
// and take itself away. Empty: nobody is called.
void set_value_guard(const Tensor& leaf, std::function<void()> before_use);
bool has_value_guard(const Tensor& leaf);
// Puts `value` in the place of the leaf's own, for all handles of the leaf; of the same shape and
// dtype, on the same device.
void give_value(const Tensor& leaf, Array value);

}  // namespace binade
