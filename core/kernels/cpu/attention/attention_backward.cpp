// Attention's backward pass (Dao et al. 2022, alg. 4): probabilities are computed again from the
// scores and logsumexp, block by block. A thread takes one key head with all query heads that read
// it, so that its gradients are summed in one order.
#include <binade/core/kernels/cpu/attention/attention_blocks.h>
#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>

namespace binade::kernels::cpu {

namespace {

struct Gradients {
  Heads out, dout, dq, dk, dv;
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
    const Block<const T> k = whole(problem_.k.at(batch, key_head), key_rows);
    const Block<const T> v = whole(problem_.v.at(batch, key_head), value_rows);
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
    const Block<const T> q = block_of(problem_.q.at(batch, head), first, 0, rows, dim,
                                      query_rows.reserve(kQueryBlock * dim));
    const Block<const T> dout = block_of(gradients_.dout.at(batch, head), first, 0, rows, dim,
                                         dout_rows.reserve(kQueryBlock * dim));
    thread_local RightOperand<T> right_q, right_dout;
    right_q.assign(rows, dim, q, problem_.keys);
    right_dout.assign(rows, dim, dout, problem_.keys);
    T* const dq = dq_rows.reserve(kQueryBlock * dim);
    T* const probabilities = probability_rows.reserve(kQueryBlock * kKeyBlock);
    T* const dscores = gradient_rows.reserve(kQueryBlock * kKeyBlock);
    T delta[kQueryBlock], logsumexp[kQueryBlock];
    row_statistics(batch, head, first, rows, delta, logsumexp);
    std::fill_n(dq, rows * dim, T(0));

    const MatrixView mask = problem_.mask.at(batch, head);
    const int64_t limit = problem_.visible(first + rows - 1);
    for (int64_t j = 0; j < limit; j += kKeyBlock) {
      const int64_t count = std::min(kKeyBlock, limit - j);
      side.k_transposed.multiply(rows, count, dim, q, 0, j, false, probabilities, kKeyBlock);
      side.v_transposed.multiply(rows, count, dim, dout, 0, j, false, dscores, kKeyBlock);
      for (int64_t i = 0; i < rows; ++i) {
        T* p = probabilities + i * kKeyBlock;
        T* ds = dscores + i * kKeyBlock;
        const int64_t seen = std::clamp<int64_t>(problem_.visible(first + i) - j, 0, count);
        scale_and_mask(problem_, mask, first + i, j, seen, p);
        const int64_t element = problem_.row(batch, head, first + i) * problem_.keys + j;
        differentiate(p, ds, seen, delta[i], logsumexp[i], element);
        std::fill(p + seen, p + count, T(0));
        std::fill(ds + seen, ds + count, T(0));
      }
      const Block<const T> p{probabilities, kKeyBlock, false}, ds{dscores, kKeyBlock, false};
      right_dout.multiply(count, dim, rows, p.flipped(), 0, 0, true, side.dv + j * dim, dim);
      right_q.multiply(count, dim, rows, ds.flipped(), 0, 0, true, side.dk + j * dim, dim);
      side.k.multiply(rows, dim, count, ds, j, 0, true, dq, dim);
    }
    store_rows(dq, rows, gradients_.dq.at(batch, head), first);
  }

  // delta = Σ out · dout of every row (which is Σ probability · its gradient), and logsumexp, with
  // +∞ for rows that saw nothing, which makes their probabilities 0.
  void row_statistics(int64_t batch, int64_t head, int64_t first, int64_t rows, T* delta,
                      T* logsumexp) const {
    const int64_t dim = problem_.dim;
    const MatrixView out = gradients_.out.at(batch, head), dout = gradients_.dout.at(batch, head);
    const Array& saved = gradients_.logsumexp;
    load_row(static_cast<const std::byte*>(saved.data()) +
                 problem_.row(batch, head, first) * size_of(saved.dtype()),
             saved.dtype(), 1, rows, logsumexp);
    RowReader<T> out_row, dout_row;
    for (int64_t i = 0; i < rows; ++i) {
      const T* y = out_row.read(out.at(first + i, 0), out.column_stride * size_of(out.dtype),
                                out.dtype, dim);
      const T* dy = dout_row.read(dout.at(first + i, 0), dout.column_stride * size_of(dout.dtype),
                                  dout.dtype, dim);
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < dim; ++d) sum += y[d] * dy[d];
      delta[i] = sum;
      if (logsumexp[i] == -std::numeric_limits<T>::infinity())
        logsumexp[i] = std::numeric_limits<T>::infinity();
    }
  }

  // From scores and the gradients of the probabilities: p = the (dropped out) probabilities that
  // met the values, ds = the gradients of q·k.
  void differentiate(T* p, T* ds, int64_t count, T delta, T logsumexp, int64_t element) const {
    const T scale = static_cast<T>(problem_.params.scale);
    if (problem_.params.dropout > 0) {
      T factors[kKeyBlock];
      dropout_factors(problem_, element, count, factors);
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) {
        const T probability = fast_exp(p[j] - logsumexp);
        ds[j] = probability * (ds[j] * factors[j] - delta) * scale;
        p[j] = probability * factors[j];
      }
      return;
    }
    functions_.differentiate_softmax(p, ds, count, delta, logsumexp, scale);
  }

  Block<const T> whole(const MatrixView& matrix, Workspace<T>& buffer) const {
    const bool in_place = usable_in_place<T>(matrix, problem_.keys, problem_.dim);
    return block_of(matrix, 0, 0, problem_.keys, problem_.dim,
                    in_place ? nullptr : buffer.reserve(problem_.keys * problem_.dim));
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

void attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                        const Array& logsumexp, const Array& dout, const AttentionParams& params,
                        const Array& dq, const Array& dk, const Array& dv) {
  const AttentionProblem problem(q, k, v, params);
  const Gradients gradients{Heads(out), Heads(dout), Heads(dq), Heads(dk), Heads(dv), logsumexp};
  if (q.dtype() == DType::f64)
    Backward<double>(problem, gradients).run();
  else
    Backward<float>(problem, gradients).run();
}

}  // namespace binade::kernels::cpu
