// INTERNAL. For owners of a leaf that put another tensor in its place.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

// The hooks of one leaf are the other's, too, from now on; the functions that remove them stay
// valid.
void share_hooks(const Tensor& from, const Tensor& to);

}  // namespace binade
