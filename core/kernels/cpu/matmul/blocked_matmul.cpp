// A large matmul: b is packed by all threads and read by all, then each thread takes blocks of
// rows, packs what they read of a, and keeps its block of the output in cache until the epilogue
// has seen it. An engine multiplies: on BF16 tiles (Bf16SplitEngine) where the processor has them,
// or in f32 vectors (VectorEngine), for which f16 and bf16 are converted block by block on the way.
#include <binade/core/kernels/cpu/matmul/blocked_matmul.h>

#include <atomic>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/bf16_split.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {

namespace {

// Everything is cut by the shape alone, so that the order of every sum does not depend on the
// number of threads.
template <class Engine>
class BlockedMatmul {
 public:
  BlockedMatmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        a_sums_(epilogue.a_sums.defined() ? problem.m : 0),
        accumulate_(epilogue.beta != 0),
        epilogue_(problem, epilogue),
        direct_(problem.out.matrix.dtype == DType::f32 && problem.out.matrix.column_stride == 1),
        a_in_place_(usable_in_place<Source>(problem.a.matrix, problem.m, problem.k)),
        b_in_place_(usable_in_place<Source>(problem.b.matrix, problem.k, problem.n)),
        blocks_((problem.m + Engine::kRowStep - 1) / Engine::kRowStep,
                Engine::kRows / Engine::kRowStep) {}

  void run() {
    if (columns_own_b()) return run_by_columns();
    // What is packed of b at a time stays in the last level of the cache. Sums that are not kept in
    // the output itself cannot be left half done.
    const EvenParts depths(problem_.k, direct_ ? Engine::kMostDepth : problem_.k);
    const EvenParts steps(depths.longest(), Engine::kStep);
    const int64_t width = Engine::column_step();
    const int64_t panel = steps.count * engine_.depth(steps.longest()) * width;
    const EvenParts slabs(panels_of(problem_.n), std::max<int64_t>(Engine::kMostPacked / panel, 1));
    packed_ = reserve(packed_memory_, slabs.longest() * panel);
    for (int64_t slab = 0; slab < slabs.count; ++slab) {
      const int64_t column = slabs.begin(slab) * width;
      const int64_t columns = std::min(slabs.length(slab) * width, problem_.n - column);
      for (int64_t depth = 0; depth < depths.count; ++depth) {
        const Slice slice(column, columns, depths, depth, blocks_.count, copies_rows());
        pack(slice);
        multiply(slice);
      }
    }
  }

  // The sums of a's rows, if the epilogue has a place for them; after run().
  const std::vector<double>& a_sums() const { return a_sums_; }

 private:
  using Source = typename Engine::Source;
  using Packed = typename Engine::Packed;
  using Rows = typename Engine::Rows;

  // Columns of the output, and a range of k that is added to them.
  struct Slice {
    int64_t column, columns, depth, length;
    bool last;         // range of k
    EvenParts steps;   // of k
    EvenParts groups;  // of panels: the columns of a task
    bool shares_rows;  // rows of a that several tasks read are made ready beforehand

    Slice(int64_t first, int64_t count, const EvenParts& depths, int64_t part, int64_t blocks,
          bool copies_rows)
        : column(first),
          columns(count),
          depth(depths.begin(part)),
          length(depths.length(part)),
          last(part + 1 == depths.count),
          steps(length, Engine::kStep),
          groups(panels_of(count), panels_of(count)) {
      constexpr int64_t kEnoughTasks = 12;
      const int64_t wanted = (kEnoughTasks + blocks - 1) / blocks;
      groups = EvenParts(groups.size, (groups.size + wanted - 1) / wanted);
      shares_rows = copies_rows && groups.count > 1;
    }
  };

  static int64_t panels_of(int64_t columns) {
    return (columns + Engine::column_step() - 1) / Engine::column_step();
  }
  static Packed* reserve(Array& memory, int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(Packed));
    if (!memory.defined() || memory.numel() < bytes) memory = Array::empty({bytes}, DType::u8);
    return reinterpret_cast<Packed*>(memory.data<uint8_t>());
  }
  // Where columns from `first` on lie packed for a step.
  Packed* packed_at(const Slice& slice, int64_t step, int64_t first) const {
    const int64_t stride = panels_of(slice.columns) * Engine::column_step();
    return packed_ + step * stride * engine_.depth(slice.steps.longest()) +
           first * engine_.depth(slice.steps.length(step));
  }
  // Whether rows of a are never multiplied where they lie, so that tasks had better share them.
  bool copies_rows() const {
    return Engine::kCopiesRows || (a_in_place_ && problem_.a.matrix.column_stride != 1);
  }
  int64_t row_of(int64_t block) const { return blocks_.begin(block) * Engine::kRowStep; }
  int64_t rows_of(int64_t block) const {
    return std::min(blocks_.length(block) * Engine::kRowStep, problem_.m - row_of(block));
  }

  void pack(const Slice& slice) {
    const int64_t width = Engine::column_step();
    constexpr int64_t kPanelsAtOnce = 4;
    const EvenParts pieces(panels_of(slice.columns), kPanelsAtOnce);
    packed_all_ = true;
    const auto pack_piece = [&](int64_t step, int64_t piece) {
      const int64_t first = pieces.begin(piece) * width;
      const int64_t columns = std::min(pieces.length(piece) * width, slice.columns - first);
      if (!engine_.pack_b(slice.steps.length(step), columns,
                          b_block<Source>(slice, step, first, columns),
                          packed_at(slice, step, first)))
        packed_all_ = false;
    };
    const int64_t blocks = slice.shares_rows ? blocks_.count : 0;
    if (blocks > 0) reserve_shared_rows(slice);
    parallel_tasks(blocks + slice.steps.count * pieces.count, [&](int64_t task) {
      if (task < blocks)
        share_rows(slice, task);
      else
        pack_piece((task - blocks) / pieces.count, (task - blocks) % pieces.count);
    });
  }

  // Rows of a that several tasks read, by steps along k and blocks.
  void reserve_shared_rows(const Slice& slice) {
    row_buffer_ = engine_.row_buffer(blocks_.longest() * Engine::kRowStep, slice.steps.longest());
    const int64_t count = slice.steps.count * blocks_.count;
    row_buffers_ = reserve(row_memory_, count * row_buffer_);
    shared_rows_.resize(static_cast<size_t>(count));
  }
  void share_rows(const Slice& slice, int64_t block) {
    for (int64_t step = 0; step < slice.steps.count; ++step) {
      const int64_t shared = step * blocks_.count + block;
      shared_rows_[static_cast<size_t>(shared)] =
          take_rows(slice, step, block, row_buffers_ + shared * row_buffer_, true);
    }
  }
  const Rows& shared_rows(int64_t step, int64_t block) const {
    return shared_rows_[static_cast<size_t>(step * blocks_.count + block)];
  }

  // A low and wide output: all of a is made ready beforehand, and a task packs the columns of b
  // that it alone multiplies, which so stay in the second level of the cache.
  bool columns_own_b() const {
    return Engine::kCopiesRows && direct_ && problem_.m <= Engine::kFewRows &&
           problem_.n > problem_.m && problem_.m * engine_.depth(problem_.k) <= Engine::kMostPacked;
  }
  void run_by_columns() {
    constexpr int64_t kTasks = 8;
    Slice slice(0, problem_.n, EvenParts(problem_.k, problem_.k), 0, kTasks, copies_rows());
    const int64_t panels = panels_of(problem_.n);
    slice.groups = EvenParts(panels, (panels + kTasks - 1) / kTasks);
    reserve_shared_rows(slice);
    parallel_tasks(blocks_.count, [&](int64_t block) { share_rows(slice, block); });
    parallel_tasks(slice.groups.count, [&](int64_t group) { multiply_columns(slice, group); });
  }

  void multiply_columns(const Slice& slice, int64_t group) {
    const int64_t first = slice.groups.begin(group) * Engine::column_step();
    const int64_t width = slice.groups.length(group) * Engine::column_step();
    const int64_t n = std::min(width, slice.columns - first);
    const MatrixView& out = problem_.out.matrix;
    const int64_t leading = std::max(out.row_stride, n);
    const auto sums = [&](int64_t row) { return reinterpret_cast<float*>(out.at(row, first)); };
    thread_local Workspace<Packed> columns;
    thread_local Workspace<float> buffer;
    for (int64_t step = 0; step < slice.steps.count; ++step) {
      const int64_t length = slice.steps.length(step);
      Packed* const packed = columns.reserve(width * engine_.depth(length));
      const bool usable = engine_.pack_b(length, n, b_block<Source>(slice, step, first, n), packed);
      for (int64_t block = 0; block < blocks_.count; ++block)
        multiply_step(slice, step, shared_rows(step, block), row_of(block), first, n,
                      usable ? packed : nullptr, sums(row_of(block)), leading);
    }
    if (epilogue_.empty()) return;
    for (int64_t row = 0; row < problem_.m; ++row)
      epilogue_.apply(sums(row), 0, row, first, n, buffer.reserve(n));
  }

  // Adds a step along k to `sums`; `packed` is null where the engine cannot multiply the columns.
  void multiply_step(const Slice& slice, int64_t step, const Rows& rows, int64_t row, int64_t first,
                     int64_t n, const Packed* packed, float* sums, int64_t leading) const {
    const bool accumulate = accumulate_ || slice.depth > 0 || step > 0;
    if (rows.usable && packed != nullptr)
      engine_.multiply(rows, n, packed, accumulate, sums, leading);
    else
      gemm(rows.m, n, rows.k, a_block<float>(slice, step, row, rows.m),
           b_block<float>(slice, step, first, n), accumulate, sums, leading);
  }

  void multiply(const Slice& slice) {
    parallel_tasks(blocks_.count * slice.groups.count, [&](int64_t task) {
      multiply_block(slice, task / slice.groups.count, task % slice.groups.count);
    });
  }

  void multiply_block(const Slice& slice, int64_t block, int64_t group) {
    const int64_t row = row_of(block), m = rows_of(block);
    const int64_t first = slice.groups.begin(group) * Engine::column_step();
    const int64_t n =
        std::min(slice.groups.length(group) * Engine::column_step(), slice.columns - first);
    const MatrixView& out = problem_.out.matrix;
    const int64_t column = slice.column + first;
    thread_local Workspace<float> tile, buffer;
    thread_local Workspace<Packed> row_buffer;
    float* const sums =
        direct_ ? reinterpret_cast<float*>(out.at(row, column)) : tile.reserve(m * n);
    const int64_t leading = direct_ ? std::max(out.row_stride, n) : n;
    if (!direct_ && accumulate_)
      for (int64_t i = 0; i < m; ++i)
        load_row(out.at(row + i, column), out.dtype, out.column_stride, n, sums + i * leading);

    for (int64_t step = 0; step < slice.steps.count; ++step) {
      const int64_t length = slice.steps.length(step);
      const Rows rows =
          slice.shares_rows
              ? shared_rows(step, block)
              : take_rows(slice, step, block, row_buffer.reserve(engine_.row_buffer(m, length)),
                          group == 0);
      multiply_step(slice, step, rows, row, first, n,
                    packed_all_ ? packed_at(slice, step, first) : nullptr, sums, leading);
    }

    if (!slice.last || (direct_ && epilogue_.empty())) return;
    for (int64_t i = 0; i < m; ++i) {
      float* line = sums + i * leading;
      epilogue_.apply(line, 0, row + i, column, n, buffer.reserve(n));
      if (!direct_) store_row(line, n, out.at(row + i, column), out.dtype, out.column_stride);
    }
  }

  // A block of a's rows, for one step along k, made ready; adds up its sums on the way where
  // told to.
  Rows take_rows(const Slice& slice, int64_t step, int64_t block, Packed* buffer, bool add_sums) {
    const int64_t row = row_of(block), m = rows_of(block);
    const bool wants_sums = add_sums && !a_sums_.empty() && slice.column == 0;
    constexpr int64_t kRoundUp = 16;
    thread_local Workspace<float> sums;
    const Rows rows =
        engine_.take_rows(m, slice.steps.length(step), a_block<Source>(slice, step, row, m), buffer,
                          wants_sums ? sums.reserve(m + kRoundUp) : nullptr);
    if (wants_sums)
      for (int64_t i = 0; i < m; ++i)
        a_sums_[static_cast<size_t>(row + i)] += static_cast<double>(sums.data()[i]);
    return rows;
  }

  // Rows [row, row + m) of a and columns [first, first + n) of a slice of b, for one step along k.
  template <class T>
  Block<const T> a_block(const Slice& slice, int64_t step, int64_t row, int64_t m) const {
    thread_local Workspace<T> converted;
    const int64_t length = slice.steps.length(step);
    const bool in_place = std::is_same_v<T, Source> && a_in_place_;
    return block_of(problem_.a.matrix, row, slice.depth + slice.steps.begin(step), m, length,
                    in_place ? nullptr : converted.reserve(m * length));
  }
  template <class T>
  Block<const T> b_block(const Slice& slice, int64_t step, int64_t first, int64_t n) const {
    thread_local Workspace<T> converted;
    const int64_t length = slice.steps.length(step);
    const bool in_place = std::is_same_v<T, Source> && b_in_place_;
    return block_of(problem_.b.matrix, slice.depth + slice.steps.begin(step), slice.column + first,
                    length, n, in_place ? nullptr : converted.reserve(length * n));
  }

  const MatmulProblem& problem_;
  std::vector<double> a_sums_;  // of the output's rows, each the work of one task at a time
  bool accumulate_;
  LineEpilogue<float> epilogue_;
  bool direct_;  // sums are kept in the output
  bool a_in_place_, b_in_place_;
  [[no_unique_address]] Engine engine_;
  EvenParts blocks_;  // of rows, in units of kRowStep
  Array packed_memory_, row_memory_;
  Packed* packed_ = nullptr;             // columns of b
  std::atomic<bool> packed_all_ = true;  // whether the engine can multiply them
  std::vector<Rows> shared_rows_;        // [step][block], if the slice shares them …
  Packed* row_buffers_ = nullptr;        // … and where they lie, row_buffer_ elements each
  int64_t row_buffer_ = 0;
};

template <class Engine>
void multiply_with(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  BlockedMatmul<Engine> matmul(problem, epilogue);
  matmul.run();
  if (!epilogue.a_sums.defined()) return;
  std::vector<double> sums = matmul.a_sums();
  const Array total = Array::from_blob(sums.data(), epilogue.a_sums.shape(), DType::f64);
  if (epilogue.a_sums_beta == 0)
    copy(total, epilogue.a_sums);
  else
    axpy(1, total, epilogue.a_sums);
}

}  // namespace

bool worth_packing(const MatmulProblem& problem) {
  constexpr int64_t kRows = 32, kMultiplyAdds = 1 << 20;
  return problem.batch.numel() == 1 && problem.a.matrix.dtype != DType::f64 && problem.m >= kRows &&
         problem.m * problem.n * problem.k >= kMultiplyAdds;
}

void blocked_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  multiply_with<VectorEngine>(problem, epilogue);
}

void bf16_split_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue) {
  switch (problem.a.matrix.dtype) {
    case DType::f16:
      return multiply_with<Bf16SplitEngine<Half>>(problem, epilogue);
    case DType::bf16:
      return multiply_with<Bf16SplitEngine<BFloat16>>(problem, epilogue);
    default:
      return multiply_with<Bf16SplitEngine<float>>(problem, epilogue);
  }
}

}  // namespace binade::kernels::cpu
