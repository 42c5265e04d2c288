// A function with a gradient of the user's own.
#pragma once

#include <functional>

#include <binade/autograd/tensor.h>

namespace binade {

//   Tensor y = custom_function(
//       "clip_grad", {x}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
//       [](const TensorList& in, const TensorList& out, const TensorList& dy) -> TensorList {
//         return {clamp(dy[0], -1, 1)};
//       })[0];
using CustomForward = std::function<TensorList(const TensorList& inputs)>;
using CustomBackward = std::function<TensorList(const TensorList& inputs, const TensorList& outputs,
                                                const TensorList& grads)>;
// `forward` runs off the tape and may return any number of tensors, inputs among them. Backward
// gets inputs and outputs as they were, and the gradients of the outputs: zeros for those that
// nothing reached, undefined for those that are not floating-point. It returns one gradient an
// input, in order, undefined where there is none. Inputs may be undefined. `name` is a string
// literal.
TensorList custom_function(const char* name, const TensorList& inputs, const CustomForward& forward,
                           CustomBackward backward);

}  // namespace binade
