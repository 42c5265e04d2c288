// The arithmetic of recurrent layers' steps behind their sigmoids and tanhs, for the kernels of
// both devices (recurrent.h has the formulas).
#pragma once

#include <binade/core/host_device.h>

namespace binade::kernels {

template <class C>
struct GruGates {
  C r, z, n, hidden;  // hidden: the state's part of n's argument

  BINADE_HOST_DEVICE C next(C state) const { return n + z * (state - n); }
};

// The gradients of x's and sums' parts, and of the state past the matmul.
template <class C>
struct GruGradient {
  C r, z, x_n, sums_n, state;

  BINADE_HOST_DEVICE GruGradient(const GruGates<C>& gates, C state_value, C dnext) {
    z = dnext * (state_value - gates.n) * gates.z * (1 - gates.z);
    x_n = dnext * (1 - gates.z) * (1 - gates.n * gates.n);
    r = x_n * gates.hidden * gates.r * (1 - gates.r);
    sums_n = x_n * gates.r;
    state = dnext * gates.z;
  }
};

template <class C>
struct LstmGates {
  C i, f, g, o;

  BINADE_HOST_DEVICE C next_cell(C cell) const { return f * cell + i * g; }
};

template <class C>
struct LstmGradient {
  C i, f, g, o, cell;

  // tanh_next: the tanh of the next cell. dnext_cell: what later steps bring.
  BINADE_HOST_DEVICE LstmGradient(const LstmGates<C>& gates, C cell_value, C tanh_next, C dnext,
                                  C dnext_cell) {
    const C d = dnext_cell + dnext * gates.o * (1 - tanh_next * tanh_next);
    o = dnext * tanh_next * gates.o * (1 - gates.o);
    i = d * gates.g * gates.i * (1 - gates.i);
    f = d * cell_value * gates.f * (1 - gates.f);
    g = d * gates.i * (1 - gates.g * gates.g);
    cell = d * gates.f;
  }
};

}  // namespace binade::kernels
