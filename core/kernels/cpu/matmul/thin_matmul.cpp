#include <binade/core/kernels/cpu/matmul/thin_matmul.h>

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include <binade/core/kernels/cpu/common/parallel.h>

namespace binade::kernels::cpu {

namespace {

constexpr int64_t kMostRows = 16;
constexpr int64_t kStep = 16;  // elements of a column at a time, as two vectors

// Two vectors of f32 from 16 elements of a column. Those of bf16 are the even and the odd elements,
// which takes a shift and a mask; `place` says where an element of a row belongs so that it meets
// its own.
template <class W>
struct Columns {
  static int64_t place(int64_t i) { return i; }
  static void load(const W* from, __m256& low, __m256& high) {
    if constexpr (std::is_same_v<W, float>) {
      low = _mm256_loadu_ps(from);
      high = _mm256_loadu_ps(from + 8);
    } else {
      low = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      high = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8)));
    }
  }
};
template <>
struct Columns<BFloat16> {
  static int64_t place(int64_t i) { return i / kStep * kStep + i % 2 * 8 + i % kStep / 2; }
  static void load(const BFloat16* from, __m256& even, __m256& odd) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    odd = _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
  }
};

float sum_of_lanes(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The sums of one column with each row. Rows hold whole steps, filled up with zeros. One column
// after another is one stream through memory, which the processor reads ahead best.
template <class W, int Rows>
void multiply_column(const W* column, int64_t k, const float* rows, int64_t row_stride,
                     float* sums) {
  __m256 low_sums[Rows], high_sums[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) low_sums[r] = high_sums[r] = _mm256_setzero_ps();
  const auto add_step = [&](const W* from, const float* row) __attribute__((always_inline)) {
    __m256 low, high;
    Columns<W>::load(from, low, high);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const float* const x = row + r * row_stride;
      low_sums[r] = _mm256_fmadd_ps(low, _mm256_loadu_ps(x), low_sums[r]);
      high_sums[r] = _mm256_fmadd_ps(high, _mm256_loadu_ps(x + 8), high_sums[r]);
    }
  };
  constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(W));
  int64_t i = 0;
  for (; i + kStep <= k; i += kStep) {
    __builtin_prefetch(column + i + kAhead);
    add_step(column + i, rows + i);
  }
  if (i < k) {
    W rest[kStep] = {};
    std::memcpy(rest, column + i, static_cast<size_t>(k - i) * sizeof(W));
    add_step(rest, rows + i);
  }
  for (int r = 0; r < Rows; ++r) sums[r] = sum_of_lanes(_mm256_add_ps(low_sums[r], high_sums[r]));
}

constexpr int64_t kRowsAtOnce = 4;
template <class W>
using ColumnKernel = void (*)(const W*, int64_t, const float*, int64_t, float*);
template <class W>
constexpr ColumnKernel<W> kColumnKernels[kRowsAtOnce] = {
    multiply_column<W, 1>, multiply_column<W, 2>, multiply_column<W, 3>, multiply_column<W, 4>};

// The sums of one column with each of m ≤ kMostRows rows.
template <class W>
void multiply_column_by_rows(const W* column, int64_t k, int64_t m, const float* rows,
                             int64_t row_stride, float* sums) {
  for (int64_t row = 0; row < m; row += kRowsAtOnce)
    kColumnKernels<W>[std::min(m - row, kRowsAtOnce) - 1](column, k, rows + row * row_stride,
                                                          row_stride, sums + row);
}

// k in whole steps.
int64_t padded_depth(int64_t k) {
  return (k + kStep - 1) / kStep * kStep;
}

template <class W>
class ThinMatmul {
 public:
  ThinMatmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem), accumulate_(epilogue.beta != 0), epilogue_(problem, epilogue) {
    depth_ = padded_depth(problem.k);
    thread_local Workspace<float> memory, line;
    float* const rows = memory.reserve(problem.m * depth_);
    float* const plain = line.reserve(problem.k);
    std::fill_n(rows, problem.m * depth_, 0.0f);
    const MatrixView& a = problem.a.matrix;
    for (int64_t row = 0; row < problem.m; ++row) {
      load_row(a.at(row, 0), a.dtype, a.column_stride, problem.k, plain);
      for (int64_t i = 0; i < problem.k; ++i) rows[row * depth_ + Columns<W>::place(i)] = plain[i];
    }
    rows_ = rows;
  }

  void run() const {
    constexpr int64_t kTaskBytes = 1 << 17;
    const int64_t column_bytes = problem_.k * static_cast<int64_t>(sizeof(W));
    const int64_t columns = std::max<int64_t>(kTaskBytes / column_bytes / 8, 1) * 8;
    parallel_for(problem_.n, columns,
                 [&](int64_t begin, int64_t end) { multiply(begin, end - begin); });
  }

 private:
  // Columns [first, first + n) of the output.
  void multiply(int64_t first, int64_t n) const {
    const MatrixView &b = problem_.b.matrix, &out = problem_.out.matrix;
    const int64_t stride = b.column_stride, m = problem_.m;
    const auto* const columns = reinterpret_cast<const W*>(b.at(0, first));
    thread_local Workspace<float> tile, buffer;
    float* const sums = tile.reserve(m * n);
    if (accumulate_)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(i, first), out.dtype, out.column_stride, n, sums + i * n);
    for (int64_t c = 0; c < n; ++c) {
      const W* const column = columns + c * stride;
      float results[kMostRows];
      multiply_column_by_rows(column, problem_.k, m, rows_, depth_, results);
      for (int64_t row = 0; row < m; ++row) {
        float& sum = sums[row * n + c];
        sum = results[row] + (accumulate_ ? sum : 0.0f);
      }
    }
    float* const spare = buffer.reserve(n);
    for (int64_t i = 0; i < m; ++i) {
      if (!epilogue_.empty()) epilogue_.apply(sums + i * n, 0, i, first, n, spare);
      store_row(sums + i * n, n, out.at(i, first), out.dtype, out.column_stride);
    }
  }

  const MatmulProblem& problem_;
  bool accumulate_;
  LineEpilogue<float> epilogue_;
  int64_t depth_ = 0;            // of a row that is filled up
  const float* rows_ = nullptr;  // (m, depth)
};

}  // namespace

bool is_thin(const MatmulProblem& problem) {
  constexpr int64_t kMultiplyAdds = 1 << 14;
  return problem.batch.numel() == 1 && problem.a.matrix.dtype != DType::f64 && problem.m > 0 &&
         problem.m <= kMostRows && problem.k >= kStep && problem.b.matrix.row_stride == 1 &&
         problem.n * problem.k >= kMultiplyAdds;
}

void thin_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  switch (problem.b.matrix.dtype) {
    case DType::f16:
      return ThinMatmul<Half>(problem, epilogue).run();
    case DType::bf16:
      return ThinMatmul<BFloat16>(problem, epilogue).run();
    default:
      return ThinMatmul<float>(problem, epilogue).run();
  }
}

void thin_gemm(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> columns,
               bool accumulate, float* c, int64_t leading_c) {
  const int64_t depth = padded_depth(k);
  thread_local Workspace<float> memory;
  float* const rows = memory.reserve(m * depth);
  for (int64_t row = 0; row < m; ++row) {
    const Block<const float> from = a.from(row, 0);
    load_row(from.data, DType::f32, a.transposed ? a.leading : 1, k, rows + row * depth);
    std::fill(rows + row * depth + k, rows + (row + 1) * depth, 0.0f);
  }
  for (int64_t column = 0; column < n; ++column) {
    float sums[kMostRows];
    multiply_column_by_rows(columns.data + column * columns.leading, k, m, rows, depth, sums);
    for (int64_t row = 0; row < m; ++row) {
      float& element = c[row * leading_c + column];
      element = accumulate ? element + sums[row] : sums[row];
    }
  }
}

}  // namespace binade::kernels::cpu
