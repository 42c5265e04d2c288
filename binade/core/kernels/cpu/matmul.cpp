// Matrix products by tiles: each thread takes tiles of the output, multiplies into a tile of the
// compute type, applies the epilogue while the tile is in cache and stores it. f32 and f64 operands
// are read where they lie; f16 and bf16 ones are converted panel by panel on the way in.
#include <algorithm>
#include <vector>

#include <binade/core/kernels/cpu/matmul_gemm.h>
#include <binade/core/kernels/cpu/parallel.h>
#include <binade/core/kernels/cpu/vector_math.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {

namespace {

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Leading dimensions of one operand as the strides of a list of matrices.
struct Batched {
  MatrixView matrix;
  Shape strides;  // of the leading dimensions

  Batched() = default;
  explicit Batched(const Array& array) {
    const int leading = array.dims() - 2;
    matrix = {static_cast<std::byte*>(array.data()), array.dtype(), array.stride(-2),
              array.stride(-1)};
    strides = Shape(array.strides().span().first(static_cast<size_t>(leading)));
  }

  MatrixView at(int64_t batch, const Shape& sizes) const {
    int64_t offset = 0;
    for (int i = sizes.dims() - 1; i >= 0; --i) {
      offset += batch % sizes[i] * strides[i];
      batch /= sizes[i];
    }
    MatrixView view = matrix;
    view.data += offset * size_of(matrix.dtype);
    return view;
  }
};

struct Problem {
  int64_t m = 0, n = 0, k = 0;
  Shape batch;  // leading sizes
  Batched a, b, out, pre_activation;
  bool has_pre_activation = false;

  Problem(const Array& a_array, const Array& b_array, const Array& out_array,
          const MatmulEpilogue& epilogue)
      : m(out_array.size(-2)),
        n(out_array.size(-1)),
        k(a_array.size(-1)),
        batch(out_array.shape().span().first(static_cast<size_t>(out_array.dims() - 2))),
        a(a_array),
        b(b_array),
        out(out_array),
        has_pre_activation(epilogue.pre_activation.defined()) {
    if (has_pre_activation) pre_activation = Batched(epilogue.pre_activation);
    while (batch.dims() > 0 && fold_last_batch()) {
    }
  }

  // (…, B, M, K) · one (K, N) matrix is (…, B·M, K) · (K, N): one large product instead of many.
  bool fold_last_batch() {
    const int last = batch.dims() - 1;
    const auto foldable = [&](const Batched& operand) {
      return batch[last] == 1 || m == 1 || operand.strides[last] == operand.matrix.row_stride * m;
    };
    if (batch[last] != 1 && b.strides[last] != 0) return false;
    if (!foldable(a) || !foldable(out) || (has_pre_activation && !foldable(pre_activation)))
      return false;
    const auto fold = [&](Batched& operand) {
      if (m == 1) operand.matrix.row_stride = operand.strides[last];
      operand.strides.erase(last);
    };
    fold(a);
    fold(out);
    if (has_pre_activation) fold(pre_activation);
    b.strides.erase(last);
    m *= batch[last];
    batch.erase(last);
    return true;
  }
};

// Sizes of the output's tiles and of the panels along K.
struct Tiling {
  int64_t m, n, k;
  int64_t rows, columns;  // number of tiles

  // The sizes depend on the shape alone, so that the order of every sum does.
  Tiling(int64_t size_m, int64_t size_n, int64_t size_k, int64_t batches, bool whole_k) {
    constexpr int64_t kTile = 256, kPanel = 512, kMinTile = 32, kEnoughTiles = 16;
    m = std::clamp(size_m, int64_t{1}, kTile);
    n = std::clamp(size_n, int64_t{1}, kTile);
    const auto count = [&] { return batches * divide_up(size_m, m) * divide_up(size_n, n); };
    while (count() < kEnoughTiles && std::max(m, n) > kMinTile) (m >= n ? m : n) /= 2;
    m = balanced(size_m, m);
    n = balanced(size_n, n);
    k = whole_k ? size_k : balanced(size_k, kPanel);
    rows = divide_up(size_m, m);
    columns = divide_up(size_n, n);
  }

 private:
  // Equal parts of at most about `largest` instead of a small last one; whole vectors.
  static int64_t balanced(int64_t size, int64_t largest) {
    const int64_t parts = std::max<int64_t>(divide_up(size, largest), 1);
    return std::max<int64_t>(divide_up(divide_up(size, parts), 16), 1) * 16;
  }
};

template <class T>
void add(T* sum, const T* row, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) sum[i] += row[i];
}

// gelu_tanh(x) = x/2 · (1 + tanh(u)) = x · sigmoid(2u) with u = √(2/π)·(x + 0.044715·x³).
constexpr double kGeluScale = 2 * 0.79788456080286535588, kGeluCubic = 0.044715;

template <class T>
BINADE_LANE T gelu_gate(T x) {
  return T(1) / (T(1) + fast_exp(-T(kGeluScale) * x * (T(1) + T(kGeluCubic) * x * x)));
}

template <class T>
void gelu(T* row, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) row[i] *= gelu_gate(row[i]);
}

// row *= gelu_tanh'(pre).
template <class T>
void multiply_by_gelu_gradient(T* row, const T* pre, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T x = pre[i], gate = gelu_gate(x);
    const T slope = T(kGeluScale) * (T(1) + T(3 * kGeluCubic) * x * x);
    row[i] *= gate + x * gate * (T(1) - gate) * slope;
  }
}

template <class T>
class TiledProduct {
 public:
  TiledProduct(const Problem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        epilogue_(epilogue),
        batches_(problem.batch.numel()),
        a_in_place_(usable_in_place<T>(problem.a.matrix, problem.m, problem.k)),
        b_in_place_(usable_in_place<T>(problem.b.matrix, problem.k, problem.n)),
        tiling_(problem.m, problem.n, problem.k, batches_, a_in_place_ && b_in_place_) {
    if (epilogue.bias.defined()) {
      bias_.resize(static_cast<size_t>(problem.n));
      load_row(epilogue.bias.data(), epilogue.bias.dtype(), epilogue.bias.stride(0), problem.n,
               bias_.data());
    }
  }

  void run() {
    const int64_t tiles = tiling_.rows * tiling_.columns, total = batches_ * tiles;
    const auto body = [&](int64_t i) {
      tile(i / tiles, i % tiles / tiling_.columns, i % tiling_.columns);
    };
    constexpr int64_t kWorthThreads = 1
                                      << 16;  // multiplications; waking threads costs microseconds
    if (batches_ * problem_.m * problem_.n * problem_.k >= kWorthThreads)
      parallel_tasks(total, body);
    else
      for (int64_t i = 0; i < total; ++i) body(i);
  }

 private:
  void tile(int64_t batch, int64_t tile_row, int64_t tile_column) {
    const int64_t row = tile_row * tiling_.m, column = tile_column * tiling_.n;
    const int64_t m = std::min(tiling_.m, problem_.m - row);
    const int64_t n = std::min(tiling_.n, problem_.n - column);
    const MatrixView a = problem_.a.at(batch, problem_.batch);
    const MatrixView b = problem_.b.at(batch, problem_.batch);
    const MatrixView out = problem_.out.at(batch, problem_.batch);

    thread_local Workspace<T> a_panel, b_panel, out_tile, row_buffer;
    const bool direct = out.dtype == dtype_of<T>() && out.column_stride == 1;
    T* sums = direct ? reinterpret_cast<T*>(out.at(row, column)) : out_tile.reserve(m * n);
    const int64_t leading = direct ? std::max(out.row_stride, n) : n;
    const bool accumulate = epilogue_.beta != 0;
    if (!direct && accumulate)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(row + i, column), out.dtype, out.column_stride, n, sums + i * leading);

    if (problem_.k == 0) gemm(m, n, 0, {}, {}, accumulate, sums, leading);
    for (int64_t start = 0; start < problem_.k; start += tiling_.k) {
      const int64_t k = std::min(tiling_.k, problem_.k - start);
      const Block<const T> left =
          block_of(a, row, start, m, k, a_in_place_ ? nullptr : a_panel.reserve(m * k));
      const Block<const T> right =
          block_of(b, start, column, k, n, b_in_place_ ? nullptr : b_panel.reserve(k * n));
      gemm(m, n, k, left, right, accumulate || start > 0, sums, leading);
    }

    const bool touched = !bias_.empty() || epilogue_.gelu || epilogue_.dgelu;
    if (direct && !touched) return;
    T* buffer = row_buffer.reserve(n);
    for (int64_t i = 0; i < m; ++i) {
      T* line = sums + i * leading;
      apply_epilogue(line, batch, row + i, column, n, buffer);
      if (!direct) store_row(line, n, out.at(row + i, column), out.dtype, out.column_stride);
    }
  }

  void apply_epilogue(T* line, int64_t batch, int64_t row, int64_t column, int64_t n,
                      T* buffer) const {
    if (!bias_.empty()) add(line, bias_.data() + column, n);
    if (!epilogue_.gelu && !epilogue_.dgelu) return;
    const MatrixView pre = problem_.has_pre_activation
                               ? problem_.pre_activation.at(batch, problem_.batch)
                               : MatrixView();
    if (epilogue_.gelu) {
      if (pre.data) store_row(line, n, pre.at(row, column), pre.dtype, pre.column_stride);
      gelu(line, n);
    } else {
      load_row(pre.at(row, column), pre.dtype, pre.column_stride, n, buffer);
      multiply_by_gelu_gradient(line, buffer, n);
    }
  }

  const Problem& problem_;
  const MatmulEpilogue& epilogue_;
  int64_t batches_;
  bool a_in_place_, b_in_place_;
  Tiling tiling_;
  std::vector<T> bias_;
};

}  // namespace

void matmul(const Array& a, const Array& b, const Array& out, const MatmulEpilogue& epilogue) {
  check(is_floating(a.dtype()), "matmul needs a floating-point dtype, got ", name_of(a.dtype()));
  const Problem problem(a, b, out, epilogue);
  if (a.dtype() == DType::f64)
    TiledProduct<double>(problem, epilogue).run();
  else
    TiledProduct<float>(problem, epilogue).run();
  if (epilogue.out_sums.defined()) reduce(ReduceOp::sum, out, epilogue.out_sums.unsqueeze(0), 0);
}

}  // namespace binade::kernels::cpu
