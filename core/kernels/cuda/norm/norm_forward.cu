// Layer norm and RMS norm, forward. A row that fits into the registers of four threads, of a warp,
// or of a block of four warps, is read once, all its vectors under way before the first is used;
// longer and unaligned rows take a block that reads them again. The latency of one row is hidden by
// the others that the multiprocessor holds.
#include <binade/core/kernels/cuda/norm/norm.cuh>

namespace binade::kernels::cuda {

namespace {

// Threads of a block in which kRow threads share a row.
template <int kRow>
inline constexpr int kThreads = kRow <= kWarp ? kBlock : kRow;
inline constexpr int kFewLanes = 4;  // for rows of at most eight vectors: heads

// Sum over the kRow threads that share a row.
template <int kRow, class V>
__device__ __forceinline__ V row_sum(V value) {
  if constexpr (kRow < kWarp) {
#pragma unroll
    for (int mask = kRow / 2; mask > 0; mask /= 2) value = value + shuffle_xor(value, mask);
    return value;
  } else if constexpr (kRow == kWarp) {
    return warp_reduce(value, Sum());
  } else {
    return block_reduce<kRow>(value, Sum(), V());
  }
}

template <class T>
struct NormForward {
  const T* x;
  const T* residual;  // null: none, and no sum
  NormColumns weight, bias;
  T* sum;
  T* y;
  ComputeOf<T>* mean;  // null: RMS norm
  ComputeOf<T>* rstd;
  int64_t rows, cols;
  int64_t x_stride, residual_stride, sum_stride, y_stride;
  ComputeOf<T> eps;

  // x + residual, rounded once, of a vector of a row.
  template <int kWidth>
  __device__ __forceinline__ Vec<T, kWidth> add(Vec<T, kWidth> values,
                                                const Vec<T, kWidth>& others) const {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values[j] = narrow<T>(widen(values[j]) + widen(others[j]));
    return values;
  }
  template <int kWidth>
  __device__ __forceinline__ Vec<T, kWidth> normalised(const Vec<T, kWidth>& values, int64_t col,
                                                       ComputeOf<T> row_mean,
                                                       ComputeOf<T> row_rstd) const {
    ComputeOf<T> w[kWidth], b[kWidth] = {};
    load_run_as<kWidth>(weight.data, col, weight.dtype, w);
    if (bias.data) load_run_as<kWidth>(bias.data, col, bias.dtype, b);
    Vec<T, kWidth> result;
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      result[j] = narrow<T>((widen(values[j]) - row_mean) * row_rstd * w[j] + b[j]);
    return result;
  }
};

template <int kWidth, class T>
__device__ __forceinline__ ComputeOf<T> sum_of(const Vec<T, kWidth>& values) {
  ComputeOf<T> total = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) total += widen(values[j]);
  return total;
}

// Σ (x − m) and Σ (x − m)² of a row, m being its mean as the rounding of Σ x left it. The first
// would be 0 for the exact mean: in a constant row 1/√eps would make something of the difference.
template <class C>
struct Deviations {
  C sum = 0, squares = 0;

  __device__ __forceinline__ void add(C deviation) {
    sum += deviation;
    squares += deviation * deviation;
  }
  __device__ __forceinline__ friend Deviations operator+(const Deviations& a, const Deviations& b) {
    Deviations total;
    total.sum = a.sum + b.sum;
    total.squares = a.squares + b.squares;
    return total;
  }
};

template <int kWidth, class T>
__device__ __forceinline__ void add_deviations(const Vec<T, kWidth>& values, ComputeOf<T> mean,
                                               Deviations<ComputeOf<T>>& deviations) {
#pragma unroll
  for (int j = 0; j < kWidth; ++j) deviations.add(widen(values[j]) - mean);
}

template <class C>
struct RowStatistics {
  C mean, rstd;
};

// Of a row with the deviations `row` from `mean`; RMS norm takes the mean to be 0.
template <class T>
__device__ __forceinline__ RowStatistics<ComputeOf<T>> statistics_of(
    const NormForward<T>& a, ComputeOf<T> mean, const Deviations<ComputeOf<T>>& row) {
  using C = ComputeOf<T>;
  const C count = static_cast<C>(a.cols), shift = a.mean ? row.sum / count : C(0);
  const C variance = row.squares / count - shift * shift;
  return {mean + shift, C(1) / sqrt((variance < C(0) ? C(0) : variance) + a.eps)};
}

// Rows of at most kRow·kOwned·kWidth columns.
template <class T, int kRow, int kWidth, int kOwned>
__global__ void __launch_bounds__(kThreads<kRow>, 1280 / kThreads<kRow>)
    norm_forward(NormForward<T> a) {
  using C = ComputeOf<T>;
  constexpr int kRows = kThreads<kRow> / kRow;
  const int lane = threadIdx.x % kRow;
  const int64_t vecs = a.cols / kWidth;
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / kRow;
  if (row >= a.rows) return;  // whole rows leave together

  Vec<T, kWidth> held[kOwned], residual[kOwned];
#pragma unroll
  for (int c = 0; c < kOwned; ++c) {
    const int64_t i = lane + c * kRow;
    if (i >= vecs) continue;
    held[c] = load_vec<kWidth>(a.x + row * a.x_stride + i * kWidth);
    if (a.residual)
      residual[c] = load_vec<kWidth>(a.residual + row * a.residual_stride + i * kWidth);
  }
  C total = 0;
#pragma unroll
  for (int c = 0; c < kOwned; ++c) {
    const int64_t i = lane + c * kRow;
    if (i >= vecs) continue;
    if (a.residual) {
      held[c] = a.add(held[c], residual[c]);
      store_vec(a.sum + row * a.sum_stride + i * kWidth, held[c]);
    }
    total += sum_of(held[c]);
  }
  const C rounded_mean = a.mean ? row_sum<kRow>(total) / static_cast<C>(a.cols) : C(0);
  Deviations<C> deviations;
#pragma unroll
  for (int c = 0; c < kOwned; ++c)
    if (lane + c * kRow < vecs) add_deviations(held[c], rounded_mean, deviations);
  const auto [mean, rstd] = statistics_of(a, rounded_mean, row_sum<kRow>(deviations));
  if (lane == 0) {
    if (a.mean) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
#pragma unroll
  for (int c = 0; c < kOwned; ++c) {
    const int64_t i = lane + c * kRow;
    if (i < vecs)
      store_vec(a.y + row * a.y_stride + i * kWidth, a.normalised(held[c], i * kWidth, mean, rstd));
  }
}

// Rows of any length: a block each, read three times.
template <class T, int kWidth>
__global__ void __launch_bounds__(kBlock) norm_forward_long(NormForward<T> a) {
  using C = ComputeOf<T>;
  const int64_t row = blockIdx.x, vecs = a.cols / kWidth;
  const T* x = a.x + row * a.x_stride;
  C total = 0;
  for (int64_t i = threadIdx.x; i < vecs; i += kBlock) {
    Vec<T, kWidth> values = load_vec<kWidth>(x + i * kWidth);
    if (a.residual) {
      values = a.add(values, load_vec<kWidth>(a.residual + row * a.residual_stride + i * kWidth));
      store_vec(a.sum + row * a.sum_stride + i * kWidth, values);
    }
    total += sum_of(values);
  }
  if (a.residual) x = a.sum + row * a.sum_stride;  // each thread reads what it wrote
  const C rounded_mean = a.mean ? row_sum<kBlock>(total) / static_cast<C>(a.cols) : C(0);
  Deviations<C> deviations;
  for (int64_t i = threadIdx.x; i < vecs; i += kBlock)
    add_deviations(load_vec<kWidth>(x + i * kWidth), rounded_mean, deviations);
  const auto [mean, rstd] = statistics_of(a, rounded_mean, row_sum<kBlock>(deviations));
  if (threadIdx.x == 0) {
    if (a.mean) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  for (int64_t i = threadIdx.x; i < vecs; i += kBlock)
    store_vec(a.y + row * a.y_stride + i * kWidth,
              a.normalised(load_vec<kWidth>(x + i * kWidth), i * kWidth, mean, rstd));
}

template <class T, int kRow, int kOwned>
void launch_in_registers(const char* name, const NormForward<T>& args) {
  launch(name, norm_forward<T, kRow, kVecWidth<T>, kOwned>,
         one_block_each(ceil_div(args.rows, kThreads<kRow> / kRow)), kThreads<kRow>, 0, args);
}

template <class T>
void launch_forward(const char* name, const NormForward<T>& args, bool aligned) {
  constexpr int kWidth = kVecWidth<T>;
  const unsigned rows = one_block_each(args.rows);
  if (!aligned || args.cols % kWidth != 0)
    return launch(name, norm_forward_long<T, 1>, rows, kBlock, 0, args);
  if constexpr (!std::is_same_v<T, double>) {
    const int64_t vecs = args.cols / kWidth;
    if (vecs <= 2 * kFewLanes) return launch_in_registers<T, kFewLanes, 2>(name, args);
    if (vecs <= 2 * kWarp) return launch_in_registers<T, kWarp, 2>(name, args);
    if (vecs <= 3 * kWarp) return launch_in_registers<T, kWarp, 3>(name, args);
    if (vecs <= 4 * kWarp) return launch_in_registers<T, kWarp, 4>(name, args);
    if (vecs <= 8 * kWarp) return launch_in_registers<T, 4 * kWarp, 2>(name, args);
    if (vecs <= 16 * kWarp) return launch_in_registers<T, 4 * kWarp, 4>(name, args);
  }
  launch(name, norm_forward_long<T, kWidth>, rows, kBlock, 0, args);
}

void forward(const char* name, const Array& x, const Array& residual, const Array& any_weight,
             const Array& any_bias, double eps, const Array& sum, const Array& y, const Array& mean,
             const Array& rstd) {
  if (x.numel() == 0) return;
  const Array weight = NormColumns::packed(any_weight), bias = NormColumns::packed(any_bias);
  visit_floating(x.dtype(), name, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const NormForward<T> args{device_data<T>(x),
                              data_or_null<T>(residual),
                              NormColumns::of(weight),
                              NormColumns::of(bias),
                              data_or_null<T>(sum),
                              device_data<T>(y),
                              data_or_null<C>(mean),
                              device_data<C>(rstd),
                              x.size(0),
                              x.size(1),
                              row_stride(x),
                              row_stride(residual),
                              row_stride(sum),
                              row_stride(y),
                              static_cast<C>(eps)};
    launch_forward(name, args,
                   has_aligned_rows(x) && has_aligned_rows(residual) && has_aligned_rows(sum) &&
                       has_aligned_rows(y) && is_run_aligned(weight, kVecWidth<T>) &&
                       is_run_aligned(bias, kVecWidth<T>));
  });
}

}  // namespace

void layer_norm(const Array& x, const Array& weight, const Array& bias, double eps, const Array& y,
                const Array& mean, const Array& rstd) {
  forward("layer_norm", x, {}, weight, bias, eps, {}, y, mean, rstd);
}

void rms_norm(const Array& x, const Array& weight, double eps, const Array& y, const Array& rstd) {
  forward("rms_norm", x, {}, weight, {}, eps, {}, y, {}, rstd);
}

void add_norm(const Array& x, const Array& residual, const Array& weight, const Array& bias,
              double eps, const Array& sum, const Array& y, const Array& mean, const Array& rstd) {
  forward("add_norm", x, residual, weight, bias, eps, sum, y, mean, rstd);
}

}  // namespace binade::kernels::cuda
