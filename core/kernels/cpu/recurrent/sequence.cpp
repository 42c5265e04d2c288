// All steps of a recurrent layer in one go: rows of a batch do not know each other, so a task takes
// some of them through all steps, with a weight that was packed once, and nobody waits in between.
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>
#include <binade/core/kernels/cpu/recurrent/recurrent_rows.h>
#include <binade/core/kernels/recurrent.h>

namespace binade::kernels::cpu {

namespace {

// A (k, n) matrix, packed, for matmuls with few rows on many threads.
class PackedWeight {
 public:
  explicit PackedWeight(const Array& matrix) : k_(matrix.size(0)), n_(matrix.size(1)) {
    const bool transposed = matrix.stride(1) != 1;
    const Block<const float> block{matrix.data<float>(),
                                   transposed ? matrix.stride(1) : matrix.stride(0), transposed};
    const int64_t width = micro_kernel().columns;
    float* const packed = memory_.reserve(packed_columns(n_) * k_);
    parallel_for((n_ + width - 1) / width, kPackedPanels, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * width;
      pack_b(k_, std::min(end * width, n_) - first, block.from(0, first), packed + first * k_);
    });
  }

  // c (m, n, by rows) = a (m, k, rows `leading` apart) · the matrix, or c += a · it.
  void multiply(int64_t m, const float* a, int64_t leading, bool accumulate, float* c) const {
    multiply_packed_in_steps(m, n_, k_, {a, leading, false},
                             {memory_.data(), k_ * micro_kernel().columns}, accumulate, c, n_);
  }

 private:
  static constexpr int64_t kPackedPanels = 4;  // at a time
  int64_t k_, n_;
  Workspace<float> memory_;
};

// The rows of a task; a row's bits do not depend on how many there are.
EvenParts row_blocks(int64_t batch) {
  constexpr int64_t kTasks = 4, kFewest = 4, kMost = 16;
  return EvenParts(batch, std::clamp((batch + kTasks - 1) / kTasks, kFewest, kMost));
}

// Body(first row, rows) for all rows of the batch.
template <class Body>
void for_rows(int64_t batch, const Body& body) {
  const EvenParts blocks = row_blocks(batch);
  parallel_tasks(blocks.count,
                 [&](int64_t block) { body(blocks.begin(block), blocks.length(block)); });
}

// Element (row, step, 0) of an array (B, T, D).
float* at(const Array& array, int64_t row, int64_t step) {
  return array.data<float>() + row * array.stride(0) + step * array.stride(1);
}
// Element (step, row, 0) of an array (T, B, D).
float* step_at(const Array& array, int64_t row, int64_t step) {
  return at(array, step, row);
}

// The states in front of a step: those of a layer's first step, or an earlier one's.
struct StatesBefore {
  const Array &first, &states;

  const float* operator()(int64_t row, int64_t step) const {
    return step == 0 ? first.data<float>() + row * first.stride(0) : at(states, row, step - 1);
  }
  int64_t leading(int64_t step) const { return step == 0 ? first.stride(0) : states.stride(0); }
};

// The steps of a forward pass: step(row, t, its sums weight · state, where it keeps 4H numbers).
template <class Step>
void run_forward(const Array& weight, const StatesBefore& before, const Array& kept,
                 const Step& step) {
  const int64_t columns = weight.size(0), width = before.states.size(2);
  const PackedWeight packed(weight.transpose(0, 1));
  for_rows(before.states.size(0), [&](int64_t row, int64_t rows) {
    thread_local Workspace<float> sums_memory, unused;
    float* const sums = sums_memory.reserve(rows * columns);
    for (int64_t t = 0; t < before.states.size(1); ++t) {
      packed.multiply(rows, before(row, t), before.leading(t), false, sums);
      for (int64_t i = 0; i < rows; ++i)
        step(row + i, t, sums + i * columns,
             kept.defined() ? step_at(kept, row + i, t) : unused.reserve(4 * width));
    }
  });
}

}  // namespace

bool takes_sequences(DType dtype) {
  return dtype == DType::f32 && tile_kernel() == nullptr;
}

void gru_sequence(const Array& x, const Array& weight, const Array& bias, const Array& first,
                  const Array& states, const Array& kept) {
  const int64_t width = states.size(2);
  const std::vector<float> biases = bias_values<float>(bias, 3 * width);
  const StatesBefore before{first, states};
  run_forward(weight, before, kept, [&](int64_t row, int64_t t, const float* sums, float* gates) {
    gru_row(width, at(x, row, t), sums, biases.data(), before(row, t), at(states, row, t), gates);
  });
}

void gru_sequence_backward(const Array& dstates, const Array& weight, const Array& first,
                           const Array& states, const Array& kept, const Array& carry,
                           const Array& dx, const Array& dsums, bool to_first) {
  const int64_t batch = states.size(0), steps = states.size(1), width = states.size(2);
  const PackedWeight packed(weight);
  const StatesBefore before{first, states};
  for_rows(batch, [&](int64_t row, int64_t rows) {
    float* const carried = carry.data<float>() + row * width;
    for (int64_t t = steps - 1; t >= 0; --t) {
      for (int64_t i = 0; i < rows; ++i)
        gru_row_backward(width, at(dstates, row + i, t), step_at(kept, row + i, t),
                         before(row + i, t), carried + i * width, at(dx, row + i, t),
                         at(dsums, row + i, t));
      if (t > 0 || to_first)
        packed.multiply(rows, at(dsums, row, t), dsums.stride(0), true, carried);
    }
  });
}

void lstm_sequence(const Array& x, const Array& weight, const Array& bias, const Array& first,
                   const Array& cells, const Array& states, const Array& kept) {
  const int64_t width = states.size(2), count = cells.size(0);
  const std::vector<float> biases = bias_values<float>(bias, 4 * width);
  run_forward(weight, {first, states}, kept,
              [&](int64_t row, int64_t t, const float* sums, float* gates) {
                lstm_row(width, at(x, row, t), sums, biases.data(), step_at(cells, row, t % count),
                         step_at(cells, row, (t + 1) % count), at(states, row, t), gates);
              });
}

void lstm_sequence_backward(const Array& dstates, const Array& weight, const Array& cells,
                            const Array& kept, const Array& carry, const Array& dcell,
                            const Array& da, bool to_first) {
  const int64_t batch = da.size(0), steps = da.size(1), width = dcell.size(1);
  const PackedWeight packed(weight);
  for_rows(batch, [&](int64_t row, int64_t rows) {
    float* const carried = carry.data<float>() + row * width;
    for (int64_t t = steps - 1; t >= 0; --t) {
      for (int64_t i = 0; i < rows; ++i)
        lstm_row_backward(width, at(dstates, row + i, t), carried + i * width,
                          step_at(kept, row + i, t), step_at(cells, row + i, t),
                          step_at(cells, row + i, t + 1), dcell.data<float>() + (row + i) * width,
                          at(da, row + i, t));
      if (t > 0 || to_first) packed.multiply(rows, at(da, row, t), da.stride(0), false, carried);
    }
  });
}

}  // namespace binade::kernels::cpu
