// Layer norm and RMS norm, backward. A block owns all columns, a thread one vector of them, and
// takes a few rows at a time: their vectors are under way together, and the threads' sums over the
// rows (gradients of weight and bias, column sums of dx) stay in registers until the end, when each
// block leaves them for a second kernel to fold. Rows of at most a warp's vectors are taken many at
// a time, as many as a block has room for. Rows that are longer than a block's vectors, or
// unaligned, are read twice.
#include <binade/core/kernels/cuda/common/column_fold.cuh>
#include <binade/core/kernels/cuda/norm/norm.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kGroup = 4;      // rows that a block takes at a time
constexpr int kLongOwned = 4;  // vectors of a long row whose columns a thread sums
constexpr int kSums = 3;       // dweight, dbias, dx_sums

template <class C>
struct Pair {
  C first = 0, second = 0;
  __device__ __forceinline__ Pair operator+(const Pair& other) const {
    return {first + other.first, second + other.second};
  }
};

template <class T>
struct NormBackward {
  using C = ComputeOf<T>;
  const T* dy;
  const T* x;
  NormColumns weight;
  const C* mean;  // null: RMS norm
  const C* rstd;
  T* dx;  // null: not asked for
  C dx_beta;
  C* sums[kSums];  // (blocks, cols) of each block's rows; null: not asked for
  int64_t rows, cols;
  int64_t dy_stride, x_stride, dx_stride;
};

// What a row's gradient needs beside its elements.
template <class C>
struct RowTerms {
  C mean = 0, rstd = 0, mean_g = 0, mean_gx = 0;

  __device__ __forceinline__ C normed(C x) const { return (x - mean) * rstd; }
  // `g` is dy · weight.
  __device__ __forceinline__ C input_gradient(C normed, C g) const {
    return (g - mean_g - normed * mean_gx) * rstd;
  }
};

template <class T>
__device__ __forceinline__ RowTerms<ComputeOf<T>> row_terms(const NormBackward<T>& a, int64_t row) {
  RowTerms<ComputeOf<T>> terms;
  if (a.mean) terms.mean = a.mean[row];
  terms.rstd = a.rstd[row];
  return terms;
}

template <class T>
__device__ __forceinline__ void take_means(const NormBackward<T>& a,
                                           const Pair<ComputeOf<T>>& totals,
                                           RowTerms<ComputeOf<T>>& terms) {
  const ComputeOf<T> share = ComputeOf<T>(1) / static_cast<ComputeOf<T>>(a.cols);
  if (a.mean) terms.mean_g = totals.first * share;
  terms.mean_gx = totals.second * share;
}

// The sums of one vector's columns over a thread's rows.
template <class C, int kWidth>
struct ColumnSums {
  C sum[kSums][kWidth] = {};

  __device__ __forceinline__ void add(int j, C dy, C normed) {
    sum[0][j] += dy * normed;
    sum[1][j] += dy;
  }
  template <class T>
  __device__ void write(const NormBackward<T>& a, int64_t col) const {
#pragma unroll
    for (int which = 0; which < kSums; ++which) {
      if (!a.sums[which]) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) a.sums[which][blockIdx.x * a.cols + col + j] = sum[which][j];
    }
  }
};

// dx = beta·dx + result; the column sums are of what is stored.
template <int kWidth, class T>
__device__ __forceinline__ void store_gradient(const NormBackward<T>& a, int64_t row, int64_t col,
                                               ComputeOf<T> (&result)[kWidth],
                                               const Vec<T, kWidth>& old,
                                               ColumnSums<ComputeOf<T>, kWidth>& sums) {
  Vec<T, kWidth> out;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (a.dx_beta != ComputeOf<T>(0)) result[j] += widen(old[j]);
    out[j] = narrow<T>(result[j]);
    sums.sum[2][j] += widen(out[j]);
  }
  store_vec(a.dx + row * a.dx_stride + col, out);
}

// A thread's vectors of some rows.
template <class T, int kRows>
struct RowGroup {
  using C = ComputeOf<T>;
  static constexpr int kWidth = kVecWidth<T>;

  __device__ __forceinline__ void load(const NormBackward<T>& a, int r, int64_t row, int64_t col,
                                       bool adds) {
    dy[r] = load_vec<kWidth>(a.dy + row * a.dy_stride + col);
    x[r] = load_vec<kWidth>(a.x + row * a.x_stride + col);
    if (adds) old[r] = load_vec<kWidth>(a.dx + row * a.dx_stride + col);
    terms[r] = row_terms(a, row);
  }
  // Adds to the sums of the columns; what the vector adds to those of its row.
  __device__ __forceinline__ Pair<C> add(int r, const C (&w)[kWidth],
                                         ColumnSums<C, kWidth>& sums) const {
    Pair<C> totals;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const C grad = widen(dy[r][j]), normed = terms[r].normed(widen(x[r][j]));
      sums.add(j, grad, normed);
      totals = totals + Pair<C>{grad * w[j], grad * w[j] * normed};
    }
    return totals;
  }
  // The input gradient, when the row's totals are known.
  __device__ __forceinline__ void store(const NormBackward<T>& a, int r, int64_t row, int64_t col,
                                        const Pair<C>& totals, const C (&w)[kWidth],
                                        ColumnSums<C, kWidth>& sums) {
    take_means(a, totals, terms[r]);
    C result[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      result[j] = terms[r].input_gradient(terms[r].normed(widen(x[r][j])), widen(dy[r][j]) * w[j]);
    store_gradient(a, row, col, result, old[r], sums);
  }

  Vec<T, kWidth> dy[kRows], x[kRows], old[kRows];
  RowTerms<C> terms[kRows];
};

constexpr int kResidentThreads = 512;  // of a multiprocessor: 128 registers each

// Rows of at most blockDim.x vectors.
template <class T, int kMaxThreads>
__global__ void __launch_bounds__(kMaxThreads, kResidentThreads / kMaxThreads)
    norm_backward(NormBackward<T> a) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  // A row's sums in each warp; two sets, so that one barrier a turn will do.
  __shared__ Pair<C> shared[2][kMaxThreads / kWarp][kGroup];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t col = int64_t{threadIdx.x} * kWidth;
  const bool owns = col < a.cols;
  const bool adds = a.dx && a.dx_beta != C(0);
  ColumnSums<C, kWidth> sums;
  C w[kWidth] = {};
  if (owns) load_run_as<kWidth>(a.weight.data, col, a.weight.dtype, w);

  int turn = 0;
  for (int64_t first = int64_t{blockIdx.x} * kGroup; first < a.rows;
       first += int64_t{gridDim.x} * kGroup, turn ^= 1) {
    RowGroup<T, kGroup> rows;
#pragma unroll
    for (int r = 0; r < kGroup; ++r) {
      if (owns && first + r < a.rows) rows.load(a, r, first + r, col, adds);
    }
#pragma unroll
    for (int r = 0; r < kGroup; ++r) {
      Pair<C> totals;
      if (owns && first + r < a.rows) totals = rows.add(r, w, sums);
      if (!a.dx) continue;
      totals = warp_reduce(totals, Sum());
      if (lane == 0) shared[turn][warp][r] = totals;
    }
    if (!a.dx) continue;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kGroup; ++r) {
      if (!owns || first + r >= a.rows) continue;
      Pair<C> totals = shared[turn][0][r];
      for (int other = 1; other < warps; ++other) totals = totals + shared[turn][other][r];
      rows.store(a, r, first + r, col, totals, w, sums);
    }
  }
  if (owns) sums.write(a, col);
}

// Rows of at most kWarp vectors: `lanes` threads share one, a power of two, and a block takes
// kBlock / lanes of them in a turn, kNarrowGroup times.
constexpr int kNarrowGroup = 2, kNarrowBlocks = 2;  // of a thread, a multiprocessor
template <class T>
__global__ void __launch_bounds__(kBlock, kNarrowBlocks)
    norm_backward_narrow(NormBackward<T> a, int lanes) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>, kWarps = kBlock / kWarp;
  __shared__ C of_warps[kWarps][kWarp * kWidth];
  const int lane = threadIdx.x % lanes, place = threadIdx.x / lanes, places = kBlock / lanes;
  const int64_t col = int64_t{lane} * kWidth;
  const bool owns = col < a.cols, adds = a.dx && a.dx_beta != C(0);
  ColumnSums<C, kWidth> sums;
  C w[kWidth] = {};
  if (owns) load_run_as<kWidth>(a.weight.data, col, a.weight.dtype, w);

  const int64_t turn = int64_t{places} * kNarrowGroup;
  for (int64_t first = blockIdx.x * turn; first < a.rows; first += gridDim.x * turn) {
    RowGroup<T, kNarrowGroup> rows;
    const auto row_of = [&](int r) { return first + r * places + place; };
#pragma unroll
    for (int r = 0; r < kNarrowGroup; ++r) {
      if (owns && row_of(r) < a.rows) rows.load(a, r, row_of(r), col, adds);
    }
#pragma unroll
    for (int r = 0; r < kNarrowGroup; ++r) {
      const bool there = owns && row_of(r) < a.rows;
      Pair<C> totals;
      if (there) totals = rows.add(r, w, sums);
      if (!a.dx) continue;
      for (int mask = lanes / 2; mask > 0; mask /= 2) totals = totals + shuffle_xor(totals, mask);
      if (!there) continue;
      rows.store(a, r, row_of(r), col, totals, w, sums);
    }
  }

  // The sums of a warp's places, and then of the block's warps.
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    if (!a.sums[which]) continue;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      C sum = sums.sum[which][j];
      for (int mask = lanes; mask < kWarp; mask *= 2) sum += shuffle_xor(sum, mask);
      if (threadIdx.x % kWarp < lanes) of_warps[threadIdx.x / kWarp][col + j] = sum;
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < a.cols; c += kBlock) {
      C total = of_warps[0][c];
#pragma unroll
      for (int warp = 1; warp < kWarps; ++warp) total += of_warps[warp][c];
      a.sums[which][blockIdx.x * a.cols + c] = total;
    }
  }
}

// Rows of any length, read twice by a block. The sums over a row are of its whole width, but only
// the vectors from `first` on are written, as many as the threads' registers can sum over the rows.
template <class T, int kWidth>
__global__ void __launch_bounds__(kBlock) norm_backward_long(NormBackward<T> a, int64_t first) {
  using C = ComputeOf<T>;
  const int64_t vecs = a.cols / kWidth;
  ColumnSums<C, kWidth> sums[kLongOwned];
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    RowTerms<C> terms = row_terms(a, row);
    // Calls work(j, dy, normalised x, dy · weight) for the elements of vector i.
    const auto visit = [&](int64_t i, const auto& work) {
      const auto dy = load_vec<kWidth>(a.dy + row * a.dy_stride + i * kWidth);
      const auto x = load_vec<kWidth>(a.x + row * a.x_stride + i * kWidth);
      C w[kWidth];
      load_run_as<kWidth>(a.weight.data, i * kWidth, a.weight.dtype, w);
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        work(j, widen(dy[j]), terms.normed(widen(x[j])), widen(dy[j]) * w[j]);
    };
    if (a.dx) {
      Pair<C> totals;
      for (int64_t i = threadIdx.x; i < vecs; i += kBlock)
        visit(i, [&](int, C, C normed, C g) { totals = totals + Pair<C>{g, g * normed}; });
      take_means(a, block_reduce<kBlock>(totals, Sum(), Pair<C>()), terms);
    }
#pragma unroll
    for (int c = 0; c < kLongOwned; ++c) {
      const int64_t i = first + threadIdx.x + c * kBlock;
      if (i >= vecs) continue;
      C result[kWidth];
      visit(i, [&](int j, C dy, C normed, C g) {
        sums[c].add(j, dy, normed);
        result[j] = terms.input_gradient(normed, g);
      });
      if (!a.dx) continue;
      const T* dx = a.dx + row * a.dx_stride + i * kWidth;
      store_gradient(a, row, i * kWidth, result,
                     a.dx_beta != C(0) ? load_vec<kWidth>(dx) : Vec<T, kWidth>(), sums[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kLongOwned; ++c) {
    const int64_t i = first + threadIdx.x + c * kBlock;
    if (i < vecs) sums[c].write(a, i * kWidth);
  }
}

// Blocks that are resident together, so many a multiprocessor, and share the rows evenly.
unsigned resident_blocks(int64_t items, int64_t each) {
  const int64_t blocks = ::binade::cuda::device_properties().multiprocessors * each;
  return static_cast<unsigned>(std::min(items, blocks));
}

// The sums' destinations in the order of NormBackward::sums.
struct SumTargets {
  Array array[kSums];
  float beta[kSums];
};

void backward(const char* name, const Array& dy, const Array& x, const Array& any_weight,
              const Array& mean, const Array& rstd, const Array& dx, float dx_beta,
              const SumTargets& targets) {
  if (x.size(1) == 0) return;  // without rows there are still sums
  const Array weight = NormColumns::packed(any_weight);
  visit_floating(x.dtype(), name, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const int64_t rows = x.size(0), cols = x.size(1);
    constexpr int kWidth = kVecWidth<T>;
    const bool aligned = cols % kWidth == 0 && has_aligned_rows(dy) && has_aligned_rows(x) &&
                         has_aligned_rows(dx) && is_run_aligned(weight, kWidth);
    const bool fits = aligned && cols <= kResidentThreads * kWidth && !std::is_same_v<T, double>;
    const bool narrow = fits && cols <= kWarp * kWidth;
    int lanes = 1;  // of a narrow row
    while (lanes * kWidth < cols) lanes *= 2;
    const int64_t threads = fits && !narrow ? ceil_div(cols / kWidth, kWarp) * kWarp : kBlock;
    const int64_t rows_of_block = narrow ? kBlock / lanes * kNarrowGroup : fits ? kGroup : 1;
    const unsigned blocks =
        resident_blocks(ceil_div(rows, rows_of_block),
                        narrow ? kNarrowBlocks : std::max<int64_t>(kResidentThreads / threads, 1));
    NormBackward<T> args{device_data<T>(dy),
                         device_data<T>(x),
                         NormColumns::of(weight),
                         data_or_null<C>(mean),
                         device_data<C>(rstd),
                         data_or_null<T>(dx),
                         static_cast<C>(dx_beta),
                         {},
                         rows,
                         cols,
                         row_stride(dy),
                         row_stride(x),
                         row_stride(dx)};
    FoldTargets<C> folds;
    for (const Array& target : targets.array) folds.count += target.defined();
    const Workspace<C> partials(folds.count * blocks * cols);
    for (int which = 0, slot = 0; which < kSums; ++which) {
      const Array& target = targets.array[which];
      if (!target.defined()) continue;
      args.sums[which] = partials.data() + slot * blocks * cols;
      folds.target[slot++] = {device_pointer(target), target.dtype(), 1, targets.beta[which] != 0};
    }
    const auto launch_long = [&](auto kernel, int64_t vecs) {
      for (int64_t first = 0; first < vecs; first += kBlock * kLongOwned)
        launch(name, kernel, blocks, kBlock, 0, args, first);
    };
    if (narrow) {
      if constexpr (!std::is_same_v<T, double>)
        launch(name, norm_backward_narrow<T>, blocks, kBlock, 0, args, lanes);
    } else if (fits) {
      if constexpr (!std::is_same_v<T, double>)
        launch(name,
               threads <= 128   ? norm_backward<T, 128>
               : threads <= 256 ? norm_backward<T, 256>
                                : norm_backward<T, 512>,
               blocks, static_cast<unsigned>(threads), 0, args);
    } else if (aligned) {
      launch_long(norm_backward_long<T, kWidth>, cols / kWidth);
    } else {
      launch_long(norm_backward_long<T, 1>, cols);
    }
    if (folds.count > 0) fold_partials(partials.data(), blocks, cols, 1, SumFold<C>(), folds);
  });
}

}  // namespace

void layer_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, float dx_beta, const Array& dweight,
                         float dweight_beta, const Array& dbias, float dbias_beta,
                         const Array& dx_sums) {
  backward("layer_norm_backward", dy, x, weight, mean, rstd, dx, dx_beta,
           {{dweight, dbias, dx_sums}, {dweight_beta, dbias_beta, 0}});
}

void rms_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& rstd,
                       const Array& dx, float dx_beta, const Array& dweight, float dweight_beta) {
  backward("rms_norm_backward", dy, x, weight, {}, rstd, dx, dx_beta,
           {{dweight, {}, {}}, {dweight_beta, 0, 0}});
}

}  // namespace binade::kernels::cuda
