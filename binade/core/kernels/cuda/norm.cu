// Layer norm and RMS norm. A row belongs to one warp, or to one block when it is long; its elements
// stay in registers between the statistics and the result. Column sums (weight and bias gradients)
// are kept in registers by the threads that own the columns, then added up in a second kernel.
#include <binade/core/kernels/norm.h>

#include "block_reduce.cuh"
#include "launch.cuh"
#include "numeric.cuh"
#include "vec.cuh"
#include "vec_dtype.cuh"

namespace binade::kernels::cuda {

namespace {

constexpr int kOwned = 4;          // vectors of a row that a thread holds
constexpr int kMaxPartials = 256;  // blocks that share the column sums

// Sum over the kRow threads that share a row.
template <int kRow, class V>
__device__ __forceinline__ V row_sum(V value) {
  if constexpr (kRow == kWarp) {
    return warp_reduce(value, Sum());
  } else {
    return block_reduce<kRow>(value, Sum(), V());
  }
}

template <class C>
struct Pair {
  C first = 0, second = 0;
  __device__ __forceinline__ Pair operator+(const Pair& other) const {
    return {first + other.first, second + other.second};
  }
};

// A vector along the columns, of any floating dtype; null: not there.
struct Columns {
  const void* data;
  DType dtype;
};

Columns columns_of(const Array& array) {
  return array.defined() ? Columns{array.data(), array.dtype()} : Columns{nullptr, DType::f32};
}

template <class T>
struct NormForward {
  const T* x;
  const T* residual;  // null: none, and no sum
  Columns weight, bias;
  T* sum;
  T* y;
  ComputeOf<T>* mean;  // null: RMS norm
  ComputeOf<T>* rstd;
  int64_t rows, cols;
  int64_t x_stride, residual_stride, sum_stride, y_stride;
  ComputeOf<T> eps;
};

template <class T, int kRow, int kWidth>
__global__ void __launch_bounds__(kBlock) norm_forward(NormForward<T> a) {
  using C = ComputeOf<T>;
  const int64_t row = int64_t{blockIdx.x} * (kBlock / kRow) + threadIdx.x / kRow;
  if (row >= a.rows) return;  // whole rows leave together
  const int lane = threadIdx.x % kRow;
  const int64_t vecs = a.cols / kWidth;
  const T* x = a.x + row * a.x_stride;
  T* sum = a.residual ? a.sum + row * a.sum_stride : nullptr;

  C total = 0;
  const auto first_visit = [&](int64_t i) {
    Vec<T, kWidth> values = load_vec<kWidth>(x + i * kWidth);
    if (a.residual) {
      const auto other = load_vec<kWidth>(a.residual + row * a.residual_stride + i * kWidth);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) values[j] = narrow<T>(widen(values[j]) + widen(other[j]));
      store_vec(sum + i * kWidth, values);
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) total += widen(values[j]);
    return values;
  };
  Vec<T, kWidth> held[kOwned];
#pragma unroll
  for (int c = 0; c < kOwned; ++c) {
    const int64_t i = lane + c * kRow;
    if (i < vecs) held[c] = first_visit(i);
  }
  for (int64_t i = lane + kOwned * kRow; i < vecs; i += kRow) first_visit(i);

  // What did not fit into the registers is read again.
  const T* source = a.residual ? sum : x;
  const auto visit = [&](const auto& work) {
#pragma unroll
    for (int c = 0; c < kOwned; ++c) {
      const int64_t i = lane + c * kRow;
      if (i < vecs) work(i, held[c]);
    }
    for (int64_t i = lane + kOwned * kRow; i < vecs; i += kRow)
      work(i, load_vec<kWidth>(source + i * kWidth));
  };

  const C mean = a.mean ? row_sum<kRow>(total) / static_cast<C>(a.cols) : C(0);
  C squares = 0;
  visit([&](int64_t, const Vec<T, kWidth>& values) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const C centred = widen(values[j]) - mean;
      squares += centred * centred;
    }
  });
  const C rstd = C(1) / sqrt(row_sum<kRow>(squares) / static_cast<C>(a.cols) + a.eps);
  if (lane == 0) {
    if (a.mean) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  T* y = a.y + row * a.y_stride;
  visit([&](int64_t i, const Vec<T, kWidth>& values) {
    C weight[kWidth], bias[kWidth] = {};
    load_run_as<kWidth>(a.weight.data, i * kWidth, a.weight.dtype, weight);
    if (a.bias.data) load_run_as<kWidth>(a.bias.data, i * kWidth, a.bias.dtype, bias);
    Vec<T, kWidth> result;
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      result[j] = narrow<T>((widen(values[j]) - mean) * rstd * weight[j] + bias[j]);
    store_vec(y + i * kWidth, result);
  });
}

template <class T>
struct NormBackward {
  const T* dy;
  const T* x;
  Columns weight;
  const ComputeOf<T>* mean;  // null: RMS norm
  const ComputeOf<T>* rstd;
  T* dx;  // null: not asked for
  ComputeOf<T> dx_beta;
  ComputeOf<T>* dweight;  // (blocks, cols) sums of each block's rows; null: not asked for
  ComputeOf<T>* dbias;
  int64_t rows, cols;
  int64_t dy_stride, x_stride, dx_stride;
};

// Rows of the whole width are summed, but only columns [first_col, first_col + kRow·kOwned·kWidth)
// are written: as many as the threads' registers can sum over the rows.
template <class T, int kRow, int kWidth>
__global__ void __launch_bounds__(kBlock) norm_backward(NormBackward<T> a, int64_t first_col) {
  using C = ComputeOf<T>;
  constexpr int kRows = kBlock / kRow;
  const int slot = threadIdx.x / kRow;
  const int lane = threadIdx.x % kRow;
  const int64_t vecs = a.cols / kWidth;
  C dweight[kOwned][kWidth] = {}, dbias[kOwned][kWidth] = {};

  for (int64_t row = int64_t{blockIdx.x} * kRows + slot; row < a.rows;
       row += int64_t{gridDim.x} * kRows) {
    const C mean = a.mean ? a.mean[row] : C(0);
    const C rstd = a.rstd[row];
    // Calls work(vector, dy, normalised x, dy · weight).
    const auto visit = [&](int64_t i, const auto& work) {
      const auto dy = load_vec<kWidth>(a.dy + row * a.dy_stride + i * kWidth);
      const auto x = load_vec<kWidth>(a.x + row * a.x_stride + i * kWidth);
      C weight[kWidth];
      load_run_as<kWidth>(a.weight.data, i * kWidth, a.weight.dtype, weight);
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        work(j, widen(dy[j]), (widen(x[j]) - mean) * rstd, widen(dy[j]) * weight[j]);
    };
    Pair<C> sums;
    if (a.dx) {
      for (int64_t i = lane; i < vecs; i += kRow)
        visit(i, [&](int, C, C normed, C g) { sums = sums + Pair<C>{g, g * normed}; });
      sums = row_sum<kRow>(sums);
    }
    const C mean_g = a.mean ? sums.first / static_cast<C>(a.cols) : C(0);
    const C mean_gx = sums.second / static_cast<C>(a.cols);
#pragma unroll
    for (int c = 0; c < kOwned; ++c) {
      const int64_t i = first_col / kWidth + lane + c * kRow;
      if (i >= vecs) continue;
      T* dx = a.dx ? a.dx + row * a.dx_stride + i * kWidth : nullptr;
      C result[kWidth];
      visit(i, [&](int j, C dy, C normed, C g) {
        dweight[c][j] += dy * normed;
        dbias[c][j] += dy;
        result[j] = (g - mean_g - normed * mean_gx) * rstd;
      });
      if (!dx) continue;
      Vec<T, kWidth> out;
      if (a.dx_beta != C(0)) {
        const auto old = load_vec<kWidth>(dx);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) result[j] += a.dx_beta * widen(old[j]);
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) out[j] = narrow<T>(result[j]);
      store_vec(dx, out);
    }
  }

  if (!a.dweight && !a.dbias) return;
  if constexpr (kRows > 1) {  // the block's rows, one slot after the other
    __shared__ C total[2][kOwned * kWidth][kRow];
    for (int turn = 0; turn < kRows; ++turn) {
      if (slot == turn) {
#pragma unroll
        for (int c = 0; c < kOwned; ++c) {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            C* sums = &total[0][c * kWidth + j][lane];
            C* bias_sums = &total[1][c * kWidth + j][lane];
            if (turn > 0) {
              dweight[c][j] += *sums;
              dbias[c][j] += *bias_sums;
            }
            *sums = dweight[c][j];
            *bias_sums = dbias[c][j];
          }
        }
      }
      __syncthreads();
    }
    if (slot != kRows - 1) return;  // the last slot's registers hold the sums
  }
#pragma unroll
  for (int c = 0; c < kOwned; ++c) {
    const int64_t i = first_col / kWidth + lane + c * kRow;
    if (i >= vecs) continue;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const int64_t place = blockIdx.x * a.cols + i * kWidth + j;
      if (a.dweight) a.dweight[place] = dweight[c][j];
      if (a.dbias) a.dbias[place] = dbias[c][j];
    }
  }
}

// out (cols) = beta·out + Σ over `count` rows of partials (count, cols). A block takes 32 columns,
// each of its 8 warps every 8th row.
template <class C>
__global__ void __launch_bounds__(kBlock)
    sum_partials(const C* partials, int64_t count, int64_t cols, void* out, DType dtype, C beta) {
  constexpr int kWarps = kBlock / kWarp;
  __shared__ C total[kWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t col = int64_t{blockIdx.x} * kWarp + lane;
  C sum = 0;
  if (col < cols)
    for (int64_t i = warp; i < count; i += kWarps) sum += partials[i * cols + col];
  total[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || col >= cols) return;
  for (int w = 1; w < kWarps; ++w) sum += total[w][lane];
  if (beta != C(0)) sum += beta * load_as<C>(out, col, dtype);
  store_as(out, col, dtype, sum);
}

// Calls run<kRow, kWidth>() for rows of `cols` elements: a warp where its registers hold a row, a
// block for longer ones, and single elements where vectors are not aligned.
template <class T, class Run>
void pick_row_shape(bool aligned, int64_t cols, const Run& run) {
  constexpr int kWidth = kVecWidth<T>;
  if (!aligned || cols % kWidth != 0) {
    run.template operator()<kBlock, 1>();
  } else if (cols <= kWarp * kOwned * kWidth) {
    run.template operator()<kWarp, kWidth>();
  } else {
    run.template operator()<kBlock, kWidth>();
  }
}

bool has_aligned_rows(const Array& x) {
  return !x.defined() || rows_aligned(x.data(), x.stride(0), size_of(x.dtype()));
}

template <class T>
T* data_or_null(const Array& array) {
  return array.defined() ? device_data<T>(array) : nullptr;
}

int64_t row_stride(const Array& x) {
  return x.defined() ? x.stride(0) : 0;
}

// Weights are short: a strided one is packed rather than read with a stride.
Array packed(const Array& columns) {
  return columns.defined() ? columns.contiguous() : columns;
}

void forward(const char* name, const Array& x, const Array& residual, const Array& any_weight,
             const Array& any_bias, float eps, const Array& sum, const Array& y, const Array& mean,
             const Array& rstd) {
  const Array weight = packed(any_weight), bias = packed(any_bias);
  visit_floating(x.dtype(), name, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const NormForward<T> args{device_data<T>(x),
                              data_or_null<T>(residual),
                              columns_of(weight),
                              columns_of(bias),
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
    const bool aligned = has_aligned_rows(x) && has_aligned_rows(residual) &&
                         has_aligned_rows(sum) && has_aligned_rows(y) &&
                         is_run_aligned(weight, kVecWidth<T>) && is_run_aligned(bias, kVecWidth<T>);
    pick_row_shape<T>(aligned, args.cols, [&]<int kRow, int kWidth>() {
      launch(name, norm_forward<T, kRow, kWidth>,
             one_block_each(ceil_div(args.rows, kBlock / kRow)), kBlock, 0, args);
    });
  });
}

void backward(const char* name, const Array& dy, const Array& x, const Array& any_weight,
              const Array& mean, const Array& rstd, const Array& dx, float dx_beta,
              const Array& dweight, float dweight_beta, const Array& dbias, float dbias_beta) {
  const Array weight = packed(any_weight);
  visit_floating(x.dtype(), name, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const int64_t rows = x.size(0), cols = x.size(1);
    const bool aligned = has_aligned_rows(dy) && has_aligned_rows(x) && has_aligned_rows(dx) &&
                         is_run_aligned(weight, kVecWidth<T>);
    pick_row_shape<T>(aligned, cols, [&]<int kRow, int kWidth>() {
      const int64_t blocks = std::min<int64_t>(ceil_div(rows, kBlock / kRow), kMaxPartials);
      const Workspace<C> weight_sums(dweight.defined() ? blocks * cols : 0);
      const Workspace<C> bias_sums(dbias.defined() ? blocks * cols : 0);
      const NormBackward<T> args{device_data<T>(dy),
                                 device_data<T>(x),
                                 columns_of(weight),
                                 data_or_null<C>(mean),
                                 device_data<C>(rstd),
                                 data_or_null<T>(dx),
                                 static_cast<C>(dx_beta),
                                 dweight.defined() ? weight_sums.data() : nullptr,
                                 dbias.defined() ? bias_sums.data() : nullptr,
                                 rows,
                                 cols,
                                 row_stride(dy),
                                 row_stride(x),
                                 row_stride(dx)};
      constexpr int64_t kColsPerLaunch = kRow * kOwned * kWidth;
      for (int64_t first_col = 0; first_col < cols; first_col += kColsPerLaunch)
        launch(name, norm_backward<T, kRow, kWidth>, static_cast<unsigned>(blocks), kBlock, 0, args,
               first_col);
      const auto finish = [&](const Workspace<C>& sums, const Array& out, float beta) {
        if (!out.defined()) return;
        launch("sum_partials", sum_partials<C>, one_block_each(ceil_div(cols, kWarp)), kBlock, 0,
               sums.data(), blocks, cols, out.data(), out.dtype(), static_cast<C>(beta));
      };
      finish(weight_sums, dweight, dweight_beta);
      finish(bias_sums, dbias, dbias_beta);
    });
  });
}

}  // namespace

void layer_norm(const Array& x, const Array& weight, const Array& bias, float eps, const Array& y,
                const Array& mean, const Array& rstd) {
  forward("layer_norm", x, {}, weight, bias, eps, {}, y, mean, rstd);
}

void layer_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, float dx_beta, const Array& dweight,
                         float dweight_beta, const Array& dbias, float dbias_beta) {
  backward("layer_norm_backward", dy, x, weight, mean, rstd, dx, dx_beta, dweight, dweight_beta,
           dbias, dbias_beta);
}

void rms_norm(const Array& x, const Array& weight, float eps, const Array& y, const Array& rstd) {
  forward("rms_norm", x, {}, weight, {}, eps, {}, y, {}, rstd);
}

void rms_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& rstd,
                       const Array& dx, float dx_beta, const Array& dweight, float dweight_beta) {
  backward("rms_norm_backward", dy, x, weight, {}, rstd, dx, dx_beta, dweight, dweight_beta, {}, 0);
}

void add_norm(const Array& x, const Array& residual, const Array& weight, const Array& bias,
              float eps, const Array& sum, const Array& y, const Array& mean, const Array& rstd) {
  forward("add_norm", x, residual, weight, bias, eps, sum, y, mean, rstd);
}

}  // namespace binade::kernels::cuda
