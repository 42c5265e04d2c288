#include <binade/autograd/ops/indexing.h>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/indexing.h>

namespace binade {

using namespace ops;

namespace {

// The index must fit inside x beside `dim`.
void check_positions(const char* op, const Tensor& x, int dim, const Tensor& index) {
  bool fits = x.dims() == index.dims() && x.dims() > 0;
  for (int i = 0; fits && i < x.dims(); ++i) fits = i == dim || index.size(i) <= x.size(i);
  check(fits, op, ": index must have as many dimensions as x and be no larger outside dimension ",
        dim, ", got x ", Kind{x}, " and index ", Kind{index});
}

// There is nothing to point at in an empty dimension. On the GPU, where indices are not checked
// beforehand, the kernels would have no place to begin.
void check_not_empty(const char* op, const Tensor& x, int dim, const Tensor& index) {
  check(index.numel() == 0 || x.size(dim) > 0, op, ": dimension ", dim, " of ", Kind{x},
        " is empty, so that every index in ", Kind{index}, " is out of range");
}

void check_source(const char* op, const Tensor& x, const Tensor& source, const Shape& expected) {
  check_same_dtype(op, x, source);
  check(source.shape() == expected, op, ": source must have shape ", expected, ", got ",
        Kind{source});
}

Tensor zeros_like(const Shape& shape, const Tensor& like) {
  return Tensor::zeros(shape, like.dtype(), like.device());
}

// Of the elements of `index`, those whose place no later one along `dim` names: what scatter writes
// there stays. Broadcasts to index's shape: where index repeats itself, one element says it all.
Tensor stays_written(Shape shape, int dim, const Tensor& index_in) {
  Array cut = index_in.array();
  for (int d = 0; d < cut.dims(); ++d) {
    if (d == dim || cut.size(d) == 1 || cut.stride(d) != 0) continue;
    cut = cut.slice(d, 0, 1);
    shape[d] = 1;
  }
  const Tensor index(cut);
  const int64_t length = index.size(dim);
  Shape along = Shape::filled(index.dims(), 1);
  along[dim] = length;
  const Tensor position =
      expand(Tensor(Array::arange(length, DType::i64, index.device()).view(along)), index.shape());
  const Tensor last =
      scatter(Tensor::zeros(shape, DType::i64, index.device()), dim, index, position);
  return equal(gather(last, dim, index), position);
}

Tensor scatter_with(const char* op, const Tensor& x, int dim_in, const Tensor& index,
                    const Tensor& source, bool add) {
  check_defined(op, "x", x);
  check_defined(op, "source", source);
  check_index(op, "index", index);
  check_device(op, {x, index, source});
  const int dim = x.shape().wrap_dim(dim_in);
  check_positions(op, x, dim, index);
  check_not_empty(op, x, dim, index);
  check_source(op, x, source, index.shape());
  const Array y = x.array().clone();
  BINADE_DISPATCH(y.device(), scatter(y, dim, index.array(), source.array(), add));
  return record(op, {x, source}, y,
                [dim, index = Saved(index), add](const Tensor& dy) -> TensorList {
                  const Tensor at = index.tensor();
                  const Tensor dsource = gather(dy, dim, at);
                  if (add) return {dy, dsource};
                  // Where source replaced x, x has no gradient, nor has what was written over.
                  const Tensor zero = Tensor::scalar(0, dy.dtype(), dy.device());
                  return {scatter(dy, dim, at, expand(zero, at.shape())),
                          masked_fill(dsource, logical_not(stays_written(dy.shape(), dim, at)), 0)};
                });
}

// Zeros of `shape` with dy added by index. Without a tape to keep, to one array.
Tensor scattered(const Shape& shape, int dim, const Tensor& index, const Tensor& dy) {
  if (grad_enabled()) return scatter_add(zeros_like(shape, dy), dim, index, dy);
  const Array dx = Array::zeros(shape, dy.dtype(), dy.device());
  BINADE_DISPATCH(dx.device(), scatter(dx, dim, index.array(), dy.array(), true));
  return Tensor(dx);
}
Tensor added_rows(const Shape& shape, int dim, const Tensor& index, const Tensor& dy) {
  if (grad_enabled()) return index_add(zeros_like(shape, dy), dim, index, dy);
  const Array dx = Array::empty(shape, dy.dtype(), dy.device());
  BINADE_DISPATCH(dx.device(), index_add(dx, dim, index.array(), dy.array(), 0));
  return Tensor(dx);
}

void check_rows(const char* op, const Tensor& x, const Tensor& index) {
  check_index(op, "index", index);
  check_device(op, {x, index});
  check(x.dims() > 0 && index.dims() == 1, op, ": index must be a vector, got x ", Kind{x},
        " and index ", Kind{index});
}

struct EmbeddingGradient {
  Saved index;  // (N)
  std::optional<int64_t> padding_idx;
  Shape table;  // (V, D)

  void operator()(Backward& backward) const {
    const auto dtable = backward.slot(0).open();
    if (!dtable) return;
    Array padding, before;  // the row without a gradient, and what it held
    if (padding_idx) {
      padding = dtable.array.select(0, *padding_idx);
      if (dtable.beta != 0) before = padding.clone();
    }
    BINADE_DISPATCH(
        dtable.array.device(),
        embedding_backward(as_rows(backward.grad()), index.array(), dtable.array, dtable.beta));
    if (before.defined())
      padding.copy_from(before);
    else if (padding_idx)
      padding.zero();
  }

  void operator()(BackwardOnTape& tape) const {
    const Tensor at(index.array());
    Tensor dy = reshape(tape.grad(), {at.numel(), table[1]});
    dy = to(dy, statistics_dtype(dy.dtype()));  // many rows may meet in one
    if (padding_idx) {
      const Tensor padding =
          Tensor::scalar(static_cast<double>(*padding_idx), at.dtype(), at.device());
      dy = masked_fill(dy, unsqueeze(equal(at, padding), 1), 0);
    }
    tape.give(0, index_add(zeros_like(table, dy), 0, at, dy));
  }
};

}  // namespace

Tensor embedding(const Tensor& table, const Tensor& index, std::optional<int64_t> padding_idx) {
  check_floating("embedding", "table", table);
  check_index("embedding", "index", index);
  check_device("embedding", {table, index});
  check(table.dims() == 2, "embedding: table must be (V, D), got ", Kind{table});
  check_not_empty("embedding", table, 0, index);
  check(!padding_idx || (*padding_idx >= 0 && *padding_idx < table.size(0)),
        "embedding: padding_idx ", padding_idx.value_or(0), " names no row of table ", Kind{table});
  Shape shape = index.shape();
  shape.push_back(table.size(1));
  const Array rows = index.array().reshape({index.numel()});
  const Array out = Array::empty(shape, table.dtype(), table.device());
  BINADE_DISPATCH(out.device(), embedding(as_rows(table.array()), rows, rows_to_write(out)));
  return record("embedding", {table}, out,
                EmbeddingGradient{Saved(rows), padding_idx, table.shape()});
}

Tensor gather(const Tensor& x, int dim_in, const Tensor& index) {
  check_defined("gather", "x", x);
  check_index("gather", "index", index);
  check_device("gather", {x, index});
  const int dim = x.shape().wrap_dim(dim_in);
  check_positions("gather", x, dim, index);
  check_not_empty("gather", x, dim, index);
  const Array y = Array::empty(index.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(y.device(), gather(x.array(), dim, index.array(), y));
  return record("gather", {x}, y,
                [dim, shape = x.shape(), index = Saved(index)](const Tensor& dy) -> TensorList {
                  return {scattered(shape, dim, index.tensor(), dy)};
                });
}

Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  return scatter_with("scatter", x, dim, index, source, false);
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  return scatter_with("scatter_add", x, dim, index, source, true);
}

Tensor index_select(const Tensor& x, int dim_in, const Tensor& index) {
  check_defined("index_select", "x", x);
  check_rows("index_select", x, index);
  const int dim = x.shape().wrap_dim(dim_in);
  check_not_empty("index_select", x, dim, index);
  Shape shape = x.shape();
  shape[dim] = index.numel();
  const Array y = Array::empty(shape, x.dtype(), x.device());
  BINADE_DISPATCH(y.device(), index_select(x.array(), dim, index.array(), y));
  return record("index_select", {x}, y,
                [dim, shape = x.shape(), index = Saved(index)](const Tensor& dy) -> TensorList {
                  return {added_rows(shape, dim, index.tensor(), dy)};
                });
}

Tensor index_add(const Tensor& x, int dim_in, const Tensor& index, const Tensor& source) {
  check_defined("index_add", "x", x);
  check_defined("index_add", "source", source);
  check_rows("index_add", x, index);
  check_device("index_add", {x, source});
  const int dim = x.shape().wrap_dim(dim_in);
  check_not_empty("index_add", x, dim, index);
  Shape expected = x.shape();
  expected[dim] = index.numel();
  check_source("index_add", x, source, expected);
  const Array y = x.array().clone();
  BINADE_DISPATCH(y.device(), index_add(y, dim, index.array(), source.array(), 1));
  return record("index_add", {x, source}, y,
                [dim, index = Saved(index)](const Tensor& dy) -> TensorList {
                  return {dy, index_select(dy, dim, index.tensor())};
                });
}

}  // namespace binade
