#include <cmath>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/norm.h>

namespace binade::kernels::cpu {

namespace {

// One channel of (N, C, H, W): N planes of H·W elements.
struct Channel {
  Channel(const Array& array, int64_t channel)
      : planes(array.size(0)),
        size(array.size(2) * array.size(3)),
        dtype(array.dtype()),
        data(static_cast<std::byte*>(array.data()) + channel * size * size_of(dtype)),
        stride(array.size(1) * size * size_of(dtype)) {}

  int64_t count() const { return planes * size; }
  template <class T>
  void load(int64_t plane, T* values) const {
    load_row(data + plane * stride, dtype, 1, size, values);
  }
  template <class T>
  void store(int64_t plane, const T* values) const {
    store_row(values, size, data + plane * stride, dtype, 1);
  }

  int64_t planes, size;
  DType dtype;
  std::byte* data;
  int64_t stride;  // bytes from plane to plane
};

template <class T>
T get(const Array& vector, int64_t i) {
  T value;
  load_row(static_cast<std::byte*>(vector.data()) + i * size_of(vector.dtype()), vector.dtype(), 1,
           1, &value);
  return value;
}

template <class T>
void set(const Array& vector, int64_t i, T value) {
  store_row(&value, 1, static_cast<std::byte*>(vector.data()) + i * size_of(vector.dtype()),
            vector.dtype(), 1);
}

// Σ term(i) over a plane in double: what is summed here may cancel (a gradient times deviations
// from the mean), and then the rounding of an f32 sum is large beside the result.
template <class Term>
double sum(int64_t count, const Term& term) {
  return sum_of<double>(count, [&](int64_t i) { return static_cast<double>(term(i)); });
}

template <class T>
void normalize_channel(const Channel& x, const Channel& y, int64_t channel, const Array& weight,
                       const Array& bias, double eps, double momentum, const Array& running_mean,
                       const Array& running_var, const Array& mean_out, const Array& rstd_out) {
  thread_local Workspace<T> plane;
  T* const values = plane.reserve(x.size);
  const double count = static_cast<double>(x.count());

  double total = 0;
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    total += sum(x.size, [&](int64_t i) { return values[i]; });
  }
  // What the sums' rounding left of the deviations is taken out of the mean: in a constant channel
  // 1/√eps would make something of it.
  const T rounded_mean = static_cast<T>(total / count);
  double deviations = 0;
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    deviations += sum(x.size, [&](int64_t i) { return values[i] - rounded_mean; });
  }
  const double mean = static_cast<double>(rounded_mean) + deviations / count;
  const T center = static_cast<T>(mean);
  double squares = 0;
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    squares += sum(x.size, [&](int64_t i) { return (values[i] - center) * (values[i] - center); });
  }
  const double rstd = 1 / std::sqrt(squares / count + eps);

  const T slope = static_cast<T>(rstd) * get<T>(weight, channel), shift = get<T>(bias, channel);
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
#pragma omp simd
    for (int64_t i = 0; i < x.size; ++i) values[i] = (values[i] - center) * slope + shift;
    y.store(n, values);
  }
  set(mean_out, channel, mean);
  set(rstd_out, channel, rstd);
  const auto move = [&](const Array& running, double value) {
    const double old = get<double>(running, channel);
    set(running, channel, old + momentum * (value - old));
  };
  move(running_mean, mean);
  move(running_var, squares / std::max(count - 1, 1.0));
}

// dx = weight · rstd · (dy − mean(dy) − x̂ · mean(dy · x̂)) with x̂ = (x − mean) · rstd.
template <class T>
void differentiate_channel(const Channel& dy, const Channel& x, const Channel& dx, int64_t channel,
                           const Array& weight, const Array& mean, const Array& rstd,
                           const Array& dweight, const Array& dbias) {
  thread_local Workspace<T> x_plane, dy_plane;
  T* const values = x_plane.reserve(x.size);
  T* const grads = dy_plane.reserve(x.size);
  const T center = get<T>(mean, channel), scale = get<T>(rstd, channel);

  double grad_sum = 0, product_sum = 0;  // of dy, and of dy · x̂
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    dy.load(n, grads);
    grad_sum += sum(x.size, [&](int64_t i) { return grads[i]; });
    product_sum += sum(x.size, [&](int64_t i) { return grads[i] * (values[i] - center); });
  }
  product_sum *= get<double>(rstd, channel);  // once, not in every term
  set(dbias, channel, grad_sum);
  set(dweight, channel, product_sum);

  const double count = static_cast<double>(x.count());
  const T mean_grad = static_cast<T>(grad_sum / count);
  const T mean_product = static_cast<T>(product_sum / count);
  const T slope = get<T>(weight, channel) * scale;
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    dy.load(n, grads);
#pragma omp simd
    for (int64_t i = 0; i < x.size; ++i)
      grads[i] = slope * (grads[i] - mean_grad - (values[i] - center) * scale * mean_product);
    dx.store(n, grads);
  }
}

}  // namespace

void batch_norm(const Array& x, const Array& weight, const Array& bias, double eps, double momentum,
                const Array& running_mean, const Array& running_var, const Array& y,
                const Array& mean, const Array& rstd) {
  parallel_tasks(x.size(1), [&](int64_t channel) {
    const auto normalize =
        x.dtype() == DType::f64 ? normalize_channel<double> : normalize_channel<float>;
    normalize(Channel(x, channel), Channel(y, channel), channel, weight, bias, eps, momentum,
              running_mean, running_var, mean, rstd);
  });
}

void batch_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, const Array& dweight,
                         const Array& dbias) {
  parallel_tasks(x.size(1), [&](int64_t channel) {
    const auto differentiate =
        x.dtype() == DType::f64 ? differentiate_channel<double> : differentiate_channel<float>;
    differentiate(Channel(dy, channel), Channel(x, channel), Channel(dx, channel), channel, weight,
                  mean, rstd, dweight, dbias);
  });
}

}  // namespace binade::kernels::cpu
