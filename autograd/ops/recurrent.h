// Recurrent layers over whole sequences: the part that depends on the state. Class half; sums and
// LSTM cells are f32 (f64 for f64).
#pragma once

#include <utility>

#include <binade/autograd/tensor.h>

namespace binade {

// x (B, T, 3H), each step's input times its weight plus its bias, in the order r, z, n; weight
// (3H, H) and bias (3H) or undefined of the state; state (B, H) in front of the first step →
// (B, T, H), the states behind the steps:
//   r = σ(x_r + W_r·h + b_r), z = σ(x_z + W_z·h + b_z), n = tanh(x_n + r·(W_n·h + b_n)),
//   h ← (1 − z)·n + z·h                                  (Cho et al. 2014, with cuDNN's n).
// T is at least 1. A matmul and a kernel a step, or one kernel for all (core/kernels/recurrent.h).
Tensor gru(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& state);

// The same for x (B, T, 4H), weight (4H, H), bias (4H) in the order i, f, g, o, and a cell (B, H)
// beside the state; gives the states (B, T, H) and the last cell (B, H):
//   c ← σ(a_f)·c + σ(a_i)·tanh(a_g), h ← σ(a_o)·tanh(c) with a = x + W·h + b
// (Hochreiter & Schmidhuber 1997; Gers et al. 2000).
std::pair<Tensor, Tensor> lstm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& state, const Tensor& cell);

}  // namespace binade
