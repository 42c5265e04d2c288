// What the ways of a matmul on the CPU share: the problem as strided matrices, and the
// epilogue of one line of the output. Private to this folder.
#pragma once

#include <vector>

#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/matmul.h>

namespace binade::kernels::cpu {

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

struct MatmulProblem {
  int64_t m = 0, n = 0, k = 0;
  Shape batch;  // leading sizes
  Batched a, b, out, pre_activation;
  bool has_pre_activation = false;

  MatmulProblem(const Array& a_array, const Array& b_array, const Array& out_array,
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

  // (…, B, M, K) · one (K, N) matrix is (…, B·M, K) · (K, N): one large matmul instead of many.
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

// What is done to a line of sums before it is stored.
template <class T>
class LineEpilogue {
 public:
  LineEpilogue(const MatmulProblem& problem, const MatmulEpilogue& epilogue)
      : problem_(problem),
        relu_(epilogue.relu),
        gelu_(epilogue.gelu),
        dgelu_(epilogue.dgelu),
        drelu_(epilogue.drelu) {
    if (!epilogue.bias.defined()) return;
    bias_.resize(static_cast<size_t>(problem.n));
    load_row(epilogue.bias.data(), epilogue.bias.dtype(), epilogue.bias.stride(0), problem.n,
             bias_.data());
  }

  bool empty() const { return bias_.empty() && !relu_ && !gelu_ && !reads_input(); }

  // `line` holds n sums from (row, column) of the batch's matrix; `buffer` has room for n.
  void apply(T* line, int64_t batch, int64_t row, int64_t column, int64_t n, T* buffer) const {
    const T* const bias = bias_.empty() ? nullptr : bias_.data() + column;
    if (relu_) return functions_.relu(line, bias, n);
    if (!gelu_ && !reads_input()) {
      if (bias != nullptr) functions_.add(line, bias, n);
      return;
    }
    const MatrixView pre = problem_.has_pre_activation
                               ? problem_.pre_activation.at(batch, problem_.batch)
                               : MatrixView();
    std::byte* const place = pre.data ? pre.at(row, column) : nullptr;
    const bool in_place = pre.dtype == dtype_of<T>() && pre.column_stride == 1;
    T* const numbers = place == nullptr ? nullptr : in_place ? reinterpret_cast<T*>(place) : buffer;
    if (gelu_) {
      functions_.gelu(line, bias, numbers, n);
      if (numbers == buffer) store_row(buffer, n, place, pre.dtype, pre.column_stride);
      return;
    }
    if (bias != nullptr) functions_.add(line, bias, n);
    if (!in_place) load_row(place, pre.dtype, pre.column_stride, n, buffer);
    if (drelu_) return functions_.keep_where_above(line, numbers, n);
    functions_.multiply_by_gelu_gradient(line, numbers, n);
  }

 private:
  bool reads_input() const { return dgelu_ || drelu_; }

  const MatmulProblem& problem_;
  bool relu_, gelu_, dgelu_, drelu_;
  std::vector<T> bias_;
  LineFunctions<T> functions_ = line_functions<T>();
};

}  // namespace binade::kernels::cpu
