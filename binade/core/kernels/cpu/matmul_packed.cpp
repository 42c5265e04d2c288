// A large product: b is packed by all threads and read by all, then each thread takes blocks of
// rows, packs what they read of a, and keeps its block of the output in cache until the epilogue
// has seen it. f16 and bf16 are converted block by block on the way into the packed form. An engine
// multiplies: on BF16 tiles (SplitEngine) where the processor has them, or in vectors.
#include <binade/core/kernels/cpu/matmul_packed.h>

#include <atomic>

#include <binade/core/kernels/cpu/packed_product.h>
#include <binade/core/kernels/cpu/parallel.h>
#include <binade/core/kernels/cpu/split_product.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {

namespace {

// Everything is cut by the shape alone, so that the order of every sum does not depend on the
// number of threads.
template <class Engine>
class PackedProduct {
 public:
  PackedProduct(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        a_sums_(epilogue.a_sums.defined() ? problem.m : 0),
        accumulate_(epilogue.beta != 0),
        epilogue_(problem, epilogue),
        direct_(problem.out.matrix.dtype == DType::f32 && problem.out.matrix.column_stride == 1),
        a_in_place_(usable_in_place<float>(problem.a.matrix, problem.m, problem.k)),
        b_in_place_(usable_in_place<float>(problem.b.matrix, problem.k, problem.n)),
        engine_(problem.a.matrix.dtype) {}

  void run() {
    // What is packed of b at a time stays in the last level of the cache. Sums that are not kept in
    // the output itself cannot be left half done.
    const EvenParts depths(problem_.k, direct_ ? Engine::kMostDepth : problem_.k);
    const EvenParts steps(depths.longest(), Engine::kStep);
    const int64_t width = Engine::column_step();
    const int64_t panels = panels_of(problem_.n);
    const int64_t panel = steps.count * engine_.depth(steps.longest()) * width;
    const EvenParts slabs(panels, std::max<int64_t>(Engine::kMostPacked / panel, 1));
    const int64_t bytes = slabs.longest() * panel * static_cast<int64_t>(sizeof(Packed));
    const Array buffer = Array::empty({bytes}, DType::u8);
    packed_ = reinterpret_cast<Packed*>(buffer.data<uint8_t>());
    for (int64_t slab = 0; slab < slabs.count; ++slab) {
      const int64_t column = slabs.begin(slab) * width;
      const int64_t columns = std::min(slabs.length(slab) * width, problem_.n - column);
      for (int64_t depth = 0; depth < depths.count; ++depth) {
        const Slice slice(column, columns, depths, depth);
        pack(slice);
        multiply(slice);
      }
    }
  }

  // The sums of a's rows, if the epilogue has a place for them; after run().
  const std::vector<double>& a_sums() const { return a_sums_; }

 private:
  using Packed = typename Engine::Packed;

  // Columns of the output, and a range of k that is added to them.
  struct Slice {
    int64_t column, columns, depth, length;
    bool last;  // range of k
    EvenParts steps;

    Slice(int64_t first, int64_t count, const EvenParts& depths, int64_t part)
        : column(first),
          columns(count),
          depth(depths.begin(part)),
          length(depths.length(part)),
          last(part + 1 == depths.count),
          steps(length, Engine::kStep) {}
  };

  struct ReadyRows {
    typename Engine::Rows rows;
    bool usable = false;  // whether the engine can multiply them
    uint64_t product = 0;
    int64_t row = 0, depth = 0;
  };

  static int64_t panels_of(int64_t columns) {
    return (columns + Engine::column_step() - 1) / Engine::column_step();
  }
  // Where columns from `first` on lie packed for a step.
  Packed* packed_at(const Slice& slice, int64_t step, int64_t first) const {
    const int64_t stride = panels_of(slice.columns) * Engine::column_step();
    return packed_ + step * stride * engine_.depth(slice.steps.longest()) +
           first * engine_.depth(slice.steps.length(step));
  }

  void pack(const Slice& slice) {
    const int64_t width = Engine::column_step();
    constexpr int64_t kPanelsAtOnce = 2;
    const EvenParts pieces(panels_of(slice.columns), kPanelsAtOnce);
    packed_all_ = true;
    parallel_tasks(slice.steps.count * pieces.count, [&](int64_t task) {
      const int64_t step = task / pieces.count, piece = task % pieces.count;
      const int64_t first = pieces.begin(piece) * width;
      const int64_t columns = std::min(pieces.length(piece) * width, slice.columns - first);
      const int64_t length = slice.steps.length(step);
      if (!engine_.pack_b(length, columns, b_block(slice, step, first, columns),
                          packed_at(slice, step, first)))
        packed_all_ = false;
    });
  }

  void multiply(const Slice& slice) {
    constexpr int64_t kEnoughTasks = 16;
    const EvenParts blocks((problem_.m + Engine::kRowStep - 1) / Engine::kRowStep,
                           Engine::kRows / Engine::kRowStep);
    const int64_t width = Engine::column_step(), panels = panels_of(slice.columns);
    const int64_t wanted = (kEnoughTasks + blocks.count - 1) / blocks.count;
    const EvenParts groups(panels, (panels + wanted - 1) / wanted);
    parallel_tasks(blocks.count * groups.count, [&](int64_t task) {
      const int64_t block = task / groups.count, group = task % groups.count;
      const int64_t row = blocks.begin(block) * Engine::kRowStep;
      const int64_t first = groups.begin(group) * width;
      multiply_block(slice, row,
                     std::min(blocks.length(block) * Engine::kRowStep, problem_.m - row), first,
                     std::min(groups.length(group) * width, slice.columns - first));
    });
  }

  // Rows [row, row + m), columns [first, first + n) of the slice.
  void multiply_block(const Slice& slice, int64_t row, int64_t m, int64_t first, int64_t n) {
    const MatrixView& out = problem_.out.matrix;
    const int64_t column = slice.column + first;
    thread_local Workspace<float> tile, buffer;
    float* const sums =
        direct_ ? reinterpret_cast<float*>(out.at(row, column)) : tile.reserve(m * n);
    const int64_t leading = direct_ ? std::max(out.row_stride, n) : n;
    if (!direct_ && accumulate_)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(row + i, column), out.dtype, out.column_stride, n, sums + i * leading);

    for (int64_t step = 0; step < slice.steps.count; ++step) {
      const int64_t depth = slice.depth + slice.steps.begin(step);
      const int64_t length = slice.steps.length(step);
      const bool accumulate = accumulate_ || depth > 0;
      const ReadyRows& rows = rows_ready(row, m, depth, length, !a_sums_.empty() && column == 0);
      if (rows.usable && packed_all_)
        engine_.multiply(rows.rows, n, packed_at(slice, step, first), accumulate, sums, leading);
      else
        gemm(m, n, length, a_block(row, m, depth, length), b_block(slice, step, first, n),
             accumulate, sums, leading);
    }

    if (!slice.last || (direct_ && epilogue_.empty())) return;
    for (int64_t i = 0; i < m; ++i) {
      float* line = sums + i * leading;
      epilogue_.apply(line, 0, row + i, column, n, buffer.reserve(n));
      if (!direct_) store_row(line, n, out.at(row + i, column), out.dtype, out.column_stride);
    }
  }

  // Rows [row, row + m) of a over k from `depth` on, made ready by the calling thread unless its
  // last task has done so; and their sums where these are wanted.
  const ReadyRows& rows_ready(int64_t row, int64_t m, int64_t depth, int64_t k, bool wants_sums) {
    thread_local ReadyRows ready;
    if (!wants_sums && ready.product == id_ && ready.row == row && ready.depth == depth)
      return ready;
    thread_local Workspace<float> sums;
    ready.product = 0;  // in case of an exception
    ready.usable = engine_.take_rows(m, k, a_block(row, m, depth, k), ready.rows,
                                     wants_sums ? sums.reserve(m + 16) : nullptr);
    ready.product = id_;
    ready.row = row;
    ready.depth = depth;
    if (wants_sums)
      for (int64_t i = 0; i < m; ++i)
        a_sums_[static_cast<size_t>(row + i)] += static_cast<double>(sums.data()[i]);
    return ready;
  }

  Block<const float> a_block(int64_t row, int64_t m, int64_t depth, int64_t k) const {
    thread_local Workspace<float> converted;
    return block_of(problem_.a.matrix, row, depth, m, k,
                    a_in_place_ ? nullptr : converted.reserve(m * k));
  }
  // Columns [first, first + n) of a slice, for one step along k.
  Block<const float> b_block(const Slice& slice, int64_t step, int64_t first, int64_t n) const {
    thread_local Workspace<float> converted;
    const int64_t length = slice.steps.length(step);
    return block_of(problem_.b.matrix, slice.depth + slice.steps.begin(step), slice.column + first,
                    length, n, b_in_place_ ? nullptr : converted.reserve(length * n));
  }

  const MatmulProblem& problem_;
  std::vector<double> a_sums_;  // of the output's rows, each the work of one task at a time
  bool accumulate_;
  LineEpilogue<float> epilogue_;
  bool direct_;  // sums are kept in the output
  bool a_in_place_, b_in_place_;
  Engine engine_;
  // Tells one product's rows from another's.
  static inline std::atomic<uint64_t> products_ = 0;
  const uint64_t id_ = ++products_;
  Packed* packed_ = nullptr;
  std::atomic<bool> packed_all_ = true;  // whether the engine can multiply what was packed of b
};

template <class Engine>
void multiply_with(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  PackedProduct<Engine> product(problem, epilogue);
  product.run();
  if (!epilogue.a_sums.defined()) return;
  std::vector<double> sums = product.a_sums();
  const Array total = Array::from_blob(sums.data(), epilogue.a_sums.shape(), DType::f64);
  if (epilogue.a_sums_beta == 0)
    copy(total, epilogue.a_sums);
  else
    axpy(1, total, epilogue.a_sums);
}

}  // namespace

bool worth_packing(const MatmulProblem& problem) {
  constexpr int64_t kRows = 32, kProducts = 1 << 20;
  return problem.batch.numel() == 1 && problem.a.matrix.dtype != DType::f64 && problem.m >= kRows &&
         problem.m * problem.n * problem.k >= kProducts;
}

void packed_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  multiply_with<VectorEngine>(problem, epilogue);
}

void split_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  multiply_with<SplitEngine>(problem, epilogue);
}

}  // namespace binade::kernels::cpu
