// A row of a recurrent layer's step on the CPU: what lies between its matmuls. Private to this
// folder.
#pragma once

#include <vector>

#include <binade/core/array.h>
#include <binade/core/kernels/cpu/common/convert.h>
#include <binade/core/kernels/cpu/common/vector_math.h>
#include <binade/core/kernels/recurrent_rules.h>

namespace binade::kernels::cpu {

// A bias of `count` elements as C; zeros where there is none.
template <class C>
std::vector<C> bias_values(const Array& bias, int64_t count) {
  std::vector<C> values(static_cast<size_t>(count));
  if (bias.defined())
    convert(static_cast<const std::byte*>(bias.data()), bias.dtype(), values.data(), dtype_of<C>(),
            count);
  return values;
}

// The arrays of a row as recurrent.h has them, b the bias. `gates` receives what is kept.
template <class C>
void gru_row(int64_t width, const C* in, const C* s, const C* b, const C* h, C* out, C* gates) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const int64_t z = width + i, n = 2 * width + i;
    GruGates<C> at;
    at.r = fast_sigmoid(in[i] + s[i] + b[i]);
    at.z = fast_sigmoid(in[z] + s[z] + b[z]);
    at.hidden = s[n] + b[n];
    at.n = fast_tanh(in[n] + at.r * at.hidden);
    out[i] = at.next(h[i]);
    gates[i] = at.r;
    gates[z] = at.z;
    gates[n] = at.n;
    gates[3 * width + i] = at.hidden;
  }
}

template <class C>
void gru_row_backward(int64_t width, const C* d, const C* gates, const C* h, C* dh, C* to_x,
                      C* to_sums) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const int64_t z = width + i, n = 2 * width + i;
    const GruGates<C> at{gates[i], gates[z], gates[n], gates[3 * width + i]};
    const GruGradient<C> gradient(at, h[i], d[i] + dh[i]);
    to_x[i] = to_sums[i] = gradient.r;
    to_x[z] = to_sums[z] = gradient.z;
    to_x[n] = gradient.x_n;
    to_sums[n] = gradient.sums_n;
    dh[i] = gradient.state;
  }
}

template <class C>
void lstm_row(int64_t width, const C* in, const C* s, const C* b, const C* c, C* next_c, C* out,
              C* gates) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const int64_t f = width + i, g = 2 * width + i, o = 3 * width + i;
    LstmGates<C> at;
    at.i = fast_sigmoid(in[i] + s[i] + b[i]);
    at.f = fast_sigmoid(in[f] + s[f] + b[f]);
    at.g = fast_tanh(in[g] + s[g] + b[g]);
    at.o = fast_sigmoid(in[o] + s[o] + b[o]);
    next_c[i] = at.next_cell(c[i]);
    out[i] = at.o * fast_tanh(next_c[i]);
    gates[i] = at.i;
    gates[f] = at.f;
    gates[g] = at.g;
    gates[o] = at.o;
  }
}

template <class C>
void lstm_row_backward(int64_t width, const C* d, const C* dh, const C* gates, const C* c,
                       const C* next_c, C* dc, C* to_a) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const int64_t f = width + i, g = 2 * width + i, o = 3 * width + i;
    const LstmGates<C> at{gates[i], gates[f], gates[g], gates[o]};
    const LstmGradient<C> gradient(at, c[i], fast_tanh(next_c[i]), d[i] + dh[i], dc[i]);
    to_a[i] = gradient.i;
    to_a[f] = gradient.f;
    to_a[g] = gradient.g;
    to_a[o] = gradient.o;
    dc[i] = gradient.cell;
  }
}

}  // namespace binade::kernels::cpu
