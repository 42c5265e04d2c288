// Activations and dropout; they keep the dtype of their input and compute in f32.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

Tensor relu(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor silu(const Tensor& x);
Tensor gelu(const Tensor& x);       // x·Φ(x)
Tensor gelu_tanh(const Tensor& x);  // 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
Tensor softplus(const Tensor& x);   // log(1 + exp(x))
Tensor softplus(const Tensor& x, double beta);  // log(1 + exp(beta·x)) / beta, for beta above 0
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
Tensor elu(const Tensor& x, double alpha = 1);        // alpha·(exp(x) − 1) below 0
Tensor hardswish(const Tensor& x);                    // x·min(max(x + 3, 0), 6)/6
Tensor logsigmoid(const Tensor& x);                   // log σ(x), without σ's underflow
Tensor mish(const Tensor& x);                         // x·tanh(softplus(x))
Tensor swiglu(const Tensor& gate, const Tensor& up);  // silu(gate)·up
// The same of one array (…, 2H), the gate's half first → (…, H); its gradient is one array, too.
// Recomputed in backward under Recompute::activations.
Tensor swiglu_packed(const Tensor& gate_up);

// Zeroes elements with the given probability and divides the others by 1 − probability. The mask is
// drawn from RandomState and never stored. Identity when !training or probability is 0.
Tensor dropout(const Tensor& x, double probability, bool training);

}  // namespace binade
