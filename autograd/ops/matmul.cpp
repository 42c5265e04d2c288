#include <binade/autograd/ops/matmul.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/matmul.h>

namespace binade {

using namespace ops;

namespace {

// shape (…, M, K) with other leading sizes.
Shape with_batch(const Shape& batch, int64_t rows, int64_t columns) {
  Shape shape = batch;
  shape.push_back(rows);
  shape.push_back(columns);
  return shape;
}

Shape batch_of(const Tensor& x) {
  return Shape(x.shape().span().first(static_cast<size_t>(x.dims() - 2)));
}

// Both operands have at least two dimensions and one dtype.
Tensor batched_matmul(const Tensor& a, const Tensor& b) {
  const int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
  const Shape batch = broadcast(batch_of(a), batch_of(b), "matmul");
  const Array y = Array::empty(with_batch(batch, m, n), a.dtype(), a.device());
  BINADE_DISPATCH(y.device(), matmul(a.array().expand(with_batch(batch, m, k)),
                                     b.array().expand(with_batch(batch, k, n)), y, {}));
  const bool need_a = a.requires_grad(), need_b = b.requires_grad();
  return record("matmul", {a, b}, y,
                [a = save_if(need_b, a), b = save_if(need_a, b), a_shape = a.shape(),
                 b_shape = b.shape()](const Tensor& dy) -> TensorList {
                  TensorList gradients(2);
                  if (b.defined())
                    gradients[0] = sum_to(matmul(dy, transpose(b.tensor(), -1, -2)), a_shape);
                  if (a.defined())
                    gradients[1] = sum_to(matmul(transpose(a.tensor(), -1, -2), dy), b_shape);
                  return gradients;
                });
}

}  // namespace

Tensor matmul(const Tensor& a_in, const Tensor& b_in) {
  check_floating("matmul", "a", a_in);
  check_floating("matmul", "b", b_in);
  check_device("matmul", {a_in, b_in});
  const int a_dims = a_in.dims(), b_dims = b_in.dims();
  check(a_dims >= 1 && b_dims >= 1 && a_in.size(-1) == b_in.size(b_dims == 1 ? 0 : -2),
        "matmul: a must be (…, M, K) and b (…, K, N), got a ", Kind{a_in}, " and b ", Kind{b_in},
        "; transpose or reshape one of them");
  const Tensor a = autocast(PrecisionClass::half, a_in);
  const Tensor b = autocast(PrecisionClass::half, b_in);
  check_same_dtype("matmul", a, b);

  if (a_dims == 1) {
    const Tensor y = matmul(unsqueeze(a, 0), b);
    return squeeze(y, b_dims == 1 ? 0 : -2);
  }
  if (b_dims == 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  if (a_dims > 2 && b_dims == 2) {  // one product, and one for b's gradient
    return reshape(batched_matmul(reshape(a, {row_count(a.shape()), a.size(-1)}), b),
                   with_last(a.shape(), b.size(1)));
  }
  return batched_matmul(a, b);
}

}  // namespace binade
