// Convolution: filters times the patches that output pixels see (patches.h), a part of an image at
// a time, so that it stays in cache. f16 and bf16 become f32 as they are read.
#include <algorithm>
#include <cstring>
#include <vector>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/conv/onednn_conv.h>
#include <binade/core/kernels/cpu/conv/patch_matmul.h>
#include <binade/core/kernels/cpu/conv/weight_gradient.h>

namespace binade::kernels::cpu {

namespace {

// A dimension of the forward pass.
PatchAxis forward_axis(int64_t size, int64_t outputs, int64_t kernel, int64_t stride,
                       int64_t padding, int64_t dilation) {
  PatchAxis axis{size, outputs, stride, {}};
  for (int64_t e = 0; e < kernel; ++e) axis.offsets.push_back(e * dilation - padding);
  return axis;
}

PatchGrid forward_grid(const Array& x, const Array& weight, const Array& y,
                       const ConvParams& params) {
  return {forward_axis(x.size(2), y.size(2), weight.size(2), params.stride_h, params.padding_h,
                       params.dilation_h),
          forward_axis(x.size(3), y.size(3), weight.size(3), params.stride_w, params.padding_w,
                       params.dilation_w)};
}

// An array's numbers as T: in place, or in `buffer`.
template <class T>
const T* values_of(const Array& array, Workspace<T>& buffer) {
  if (array.dtype() == dtype_of<T>() && array.is_contiguous()) return array.data<T>();
  T* const values = buffer.reserve(array.numel());
  const Array contiguous = array.contiguous();
  load_row(contiguous.data(), contiguous.dtype(), 1, contiguous.numel(), values);
  return values;
}

template <class T>
void forward(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
             const Array& y) {
  Workspace<T> weight_buffer, bias_buffer;
  PatchOutput out{y};
  if (bias.defined()) out.bias = values_of(bias, bias_buffer);
  multiply_patches<T>(x, forward_grid(x, weight, y, params), params.groups,
                      y.size(1) / params.groups, values_of(weight, weight_buffer), out);
}

// Pixels of x from `first` on, a stride apart, in one dimension: those that the same elements of
// the kernel met. Output o of them is pixel o · stride + first, and element e reached it from
// position o + (first + padding − e · dilation) / stride of y, where that is whole.
struct Phase {
  PatchAxis axis;
  std::vector<int64_t> elements;

  Phase(int64_t first, int64_t size, int64_t outputs, int64_t kernel, int64_t stride,
        int64_t padding, int64_t dilation)
      : axis{outputs, (size - first + stride - 1) / stride, 1, {}} {
    for (int64_t e = 0; e < kernel; ++e) {
      const int64_t distance = first + padding - e * dilation;
      if (distance % stride != 0) continue;
      elements.push_back(e);
      axis.offsets.push_back(distance / stride);
    }
  }
};

// filters (groups, channels, filters · elements) of a phase, from weight (groups · filters,
// channels, R, S).
template <class T>
void turn_weights(const T* weight, int64_t groups, int64_t filters, int64_t channels,
                  int64_t kernel_h, int64_t kernel_w, const Phase& rows, const Phase& columns,
                  T* turned) {
  std::vector<int64_t> places;
  for (const int64_t r : rows.elements)
    for (const int64_t s : columns.elements) places.push_back(r * kernel_w + s);
  const auto taps = static_cast<int64_t>(places.size()), kernel = kernel_h * kernel_w;
  const bool all = taps == kernel;  // in their order
  constexpr int64_t kBlock = 16;    // cache lines of both sides are used up
  const int64_t blocks = (channels + kBlock - 1) / kBlock;
  parallel_tasks(groups * blocks, [&](int64_t task) {
    const int64_t group = task / blocks, begin = task % blocks * kBlock;
    const int64_t end = std::min(begin + kBlock, channels);
    if (all && kernel == 1)
      return transpose(end - begin, filters, weight + group * filters * channels + begin, channels,
                       turned + (group * channels + begin) * filters);
    for (int64_t f = 0; f < filters; ++f)
      for (int64_t c = begin; c < end; ++c) {
        const T* const from = weight + ((group * filters + f) * channels + c) * kernel;
        T* const to = turned + ((group * channels + c) * filters + f) * taps;
        if (all)
          for (int64_t t = 0; t < kernel; ++t) to[t] = from[t];
        else
          for (int64_t t = 0; t < taps; ++t) to[t] = from[places[static_cast<size_t>(t)]];
      }
  });
}

void fill_zeros(const Array& array) {
  constexpr int64_t kGrain = 1 << 18;  // bytes
  parallel_for(array.numel() * size_of(array.dtype()), kGrain, [&](int64_t begin, int64_t end) {
    std::memset(static_cast<std::byte*>(array.data()) + begin, 0, static_cast<size_t>(end - begin));
  });
}

// The gradient of x, one phase of its pixels after the other.
template <class T>
void backward_input(const Array& weight, const Array& dy, const ConvParams& params, const Array& dx,
                    float beta) {
  const int64_t groups = params.groups, channels = dx.size(1) / groups;
  const int64_t filters = dy.size(1) / groups;
  const auto phase = [&](int64_t first, int dim, int64_t stride, int64_t padding,
                         int64_t dilation) {
    return Phase(first, dx.size(dim), dy.size(dim), weight.size(dim), stride, padding, dilation);
  };
  std::vector<Phase> rows, columns;
  for (int64_t row = 0; row < std::min(params.stride_h, dx.size(2)); ++row)
    rows.push_back(phase(row, 2, params.stride_h, params.padding_h, params.dilation_h));
  for (int64_t column = 0; column < std::min(params.stride_w, dx.size(3)); ++column)
    columns.push_back(phase(column, 3, params.stride_w, params.padding_w, params.dilation_w));
  const auto unmet = [](const Phase& some) { return some.elements.empty(); };
  if (beta == 0 && (std::any_of(rows.begin(), rows.end(), unmet) ||
                    std::any_of(columns.begin(), columns.end(), unmet)))
    fill_zeros(dx);

  Workspace<T> weight_buffer, turned;
  const T* const values = values_of(weight, weight_buffer);
  T* const phase_weights = turned.reserve(weight.numel());
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t column = 0; column < columns.size(); ++column) {
      if (unmet(rows[row]) || unmet(columns[column])) continue;
      turn_weights(values, groups, filters, channels, weight.size(2), weight.size(3), rows[row],
                   columns[column], phase_weights);
      multiply_patches<T>(dy, {rows[row].axis, columns[column].axis}, groups, channels,
                          phase_weights,
                          {dx, static_cast<int64_t>(row), params.stride_h,
                           static_cast<int64_t>(column), params.stride_w, beta});
    }
}

template <class T>
void backward_bias(const Array& dy, const Array& dbias, float beta) {
  const int64_t images = dy.size(0), filters = dy.size(1), pixels = dy.size(2) * dy.size(3);
  std::vector<T> sums(static_cast<size_t>(filters), T(0));
  parallel_tasks(filters, [&](int64_t filter) {
    thread_local Workspace<T> buffer;
    T* const row = buffer.reserve(pixels);
    T total = 0;
    for (int64_t image = 0; image < images; ++image) {
      load_row(static_cast<const std::byte*>(dy.data()) +
                   (image * filters + filter) * pixels * size_of(dy.dtype()),
               dy.dtype(), 1, pixels, row);
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < pixels; ++i) sum += row[i];
      total += sum;
    }
    sums[static_cast<size_t>(filter)] = total;
  });
  store_with_beta(sums.data(), filters, static_cast<std::byte*>(dbias.data()), dbias.dtype(), 1,
                  beta);
}

}  // namespace

void conv2d(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
            const Array& y) {
  check(is_floating(x.dtype()), "conv2d needs a floating-point dtype, got ", name_of(x.dtype()));
  if (onednn_conv2d(x, weight, bias, params, y)) return;
  if (x.dtype() == DType::f64)
    forward<double>(x, weight, bias, params, y);
  else
    forward<float>(x, weight, bias, params, y);
}

void conv2d_backward(const Array& x, const Array& weight, const Array& dy, const ConvParams& params,
                     const Array& dx, float dx_beta, const Array& dweight, float dweight_beta,
                     const Array& dbias, float dbias_beta) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    if (dx.defined() && !onednn_conv2d_input_gradient(weight, dy, params, dx, dx_beta))
      backward_input<T>(weight, dy, params, dx, dx_beta);
    if (dweight.defined() && !onednn_conv2d_weight_gradient(x, dy, params, dweight, dweight_beta))
      patch_weight_gradient<T>(x, forward_grid(x, weight, dy, params), params.groups, dy, dweight,
                               dweight_beta);
    if (dbias.defined()) backward_bias<T>(dy, dbias, dbias_beta);
  };
  if (x.dtype() == DType::f64)
    run(double{});
  else
    run(float{});
}

}  // namespace binade::kernels::cpu
