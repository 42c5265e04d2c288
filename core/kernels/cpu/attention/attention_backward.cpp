// Attention's backward pass (Dao et al. 2022, alg. 4): probabilities are computed again from the
// scores and logsumexp, for one block of queries at a time. A thread takes one key head with all
// query heads that read it, so that its gradients are summed in one order.
//
// With P the probabilities of a row and dP their gradients, those of the scores are P · (dP − Σ
// P·dP). Where softmax is nearly one-hot this is a difference of nearly equal numbers, so that Σ
// P·dP is summed from the same P and dP, divided by Σ P: neither a half output (Σ out · dout would
// be the same sum) nor the rounding of large scores is taken for a gradient.
#include <binade/core/kernels/cpu/attention/attention_blocks.h>
#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

struct Gradients {
  Heads dout, dq, dk, dv;
  const Array& logsumexp;
};

template <class T>
class Backward {
 public:
  Backward(const AttentionProblem& problem, const Gradients& gradients)
      : problem_(problem), gradients_(gradients) {}

  void run() const {
    parallel_tasks(problem_.batches * problem_.key_heads, [&](int64_t task) {
      key_head(task / problem_.key_heads, task % problem_.key_heads);
    });
  }

 private:
  // A head's keys and values, and the sums of their gradients (Tk, D).
  struct KeySide {
    RightOperand<T> k, k_transposed, v_transposed;
    T *dk, *dv;
  };

  void key_head(int64_t batch, int64_t key_head) const {
    static_assert(kKeyBlock % RightOperand<float>::kColumnStep == 0);
    const int64_t dim = problem_.dim, keys = problem_.keys;
    thread_local Workspace<T> key_rows, value_rows, dk_rows, dv_rows;
    thread_local KeySide side;
    const int32_t* const samples = problem_.samples_of(problem_.key_slots, batch);
    const Block<const T> k =
        rows_of_slots(problem_.k.at(batch, key_head), samples, 0, keys, dim, key_rows);
    const Block<const T> v =
        rows_of_slots(problem_.v.at(batch, key_head), samples, 0, keys, dim, value_rows);
    const int64_t group = problem_.heads / problem_.key_heads, rows = group * problem_.queries;
    side.k.assign(keys, dim, k, rows);
    side.k_transposed.assign(dim, keys, k.flipped(), rows);
    side.v_transposed.assign(dim, keys, v.flipped(), rows);
    side.dk = dk_rows.reserve(keys * dim);
    side.dv = dv_rows.reserve(keys * dim);
    std::fill_n(side.dk, keys * dim, T(0));
    std::fill_n(side.dv, keys * dim, T(0));

    for (int64_t head = key_head * group; head < (key_head + 1) * group; ++head)
      for (int64_t first = 0; first < problem_.queries; first += kQueryBlock)
        query_block(batch, head, first, side);

    store_rows(side.dk, keys, gradients_.dk.at(batch, key_head), 0);
    store_rows(side.dv, keys, gradients_.dv.at(batch, key_head), 0);
  }

  void query_block(int64_t batch, int64_t head, int64_t first, const KeySide& side) const {
    const int64_t dim = problem_.dim;
    const int64_t rows = std::min(kQueryBlock, problem_.queries - first);
    thread_local Workspace<T> query_rows, dout_rows, dq_rows, probability_rows, gradient_rows;
    const int32_t* const samples = problem_.samples_of(problem_.query_slots, batch);
    const Block<const T> q =
        rows_of_slots(problem_.q.at(batch, head), samples, first, rows, dim, query_rows);
    const Block<const T> dout =
        rows_of_slots(gradients_.dout.at(batch, head), samples, first, rows, dim, dout_rows);
    thread_local RightOperand<T> right_q, right_dout;
    right_q.assign(rows, dim, q, problem_.keys);
    right_dout.assign(rows, dim, dout, problem_.keys);
    const int64_t limit = problem_.visible(first + rows - 1);
    const int64_t start = problem_.first_visible(first) / kKeyBlock * kKeyBlock;
    const int64_t width = (limit + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
    T* const dq = dq_rows.reserve(kQueryBlock * dim);
    T* const probabilities = probability_rows.reserve(kQueryBlock * width);
    T* const dscores = gradient_rows.reserve(kQueryBlock * width);
    std::fill_n(dq, rows * dim, T(0));

    // The blocks of keys that are looked at.
    thread_local std::vector<int64_t> blocks;
    blocks.clear();
    for (int64_t j = start; j < limit; j += kKeyBlock)
      if (problem_.blocks_meet(batch, first, j)) blocks.push_back(j);

    for (const int64_t j : blocks) {
      const int64_t count = std::min(kKeyBlock, limit - j);
      side.k_transposed.multiply(rows, count, dim, q, 0, j, false, probabilities + j, width);
      side.v_transposed.multiply(rows, count, dim, dout, 0, j, false, dscores + j, width);
    }
    for (int64_t i = 0; i < rows; ++i) {
      T* p = probabilities + i * width;
      T* ds = dscores + i * width;
      const int64_t seen = std::max<int64_t>(problem_.visible(first + i), 0);
      differentiate(batch, head, first + i, blocks, seen, p, ds);
      std::fill(p + seen, p + limit, T(0));
      std::fill(ds + seen, ds + limit, T(0));
    }
    for (const int64_t j : blocks) {
      const int64_t count = std::min(kKeyBlock, limit - j);
      const Block<const T> p{probabilities + j, width, false}, ds{dscores + j, width, false};
      right_dout.multiply(count, dim, rows, p.flipped(), 0, 0, true, side.dv + j * dim, dim);
      right_q.multiply(count, dim, rows, ds.flipped(), 0, 0, true, side.dk + j * dim, dim);
      side.k.multiply(rows, dim, count, ds, j, 0, true, dq, dim);
    }
    store_rows(dq, rows, gradients_.dq.at(batch, head), first);
  }

  // From the products of a query with the keys of these blocks below `seen`, all that it may look
  // at, and of its gradient with the values: p = the (dropped out) probabilities that met the
  // values, ds = the gradients of q·k.
  void differentiate(int64_t batch, int64_t head, int64_t query, const std::vector<int64_t>& blocks,
                     int64_t seen, T* p, T* ds) const {
    const int64_t row = problem_.row(batch, head, query);
    const T shift = logsumexp(row);
    T total = 0, inner = 0;  // Σ p, Σ p · dp
    for (const int64_t j : blocks) {
      const int64_t count = std::min(kKeyBlock, seen - j);
      if (count <= 0) break;
      scale_and_mask(problem_, batch, head, query, j, count, p + j);
      drop(row, j, count, ds + j);
      functions_.softmax_moments(p + j, ds + j, count, shift, total, inner);
    }
    T share = total == T(0) ? T(0) : T(1) / total, delta = inner * share;
    if (problem_.params.inner.defined()) {  // these are not all of the row's keys
      share = 1;
      delta = number(problem_.params.inner, row);
    }
    const T scale = static_cast<T>(problem_.params.scale);
    for (const int64_t first : blocks) {
      const int64_t end = std::min(first + kKeyBlock, seen);
      if (end <= first) break;
#pragma omp simd
      for (int64_t j = first; j < end; ++j) {
        p[j] *= share;
        ds[j] = p[j] * (ds[j] - delta) * scale;
      }
      drop(row, first, end - first, p + first);
    }
  }

  // line *= dropout's factors of keys [first, first + count) of a row.
  void drop(int64_t row, int64_t first, int64_t count, T* line) const {
    if (problem_.params.dropout <= 0) return;
    T factors[kKeyBlock];
    dropout_factors(problem_, row * problem_.keys + first, count, factors);
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) line[j] *= factors[j];
  }

  // A row's logsumexp; +∞ for one that saw nothing, which makes its probabilities 0.
  T logsumexp(int64_t row) const {
    const T value = number(gradients_.logsumexp, row);
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    return value == -kInfinity ? kInfinity : value;
  }
  // A row's element of a contiguous array.
  static T number(const Array& of_rows, int64_t row) {
    T value;
    load_row(static_cast<const std::byte*>(of_rows.data()) + row * size_of(of_rows.dtype()),
             of_rows.dtype(), 1, 1, &value);
    return value;
  }

  void store_rows(const T* rows, int64_t count, const MatrixView& target, int64_t first) const {
    for (int64_t i = 0; i < count; ++i)
      store_row(rows + i * problem_.dim, problem_.dim, target.at(first + i, 0), target.dtype,
                target.column_stride);
  }

  const AttentionProblem& problem_;
  const Gradients& gradients_;
  LineFunctions<T> functions_ = line_functions<T>();
};

}  // namespace

void attention_backward(const Array& q, const Array& k, const Array& v, const Array& /*out*/,
                        const Array& logsumexp, const Array& dout, const AttentionParams& given,
                        const Array& dq, const Array& dk, const Array& dv) {
  const AttentionParams params = with_documents_as_splits(given);
  const AttentionProblem problem(q, k, v, params);
  const Gradients gradients{Heads(dout), Heads(dq), Heads(dk), Heads(dv), logsumexp};
  if (q.dtype() == DType::f64)
    Backward<double>(problem, gradients).run();
  else
    Backward<float>(problem, gradients).run();
}

}  // namespace binade::kernels::cpu
