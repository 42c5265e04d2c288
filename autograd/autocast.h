// Casts of an op's inputs under the thread's precision policy. Outside every policy they return the
// inputs as they are (for `widest`: in the promoted dtype).
#pragma once

#include <binade/autograd/tensor.h>
#include <binade/core/precision.h>

namespace binade {

// The tensor in the dtype its class asks for: half → the policy's half type, full → f32; f64 and
// integers stay. A parameter's cast (a leaf that requires a gradient) is made once and kept until
// clear_cast_cache(), so that a step casts each weight once.
Tensor autocast(PrecisionClass precision, const Tensor& tensor);
// Under `widest`: both in the wider of the two dtypes.
void autocast_widest(Tensor& a, Tensor& b);
void clear_cast_cache();

}  // namespace binade
