// Matmuls by tiles, where neither packing the operands (blocked_matmul.h) nor reading a matrix
// column by column (thin_matmul.h) pays: each thread
// takes tiles of the output, multiplies into a tile of the compute type, applies the epilogue while
// the tile is in cache and stores it. f32 and f64 operands are read where they lie; f16 and bf16
// ones are converted panel by panel on the way in.
#include <algorithm>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/blocked_matmul.h>
#include <binade/core/kernels/cpu/matmul/matmul_problem.h>
#include <binade/core/kernels/cpu/matmul/thin_matmul.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {

namespace {

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

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
class TiledMatmul {
 public:
  TiledMatmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        accumulate_(epilogue.beta != 0),
        epilogue_(problem, epilogue),
        batches_(problem.batch.numel()),
        a_in_place_(usable_in_place<T>(problem.a.matrix, problem.m, problem.k)),
        b_in_place_(usable_in_place<T>(problem.b.matrix, problem.k, problem.n)),
        tiling_(problem.m, problem.n, problem.k, batches_, a_in_place_ && b_in_place_) {}

  void run() {
    const int64_t tiles = tiling_.rows * tiling_.columns, total = batches_ * tiles;
    const auto body = [&](int64_t i) {
      tile(i / tiles, i % tiles / tiling_.columns, i % tiling_.columns);
    };
    // Multiplications; waking threads costs microseconds.
    constexpr int64_t kWorthThreads = 1 << 16;
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
    if (!direct && accumulate_)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(row + i, column), out.dtype, out.column_stride, n, sums + i * leading);

    if (problem_.k == 0) gemm(m, n, 0, {}, {}, accumulate_, sums, leading);
    for (int64_t start = 0; start < problem_.k; start += tiling_.k) {
      const int64_t k = std::min(tiling_.k, problem_.k - start);
      const Block<const T> left =
          block_of(a, row, start, m, k, a_in_place_ ? nullptr : a_panel.reserve(m * k));
      const Block<const T> right =
          block_of(b, start, column, k, n, b_in_place_ ? nullptr : b_panel.reserve(k * n));
      gemm(m, n, k, left, right, accumulate_ || start > 0, sums, leading);
    }

    if (direct && epilogue_.empty()) return;
    T* buffer = row_buffer.reserve(n);
    for (int64_t i = 0; i < m; ++i) {
      T* line = sums + i * leading;
      epilogue_.apply(line, batch, row + i, column, n, buffer);
      if (!direct) store_row(line, n, out.at(row + i, column), out.dtype, out.column_stride);
    }
  }

  const MatmulProblem& problem_;
  bool accumulate_;
  LineEpilogue<T> epilogue_;
  int64_t batches_;
  bool a_in_place_, b_in_place_;
  Tiling tiling_;
};

}  // namespace

void matmul(const Array& a, const Array& b, const Array& out, const MatmulEpilogue& epilogue) {
  check(is_floating(a.dtype()), "matmul needs a floating-point dtype, got ", name_of(a.dtype()));
  const MatmulProblem problem(a, b, out, epilogue);
  if (worth_packing(problem)) {
    if (tile_kernel() != nullptr)
      bf16_split_matmul(problem, epilogue);
    else
      blocked_matmul(problem, epilogue);
  } else {
    if (a.dtype() == DType::f64)
      TiledMatmul<double>(problem, epilogue).run();
    else if (is_thin(problem))
      thin_matmul(problem, epilogue);
    else
      TiledMatmul<float>(problem, epilogue).run();
    if (epilogue.a_sums.defined())
      reduce(ReduceOp::sum, a, epilogue.a_sums.unsqueeze(1), epilogue.a_sums_beta);
  }
  if (epilogue.out_sums.defined()) reduce(ReduceOp::sum, out, epilogue.out_sums.unsqueeze(0), 0);
  if (epilogue.recomputed_gelu.defined())
    unary(UnaryOp::gelu_tanh, epilogue.pre_activation, epilogue.recomputed_gelu);
}

void matmul_swiglu(const Array& x, const Array& weight, const Array& pre, const Array& hidden) {
  const int64_t width = hidden.size(1);
  const Array both =
      pre.defined() ? pre : Array::empty({x.size(0), 2 * width}, x.dtype(), x.device());
  matmul(x, weight.transpose(0, 1), both, {});
  swiglu(both.slice(1, 0, width), both.slice(1, width), hidden);
}

void matmul_swiglu_backward(const Array& dy, const Array& weight, const Array& gate,
                            const Array& up, const Array& dgate, const Array& dup) {
  const Array dh = Array::empty(gate.shape(), gate.dtype(), gate.device());
  matmul(dy, weight, dh, {});
  swiglu_backward(gate, up, dh, dgate, dup, 0);
}

}  // namespace binade::kernels::cpu
