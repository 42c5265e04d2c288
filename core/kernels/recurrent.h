// One time step of recurrent layers: what lies between its matmuls, a pass over (B, H).
//
// Arrays have contiguous rows, B of them, any distance apart. Those named `sums` and `carry` are in
// the dtype of statistics (f32, f64 for f64), all others in the layer's.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// GRU (Cho et al. 2014, in the form of cuDNN and PyTorch). With the input's part x (B, 3H), the
// state's part sums (B, 3H) and bias (3H) or undefined, in the order r, z, n:
//   r = σ(x_r + s_r + b_r), z = σ(x_z + s_z + b_z), n = tanh(x_n + r·(s_n + b_n)),
//   next = (1 − z)·n + z·state.
// kept (B, 4H), unless undefined, receives r, z, n and s_n + b_n.
BINADE_KERNEL(gru_step, const Array& x, const Array& sums, const Array& bias, const Array& state,
              const Array& next, const Array& kept)
// dnext (B, H) + carry is the gradient of next. dx (B, 3H) receives that of x, dsums (B, 3H) that
// of sums, and carry (B, H) what goes to `state` past the matmul.
BINADE_KERNEL(gru_step_backward, const Array& dnext, const Array& kept, const Array& state,
              const Array& carry, const Array& dx, const Array& dsums)

// LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000). In the order i,
// f, g, o, with a = x + sums + bias (B, 4H):
//   next_cell = σ(a_f)·cell + σ(a_i)·tanh(a_g), next = σ(a_o)·tanh(next_cell).
// The cells (B, H) are in the dtype of statistics. kept (B, 4H), unless undefined, receives the
// four gates.
BINADE_KERNEL(lstm_step, const Array& x, const Array& sums, const Array& bias, const Array& cell,
              const Array& next_cell, const Array& next, const Array& kept)
// dnext (B, H) + carry is the gradient of next, dcell (B, H) that of next_cell by later steps; it
// becomes that of cell. da (B, 4H) receives the gradient of x and of sums.
BINADE_KERNEL(lstm_step_backward, const Array& dnext, const Array& carry, const Array& kept,
              const Array& cell, const Array& next_cell, const Array& dcell, const Array& da)

// On the CPU all steps at once, as a loop over the above would do them with matmuls in between: for
// dtypes of which takes_sequences() says so (f32, where the processor has no tiles).
namespace cpu {

bool takes_sequences(DType dtype);
// x (B, T, 3H), weight (3H, H), bias (3H) or undefined, first (B, H); states (B, T, H) and kept
// (T, B, 4H), unless undefined, are written.
void gru_sequence(const Array& x, const Array& weight, const Array& bias, const Array& first,
                  const Array& states, const Array& kept);
// dstates (B, T, H), the gradients of states. carry (B, H), contiguous, holds that of the last
// state by what comes behind, and receives that of `first` if `to_first`. dx and dsums (B, T, 3H)
// are written.
void gru_sequence_backward(const Array& dstates, const Array& weight, const Array& first,
                           const Array& states, const Array& kept, const Array& carry,
                           const Array& dx, const Array& dsums, bool to_first);
// x (B, T, 4H), weight (4H, H). cells (T + 1, B, H), or two that take turns: the first is read.
void lstm_sequence(const Array& x, const Array& weight, const Array& bias, const Array& first,
                   const Array& cells, const Array& states, const Array& kept);
// dcell (B, H), contiguous, holds the gradient of the last cell and receives that of the first.
// da (B, T, 4H) is written.
void lstm_sequence_backward(const Array& dstates, const Array& weight, const Array& cells,
                            const Array& kept, const Array& carry, const Array& dcell,
                            const Array& da, bool to_first);

}  // namespace cpu

}  // namespace binade::kernels
