// Steps of recurrent layers, a thread an element of (B, H): neighbours read neighbours in each of
// the gates.
#include <binade/core/kernels/recurrent.h>

#include <binade/core/kernels/recurrent_rules.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

// A matrix with contiguous rows; no data: there is none.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;

  __device__ __forceinline__ T* row(int64_t index) const { return data + index * stride; }
};

template <class T>
Matrix<T> matrix_of(const Array& array) {
  if (!array.defined()) return {nullptr, 0};
  return {device_data<T>(array), array.dims() > 1 ? array.stride(0) : 0};
}

template <class C>
__device__ __forceinline__ C sigmoid_of(C x) {
  return C(1) / (C(1) + exp(-x));
}

// Calls body(row, column) for the elements of (rows, width).
template <class Body>
__device__ __forceinline__ void for_each_element(int64_t rows, int64_t width, const Body& body) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < rows * width;
       item += step)
    body(item / width, item % width);
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    gru_forward_kernel(Matrix<const T> x, Matrix<const ComputeOf<T>> sums, const T* bias,
                       Matrix<const T> state, Matrix<T> next, Matrix<T> kept, int64_t rows,
                       int64_t width) {
  using C = ComputeOf<T>;
  for_each_element(rows, width, [&](int64_t row, int64_t i) {
    const T* in = x.row(row);
    const C* s = sums.row(row);
    const auto sum = [&](int64_t k) { return s[k] + (bias ? widen(bias[k]) : C(0)); };
    const int64_t z = width + i, n = 2 * width + i;
    GruGates<C> at;
    at.r = sigmoid_of(widen(in[i]) + sum(i));
    at.z = sigmoid_of(widen(in[z]) + sum(z));
    at.hidden = sum(n);
    at.n = tanh(widen(in[n]) + at.r * at.hidden);
    next.row(row)[i] = narrow<T>(at.next(widen(state.row(row)[i])));
    if (!kept.data) return;
    T* gates = kept.row(row);
    gates[i] = narrow<T>(at.r);
    gates[z] = narrow<T>(at.z);
    gates[n] = narrow<T>(at.n);
    gates[3 * width + i] = narrow<T>(at.hidden);
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    gru_backward_kernel(Matrix<const T> dnext, Matrix<const T> kept, Matrix<const T> state,
                        Matrix<ComputeOf<T>> carry, Matrix<T> dx, Matrix<T> dsums, int64_t rows,
                        int64_t width) {
  using C = ComputeOf<T>;
  for_each_element(rows, width, [&](int64_t row, int64_t i) {
    const T* gates = kept.row(row);
    const int64_t z = width + i, n = 2 * width + i;
    const GruGates<C> at{widen(gates[i]), widen(gates[z]), widen(gates[n]),
                         widen(gates[3 * width + i])};
    C* dh = carry.row(row) + i;
    const GruGradient<C> gradient(at, widen(state.row(row)[i]), widen(dnext.row(row)[i]) + *dh);
    T *to_x = dx.row(row), *to_sums = dsums.row(row);
    to_x[i] = to_sums[i] = narrow<T>(gradient.r);
    to_x[z] = to_sums[z] = narrow<T>(gradient.z);
    to_x[n] = narrow<T>(gradient.x_n);
    to_sums[n] = narrow<T>(gradient.sums_n);
    *dh = gradient.state;
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    lstm_forward_kernel(Matrix<const T> x, Matrix<const ComputeOf<T>> sums, const T* bias,
                        Matrix<const ComputeOf<T>> cell, Matrix<ComputeOf<T>> next_cell,
                        Matrix<T> next, Matrix<T> kept, int64_t rows, int64_t width) {
  using C = ComputeOf<T>;
  for_each_element(rows, width, [&](int64_t row, int64_t i) {
    const T* in = x.row(row);
    const C* s = sums.row(row);
    const auto argument = [&](int64_t k) {
      return widen(in[k]) + s[k] + (bias ? widen(bias[k]) : C(0));
    };
    const int64_t f = width + i, g = 2 * width + i, o = 3 * width + i;
    const LstmGates<C> at{sigmoid_of(argument(i)), sigmoid_of(argument(f)), tanh(argument(g)),
                          sigmoid_of(argument(o))};
    const C to_cell = at.next_cell(cell.row(row)[i]);
    next_cell.row(row)[i] = to_cell;
    next.row(row)[i] = narrow<T>(at.o * tanh(to_cell));
    if (!kept.data) return;
    T* gates = kept.row(row);
    gates[i] = narrow<T>(at.i);
    gates[f] = narrow<T>(at.f);
    gates[g] = narrow<T>(at.g);
    gates[o] = narrow<T>(at.o);
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    lstm_backward_kernel(Matrix<const T> dnext, Matrix<const ComputeOf<T>> carry,
                         Matrix<const T> kept, Matrix<const ComputeOf<T>> cell,
                         Matrix<const ComputeOf<T>> next_cell, Matrix<ComputeOf<T>> dcell,
                         Matrix<T> da, int64_t rows, int64_t width) {
  using C = ComputeOf<T>;
  for_each_element(rows, width, [&](int64_t row, int64_t i) {
    const T* gates = kept.row(row);
    const int64_t f = width + i, g = 2 * width + i, o = 3 * width + i;
    const LstmGates<C> at{widen(gates[i]), widen(gates[f]), widen(gates[g]), widen(gates[o])};
    C* dc = dcell.row(row) + i;
    const LstmGradient<C> gradient(at, cell.row(row)[i], tanh(next_cell.row(row)[i]),
                                   widen(dnext.row(row)[i]) + carry.row(row)[i], *dc);
    T* to_a = da.row(row);
    to_a[i] = narrow<T>(gradient.i);
    to_a[f] = narrow<T>(gradient.f);
    to_a[g] = narrow<T>(gradient.g);
    to_a[o] = narrow<T>(gradient.o);
    *dc = gradient.cell;
  });
}

}  // namespace

void gru_step(const Array& x, const Array& sums, const Array& bias, const Array& state,
              const Array& next, const Array& kept) {
  visit_floating(x.dtype(), "gru_step", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const int64_t rows = state.size(0), width = state.size(1);
    launch("gru_step", gru_forward_kernel<T>, grid_for(rows * width), kBlock, 0,
           matrix_of<const T>(x), matrix_of<const ComputeOf<T>>(sums),
           matrix_of<const T>(bias).data, matrix_of<const T>(state), matrix_of<T>(next),
           matrix_of<T>(kept), rows, width);
  });
}

void gru_step_backward(const Array& dnext, const Array& kept, const Array& state,
                       const Array& carry, const Array& dx, const Array& dsums) {
  visit_floating(kept.dtype(), "gru_step_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const int64_t rows = state.size(0), width = state.size(1);
    launch("gru_step_backward", gru_backward_kernel<T>, grid_for(rows * width), kBlock, 0,
           matrix_of<const T>(dnext), matrix_of<const T>(kept), matrix_of<const T>(state),
           matrix_of<ComputeOf<T>>(carry), matrix_of<T>(dx), matrix_of<T>(dsums), rows, width);
  });
}

void lstm_step(const Array& x, const Array& sums, const Array& bias, const Array& cell,
               const Array& next_cell, const Array& next, const Array& kept) {
  visit_floating(x.dtype(), "lstm_step", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const int64_t rows = cell.size(0), width = cell.size(1);
    launch("lstm_step", lstm_forward_kernel<T>, grid_for(rows * width), kBlock, 0,
           matrix_of<const T>(x), matrix_of<const C>(sums), matrix_of<const T>(bias).data,
           matrix_of<const C>(cell), matrix_of<C>(next_cell), matrix_of<T>(next),
           matrix_of<T>(kept), rows, width);
  });
}

void lstm_step_backward(const Array& dnext, const Array& carry, const Array& kept,
                        const Array& cell, const Array& next_cell, const Array& dcell,
                        const Array& da) {
  visit_floating(kept.dtype(), "lstm_step_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const int64_t rows = cell.size(0), width = cell.size(1);
    launch("lstm_step_backward", lstm_backward_kernel<T>, grid_for(rows * width), kBlock, 0,
           matrix_of<const T>(dnext), matrix_of<const C>(carry), matrix_of<const T>(kept),
           matrix_of<const C>(cell), matrix_of<const C>(next_cell), matrix_of<C>(dcell),
           matrix_of<T>(da), rows, width);
  });
}

}  // namespace binade::kernels::cuda
