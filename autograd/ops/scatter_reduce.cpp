// scatter_reduce, from indexing.h.
#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/indexing.h>

namespace binade {

using namespace ops;

namespace {

kernels::ScatterFold fold_of(ScatterReduce reduce) {
  switch (reduce) {
    case ScatterReduce::sum:
      return kernels::ScatterFold::sum;
    case ScatterReduce::prod:
      return kernels::ScatterFold::prod;
    case ScatterReduce::mean:
      return kernels::ScatterFold::mean;
    case ScatterReduce::amax:
      return kernels::ScatterFold::max;
    default:
      return kernels::ScatterFold::min;
  }
}

// One call, as its gradient sees it. What is computed with is f32 (f64); extremes are only
// compared, in their own dtype.
struct Scattered {
  int dim;
  Shape shape;  // of x
  DType dtype;
  Tensor index, x, source, result;  // x and source for prod and extremes, the result for these
  bool include_self;

  Tensor number(double value) const { return Tensor::scalar(value, dtype, index.device()); }
  Tensor at_places(const Tensor& of_x) const { return gather(of_x, dim, index); }
  // What of x counts: all of it, or what no index names.
  Tensor of_self(const Tensor& of_x) const {
    if (include_self) return of_x;
    const Tensor nothing = Tensor::zeros(index.shape(), of_x.dtype(), index.device());
    return scatter(of_x, dim, index, nothing);
  }
  // What reached each place, of x and of source.
  Tensor gathered(const Tensor& of_x, const Tensor& of_source) const {
    return scatter_add(of_self(of_x), dim, index, of_source);
  }
  // The same of bools or ones, counted exactly: f32 stops at 2^24. No place gets 2^31.
  Tensor counted(const Tensor& of_x, const Tensor& of_source) const {
    return to(gathered(to(of_x, DType::i32), to(of_source, DType::i32)), dtype);
  }

  TensorList sum_gradients(const Tensor& dy) const { return {of_self(dy), at_places(dy)}; }

  TensorList mean_gradients(const Tensor& dy) const {
    const Tensor one = Tensor::scalar(1, DType::i32, index.device());
    const Tensor count = counted(expand(one, shape), expand(one, index.shape()));
    return sum_gradients(dy / maximum(count, number(1)));
  }

  TensorList extreme_gradients(const Tensor& dy) const {
    const Tensor self_wins = equal(x, result), source_wins = equal(source, at_places(result));
    const Tensor share = dy / maximum(counted(self_wins, source_wins), number(1));
    return {of_self(to(self_wins, dtype)) * share, to(source_wins, dtype) * at_places(share)};
  }

  // The product of the others, of which zeros leave little: of those that are not zero, where no
  // other is.
  TensorList product_gradients(const Tensor& dy) const {
    const Tensor self_zero = equal(x, number(0)), source_zero = equal(source, number(0));
    const Tensor zero_count = counted(self_zero, source_zero);
    const Tensor rest =
        scatter_reduce(masked_fill(x, self_zero, 1), dim, index,
                       masked_fill(source, source_zero, 1), ScatterReduce::prod, include_self);
    const auto others = [&](const Tensor& value, const Tensor& is_zero, const Tensor& product,
                            const Tensor& zeros) {
      const Tensor without_zero =
          where(equal(zeros, number(0)), product / masked_fill(value, is_zero, 1), number(0));
      const Tensor the_only_zero = where(equal(zeros, number(1)), product, number(0));
      return where(is_zero, the_only_zero, without_zero);
    };
    return {of_self(dy * others(x, self_zero, rest, zero_count)),
            at_places(dy) * others(source, source_zero, at_places(rest), at_places(zero_count))};
  }
};

struct ExtremeGradient {
  int dim;
  bool include_self;
  Saved index, x, source, y;

  void operator()(Backward& backward) const {
    const Array in = x.array(), from = source.array();
    const auto wanted = [&](int input, const Array& like) {
      return backward.needed(input) ? Array::empty(like.shape(), like.dtype(), like.device())
                                    : Array();
    };
    const Array gradients[] = {wanted(0, in), wanted(1, from)};
    BINADE_DISPATCH(in.device(), scatter_extreme_backward(
                                     backward.grad().contiguous(), in, dim, index.array(), from,
                                     y.array(), include_self, gradients[0], gradients[1]));
    for (const int input : {0, 1})
      if (backward.needed(input)) backward.slot(input).add(gradients[input]);
  }

  void operator()(BackwardOnTape& tape) const {
    const DType dtype = tape.grad().dtype(), wide = statistics_dtype(dtype);
    const Scattered call{dim,        x.array().shape(), wide,       index.tensor(),
                         x.tensor(), source.tensor(),   y.tensor(), include_self};
    const TensorList found = call.extreme_gradients(to(tape.grad(), wide));
    for (const int input : {0, 1})
      if (tape.needed(input)) tape.give(input, to(found[static_cast<size_t>(input)], dtype));
  }
};

}  // namespace

Tensor scatter_reduce(const Tensor& x, int dim_in, const Tensor& index, const Tensor& source,
                      ScatterReduce reduce, bool include_self) {
  const char* op = "scatter_reduce";
  check_defined(op, "x", x);
  check_defined(op, "source", source);
  check_index(op, "index", index);
  check_device(op, {x, index, source});
  check_same_dtype(op, x, source);
  check(x.dtype() != DType::boolean, op, ": bool has no arithmetic; convert with to(x, dtype)");
  if (reduce == ScatterReduce::mean || reduce == ScatterReduce::prod) check_floating(op, "x", x);
  const int dim = x.shape().wrap_dim(dim_in);
  bool fits = x.dims() == index.dims() && x.dims() > 0;
  for (int i = 0; fits && i < x.dims(); ++i) fits = i == dim || index.size(i) <= x.size(i);
  check(fits, op, ": index must have as many dimensions as x and be no larger outside dimension ",
        dim, ", got x ", Kind{x}, " and index ", Kind{index});
  check(index.numel() == 0 || x.size(dim) > 0, op, ": dimension ", dim, " of ", Kind{x},
        " is empty, so that every index in ", Kind{index}, " is out of range");
  check(source.shape() == index.shape(), op, ": source must have shape ", index.shape(), ", got ",
        Kind{source});
  const Array y = x.array().clone();
  BINADE_DISPATCH(y.device(), scatter_reduce(y, dim, index.array(), source.array(), fold_of(reduce),
                                             include_self));
  if (reduce == ScatterReduce::amax || reduce == ScatterReduce::amin)
    return record(
        op, {x, source}, y,
        ExtremeGradient{dim, include_self, Saved(index), Saved(x), Saved(source), Saved(y)});
  const bool product = reduce == ScatterReduce::prod;
  const auto gradients = [dim, reduce, include_self, shape = x.shape(), index = Saved(index),
                          x = save_if(product, x),
                          source = save_if(product, source)](const Tensor& dy) -> TensorList {
    const DType dtype = dy.dtype(), wide = statistics_dtype(dtype);
    const auto operand = [&](const Saved& saved) {
      return saved.defined() ? to(saved.tensor(), wide) : Tensor();
    };
    const Scattered call{dim,        shape,           wide,     index.tensor(),
                         operand(x), operand(source), Tensor(), include_self};
    if (reduce == ScatterReduce::sum) return call.sum_gradients(dy);  // moved, as it is
    const Tensor given = to(dy, wide);
    const TensorList found =
        reduce == ScatterReduce::mean ? call.mean_gradients(given) : call.product_gradients(given);
    return {to(found[0], dtype), to(found[1], dtype)};
  };
  if (!product) return record(op, {x, source}, y, gradients);
  // Not in public ops: beside zeros their derivatives would be wrong.
  const auto fused = [gradients](Backward& backward) {
    const NoGrad no_grad;
    const TensorList found = gradients(Tensor(backward.grad()));
    for (int i : {0, 1})
      if (backward.needed(i)) backward.slot(i).add(found[static_cast<size_t>(i)].array());
  };
  return record(op, {x, source}, y,
                OnceDifferentiable{fused, "take prod() of the elements of each place"});
}

}  // namespace binade
