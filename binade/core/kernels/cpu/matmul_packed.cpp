// A large product: b is packed by all threads and read by all, then each thread takes blocks of
// rows, packs what they read of a, and keeps its block of the output in cache until the epilogue
// has seen it. f16 and bf16 are converted block by block on the way into the packed form.
#include <binade/core/kernels/cpu/matmul_packed.h>

#include <binade/core/kernels/cpu/lanes.h>
#include <binade/core/kernels/cpu/packed_product.h>
#include <binade/core/kernels/cpu/parallel.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {

namespace {

// Everything is cut by the shape alone, so that the order of every sum does not depend on the
// number of threads.
class PackedProduct {
 public:
  PackedProduct(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        a_sums_(epilogue.a_sums.defined() ? problem.m : 0),
        accumulate_(epilogue.beta != 0),
        epilogue_(problem, epilogue),
        direct_(problem.out.matrix.dtype == DType::f32 && problem.out.matrix.column_stride == 1),
        a_in_place_(usable_in_place<float>(problem.a.matrix, problem.m, problem.k)),
        b_in_place_(usable_in_place<float>(problem.b.matrix, problem.k, problem.n)) {}

  void run() {
    // What is packed of b at a time stays in the last level of the cache. Sums that are not kept in
    // the output itself cannot be left half done.
    constexpr int64_t kMostDepth = 4096, kMostPacked = int64_t{4} << 20;
    const EvenParts depths(problem_.k, direct_ ? kMostDepth : problem_.k);
    const int64_t width = micro_kernel().columns;
    const int64_t panels = packed_columns(problem_.n) / width;
    const EvenParts slabs(panels, std::max<int64_t>(kMostPacked / (depths.longest() * width), 1));
    const Array buffer = Array::empty({depths.longest() * slabs.longest() * width}, DType::f32);
    float* const packed = buffer.data<float>();
    for (int64_t slab = 0; slab < slabs.count; ++slab) {
      const int64_t column = slabs.begin(slab) * width;
      const int64_t columns = std::min(slabs.length(slab) * width, problem_.n - column);
      for (int64_t depth = 0; depth < depths.count; ++depth) {
        const Slice slice{column, columns, depths.begin(depth), depths.length(depth),
                          depth + 1 == depths.count};
        pack(slice, packed);
        multiply(slice, packed);
      }
    }
  }

  // The sums of a's rows, if the epilogue has a place for them; after run().
  const std::vector<double>& a_sums() const { return a_sums_; }

 private:
  // Columns of the output, and a range of k that is added to them.
  struct Slice {
    int64_t column, columns, depth, length;
    bool last;  // range of k
  };

  void pack(const Slice& slice, float* packed) const {
    const EvenParts steps(slice.length, kPackedDepth);
    const int64_t width = micro_kernel().columns, stride = packed_columns(slice.columns);
    constexpr int64_t kPanelsAtOnce = 2;
    const EvenParts pieces(stride / width, kPanelsAtOnce);
    parallel_tasks(steps.count * pieces.count, [&](int64_t task) {
      const int64_t step = task / pieces.count, piece = task % pieces.count;
      const int64_t first = pieces.begin(piece) * width;
      const int64_t columns = std::min(pieces.length(piece) * width, slice.columns - first);
      const int64_t depth = steps.begin(step), length = steps.length(step);
      thread_local Workspace<float> converted;
      const Block<const float> b =
          block_of(problem_.b.matrix, slice.depth + depth, slice.column + first, length, columns,
                   b_in_place_ ? nullptr : converted.reserve(length * columns));
      pack_b(length, columns, b, packed + depth * stride + first * length);
    });
  }

  void multiply(const Slice& slice, const float* packed) {
    constexpr int64_t kRows = 64, kEnoughTasks = 16;
    const EvenParts blocks(problem_.m, kRows);
    const int64_t width = micro_kernel().columns;
    const int64_t panels = packed_columns(slice.columns) / width;
    const int64_t wanted = (kEnoughTasks + blocks.count - 1) / blocks.count;
    const EvenParts groups(panels, (panels + wanted - 1) / wanted);
    parallel_tasks(blocks.count * groups.count, [&](int64_t task) {
      const int64_t block = task / groups.count, group = task % groups.count;
      const int64_t first = groups.begin(group) * width;
      multiply_block(slice, packed, blocks.begin(block), blocks.length(block), first,
                     std::min(groups.length(group) * width, slice.columns - first));
    });
  }

  // Rows [row, row + m), columns [first, first + n) of the slice.
  void multiply_block(const Slice& slice, const float* packed, int64_t row, int64_t m,
                      int64_t first, int64_t n) {
    const MatrixView& out = problem_.out.matrix;
    const int64_t column = slice.column + first, stride = packed_columns(slice.columns);
    thread_local Workspace<float> converted, rows, tile, buffer;
    float* const sums =
        direct_ ? reinterpret_cast<float*>(out.at(row, column)) : tile.reserve(m * n);
    const int64_t leading = direct_ ? std::max(out.row_stride, n) : n;
    if (!direct_ && accumulate_)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(row + i, column), out.dtype, out.column_stride, n, sums + i * leading);

    const EvenParts steps(slice.length, kPackedDepth);
    float* const row_buffer = rows.reserve(m * steps.longest());
    for (int64_t step = 0; step < steps.count; ++step) {
      const int64_t depth = steps.begin(step), length = steps.length(step);
      const Block<const float> a = block_of(problem_.a.matrix, row, slice.depth + depth, m, length,
                                            a_in_place_ ? nullptr : converted.reserve(m * length));
      const Block<const float> a_rows = rows_of_a(m, length, a, row_buffer);
      if (!a_sums_.empty() && column == 0) add_row_sums(a_rows, row, m, length);
      multiply_packed(m, n, length, a_rows,
                      {packed + depth * stride + first * length, length * micro_kernel().columns},
                      accumulate_ || slice.depth + depth > 0, sums, leading);
    }

    if (!slice.last || (direct_ && epilogue_.empty())) return;
    for (int64_t i = 0; i < m; ++i) {
      float* line = sums + i * leading;
      epilogue_.apply(line, 0, row + i, column, n, buffer.reserve(n));
      if (!direct_) store_row(line, n, out.at(row + i, column), out.dtype, out.column_stride);
    }
  }

  void add_row_sums(Block<const float> rows, int64_t first, int64_t m, int64_t k) {
    for (int64_t i = 0; i < m; ++i) {
      const float* line = rows.data + i * rows.leading;
      a_sums_[static_cast<size_t>(first + i)] +=
          static_cast<double>(sum_of<float>(k, [=](int64_t j) { return line[j]; }));
    }
  }

  const MatmulProblem& problem_;
  std::vector<double> a_sums_;  // of the output's rows, each the work of one task at a time
  bool accumulate_;
  LineEpilogue<float> epilogue_;
  bool direct_;  // sums are kept in the output
  bool a_in_place_, b_in_place_;
};

}  // namespace

bool worth_packing(const MatmulProblem& problem) {
  constexpr int64_t kRows = 32, kProducts = 1 << 20;
  return problem.batch.numel() == 1 && problem.a.matrix.dtype != DType::f64 && problem.m >= kRows &&
         problem.m * problem.n * problem.k >= kProducts;
}

void packed_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  PackedProduct product(problem, epilogue);
  product.run();
  if (!epilogue.a_sums.defined()) return;
  std::vector<double> sums = product.a_sums();
  const Array total = Array::from_blob(sums.data(), epilogue.a_sums.shape(), DType::f64);
  if (epilogue.a_sums_beta == 0)
    copy(total, epilogue.a_sums);
  else
    axpy(1, total, epilogue.a_sums);
}

}  // namespace binade::kernels::cpu
