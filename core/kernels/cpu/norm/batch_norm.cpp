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
        size(array.numel() / std::max<int64_t>(1, planes * array.size(1))),
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

struct Moments {
  double mean, squares;  // Σ (x − mean)²
};
template <class T>
Moments moments_of(const Channel& x) {
  thread_local Workspace<T> plane;
  T* const values = plane.reserve(x.size);
  const double count = static_cast<double>(x.count());
  const auto total = [&](const auto& term) {
    double result = 0;
    for (int64_t n = 0; n < x.planes; ++n) {
      x.load(n, values);
      result += sum(x.size, [&](int64_t i) { return term(values[i]); });
    }
    return result;
  };
  // What the sums' rounding left of the deviations is taken out of the mean: in a constant channel
  // 1/√eps would make something of it.
  const T rounded = static_cast<T>(total([](T value) { return value; }) / count);
  const double left = total([=](T value) { return value - rounded; }) / count;
  const double mean = static_cast<double>(rounded) + left;
  const T center = static_cast<T>(mean);
  return {mean, total([=](T value) { return (value - center) * (value - center); })};
}

template <class T>
void apply_affine(const Channel& x, T center, T scale, T shift, const Channel& y) {
  thread_local Workspace<T> plane;
  T* const values = plane.reserve(x.size);
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
#pragma omp simd
    for (int64_t i = 0; i < x.size; ++i) values[i] = (values[i] - center) * scale + shift;
    y.store(n, values);
  }
}

// Calls body(dy, x, count, plane number) for every plane.
template <class T, class Body>
void for_each_pair(const Channel& dy, const Channel& x, const Body& body) {
  thread_local Workspace<T> x_plane, dy_plane;
  T* const values = x_plane.reserve(x.size);
  T* const gradients = dy_plane.reserve(x.size);
  for (int64_t n = 0; n < x.planes; ++n) {
    x.load(n, values);
    dy.load(n, gradients);
    body(gradients, values, x.size, n);
  }
}

struct Sums {
  double products, gradients;  // Σ dy·(x − mean)·rstd, Σ dy
};
template <class T>
Sums sums_of(const Channel& dy, const Channel& x, T mean, double rstd) {
  Sums sums{0, 0};
  for_each_pair<T>(dy, x, [&](const T* d, const T* v, int64_t count, int64_t) {
    sums.gradients += sum(count, [&](int64_t i) { return d[i]; });
    sums.products += sum(count, [&](int64_t i) { return d[i] * (v[i] - mean); });
  });
  sums.products *= rstd;  // once, not in every term
  return sums;
}

template <class T>
void apply_gradient(const Channel& dy, const Channel& x, T mean, T slope, T offset, T along,
                    const Channel& dx) {
  for_each_pair<T>(dy, x, [&](T* d, const T* v, int64_t count, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) d[i] = d[i] * slope - offset - (v[i] - mean) * along;
    dx.store(n, d);
  });
}

// Calls body(channel, T()) with the type that x is computed in, channels on all threads.
template <class Body>
void for_each_channel(const Array& x, const Body& body) {
  parallel_tasks(x.size(1), [&](int64_t channel) {
    x.dtype() == DType::f64 ? body(channel, double{}) : body(channel, float{});
  });
}

}  // namespace

void channel_moments(const Array& x, double eps, const Array& mean, const Array& rstd) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    const Channel own(x, channel);
    const auto [center, squares] = moments_of<T>(own);
    set(mean, channel, center);
    set(rstd, channel, 1 / std::sqrt(squares / static_cast<double>(own.count()) + eps));
  });
}

void channel_affine(const Array& x, const Array& center, const Array& scale, const Array& shift,
                    const Array& y) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    apply_affine(Channel(x, channel), get<T>(center, channel), get<T>(scale, channel),
                 get<T>(shift, channel), Channel(y, channel));
  });
}

void channel_sums(const Array& dy, const Array& x, const Array& mean, const Array& rstd,
                  const Array& products, const Array& sums) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    const Sums found = sums_of(Channel(dy, channel), Channel(x, channel), get<T>(mean, channel),
                               get<double>(rstd, channel));
    set(products, channel, found.products);
    set(sums, channel, found.gradients);
  });
}

void channel_gradient(const Array& dy, const Array& x, const Array& mean, const Array& slope,
                      const Array& offset, const Array& along, const Array& dx) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    apply_gradient(Channel(dy, channel), Channel(x, channel), get<T>(mean, channel),
                   get<T>(slope, channel), get<T>(offset, channel), get<T>(along, channel),
                   Channel(dx, channel));
  });
}

void batch_norm(const Array& x, const Array& weight, const Array& bias, double eps, double momentum,
                const Array& running_mean, const Array& running_var, const Array& y,
                const Array& mean, const Array& rstd) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    const Channel own(x, channel);
    const double count = static_cast<double>(own.count());
    const auto [center, squares] = moments_of<T>(own);
    const double inverse = 1 / std::sqrt(squares / count + eps);
    apply_affine(own, static_cast<T>(center), static_cast<T>(inverse) * get<T>(weight, channel),
                 get<T>(bias, channel), Channel(y, channel));
    set(mean, channel, center);
    set(rstd, channel, inverse);
    const auto move = [&](const Array& running, double value) {
      const double old = get<double>(running, channel);
      set(running, channel, old + momentum * (value - old));
    };
    move(running_mean, center);
    move(running_var, squares / std::max(count - 1, 1.0));
  });
}

// dx = weight · rstd · (dy − mean(dy) − x̂ · mean(dy · x̂)) with x̂ = (x − mean) · rstd.
void batch_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, const Array& dweight,
                         const Array& dbias) {
  for_each_channel(x, [&]<class T>(int64_t channel, T) {
    const Channel own(x, channel), given(dy, channel);
    const T center = get<T>(mean, channel), scale = get<T>(rstd, channel);
    const Sums sums = sums_of(given, own, center, get<double>(rstd, channel));
    set(dbias, channel, sums.gradients);
    set(dweight, channel, sums.products);
    const double count = static_cast<double>(own.count());
    const T slope = get<T>(weight, channel) * scale;
    apply_gradient(given, own, center, slope, slope * static_cast<T>(sums.gradients / count),
                   slope * scale * static_cast<T>(sums.products / count), Channel(dx, channel));
  });
}

}  // namespace binade::kernels::cpu
