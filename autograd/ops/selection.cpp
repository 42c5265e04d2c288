// Indexing by tensors and masks, and choosing positions, from indexing.h.
#include <algorithm>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/random.h>

namespace binade {

using namespace ops;

namespace {

// Index tensors for some dimensions of x, as one index along a single dimension: x is seen as
// `merged`, in which the indexed dimensions are one, and picked from along `dim` by `flat`.
struct Places {
  std::vector<int> order;  // of x's dimensions in `merged`; empty: as they are
  Shape merged;
  int dim = 0;
  Tensor flat;        // vector of i64
  Shape index_shape;  // what the index tensors broadcast to
  Shape picked;       // the result's shape

  Places(const char* op, const Tensor& x, const std::vector<Tensor>& indices) {
    check_defined(op, "x", x);
    check(static_cast<int>(indices.size()) <= x.dims(), op, ": ", indices.size(),
          " indices are more than x ", Kind{x}, " has dimensions");
    std::vector<int> indexed;
    for (size_t i = 0; i < indices.size(); ++i) {
      if (!indices[i].defined()) continue;
      check(indices[i].dtype() != DType::boolean, op,
            ": an index is bool; use masked_select, or masked_fill and where, with a mask");
      check_index(op, "an index", indices[i]);
      check_device(op, {x, indices[i]});
      index_shape = broadcast(index_shape, indices[i].shape(), op);
      indexed.push_back(static_cast<int>(i));
    }
    check(!indexed.empty(), op, ": there must be an index tensor");
    flatten_indices(op, x, indices, indexed);
    place_dims(x, indexed);
  }

  // x as `merged`: a view where the strides allow it.
  Tensor rows(const Tensor& x) const {
    return reshape(order.empty() ? x : permute(x, order), merged);
  }
  // The same the other way round.
  Tensor back(const Tensor& rows, const Tensor& x) const {
    if (order.empty()) return reshape(rows, x.shape());
    Shape permuted;
    std::vector<int> inverse(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      permuted.push_back(x.size(order[i]));
      inverse[static_cast<size_t>(order[i])] = static_cast<int>(i);
    }
    return permute(reshape(rows, permuted), inverse);
  }
  // The shape of what is picked from `merged`.
  Shape picked_rows() const {
    Shape shape = merged;
    shape[dim] = flat.numel();
    return shape;
  }

 private:
  void flatten_indices(const char* op, const Tensor& x, const std::vector<Tensor>& indices,
                       const std::vector<int>& indexed) {
    const Array all = Array::empty(index_shape, DType::i64, x.device());
    int64_t stride = 1;
    for (const int d : indexed) {
      stride *= x.size(d);
      check(all.numel() == 0 || x.size(d) > 0, op, ": dimension ", d, " of x ", Kind{x},
            " is empty, so that every index is out of range");
    }
    float beta = 0;
    for (const int d : indexed) {
      stride /= std::max<int64_t>(x.size(d), 1);
      BINADE_DISPATCH(x.device(),
                      flat_index(indices[static_cast<size_t>(d)].array().expand(index_shape),
                                 x.size(d), stride, all, beta));
      beta = 1;
    }
    flat = Tensor(all.view({all.numel()}));
  }

  void place_dims(const Tensor& x, const std::vector<int>& indexed) {
    const int first = indexed.front(), last = indexed.back();
    const bool neighbours = last - first + 1 == static_cast<int>(indexed.size());
    std::vector<int> front, others;
    for (int d = 0; d < x.dims(); ++d)
      (std::find(indexed.begin(), indexed.end(), d) == indexed.end() ? others : front).push_back(d);
    if (!neighbours) {
      order = front;
      order.insert(order.end(), others.begin(), others.end());
    }
    dim = neighbours ? first : 0;
    int64_t together = 1;
    for (const int d : indexed) together *= x.size(d);
    int placed = 0;
    const auto place_indexed = [&] {
      merged.push_back(together);
      for (const int64_t size : index_shape) picked.push_back(size);
    };
    for (const int d : others) {
      if (placed++ == dim) place_indexed();
      merged.push_back(x.size(d));
      picked.push_back(x.size(d));
    }
    if (placed <= dim) place_indexed();
  }
};

// A vector's mask, counted.
struct Mask {
  Saved values;  // contiguous
  Array ends;
  int64_t size, count;
};

// The elements of x, a vector, that the mask names, and a vector that has x's elements there.
Tensor expanded(const Tensor& x, const Mask& mask);
Tensor compacted(const Tensor& x, const Mask& mask) {
  const Array y = Array::empty({mask.count}, x.dtype(), x.device());
  BINADE_DISPATCH(y.device(),
                  mask_compact(x.array().contiguous(), mask.values.array(), mask.ends, y));
  return record("masked_select", {x}, y,
                [mask](const Tensor& dy) -> TensorList { return {expanded(dy, mask)}; });
}
Tensor expanded(const Tensor& x, const Mask& mask) {
  const Array y = Array::empty({mask.size}, x.dtype(), x.device());
  BINADE_DISPATCH(y.device(),
                  mask_expand(x.array().contiguous(), mask.values.array(), mask.ends, y));
  return record("masked_select_gradient", {x}, y,
                [mask](const Tensor& dy) -> TensorList { return {compacted(dy, mask)}; });
}

// Which rows of a merge come from its source, and where the source's rows go: the other way round
// they are those of its gradient.
struct Routes {
  Array from, kept;  // merge_rows() and last_writers() of core/kernels/indexing.h
  Routes reversed() const { return {kept, from}; }
};

// The rows of base along `dim`, and in place of some rows of source.
Tensor merged(const Tensor& base, const Tensor& source, int dim, const Routes& routes) {
  const Array y = Array::empty(base.shape(), base.dtype(), base.device());
  BINADE_DISPATCH(y.device(), merge_rows(base.array(), source.array(), dim, routes.from, y));
  return record(
      "index_put", {base, source}, y,
      [dim, routes, shape = source.shape()](const Tensor& dy) -> TensorList {
        const Tensor zeros = expand(Tensor::scalar(0, dy.dtype(), dy.device()), shape);
        return {merged(dy, zeros, dim, routes), merged(zeros, dy, dim, routes.reversed())};
      });
}

}  // namespace

Tensor index(const Tensor& x, const std::vector<Tensor>& indices) {
  const Places places("index", x, indices);
  return reshape(index_select(places.rows(x), places.dim, places.flat), places.picked);
}

Tensor index_put(const Tensor& x, const std::vector<Tensor>& indices, const Tensor& values,
                 bool accumulate) {
  const Places places("index_put", x, indices);
  check_defined("index_put", "values", values);
  check_device("index_put", {x, values});
  check_same_dtype("index_put", x, values);
  check(broadcast(values.shape(), places.picked, "index_put") == places.picked,
        "index_put: values must broadcast to ", places.picked, ", got ", Kind{values});
  const Shape shape = places.picked_rows();
  const Tensor rows = places.rows(x);
  const Tensor given = reshape(expand(values, places.picked), shape);
  if (accumulate) return places.back(index_add(rows, places.dim, places.flat, given), x);
  const Array flat = places.flat.array();
  const Routes routes{Array::empty({rows.size(places.dim)}, DType::i64, x.device()),
                      empty_like(flat)};
  BINADE_DISPATCH(x.device(), last_writers(flat, routes.from, routes.kept));
  return places.back(merged(rows, given, places.dim, routes), x);
}

Tensor masked_select(const Tensor& x, const Tensor& mask) {
  check_defined("masked_select", "x", x);
  check_defined("masked_select", "mask", mask);
  check(mask.dtype() == DType::boolean, "masked_select: mask must be bool, got ", Kind{mask},
        "; compare it with something, or convert it with to(x, DType::boolean)");
  check_device("masked_select", {x, mask});
  const Shape shape = broadcast(x.shape(), mask.shape(), "masked_select");
  const Array chosen = mask.array().expand(shape).contiguous().view({shape.numel()});
  const int64_t chunks = (shape.numel() + kernels::kMaskChunk - 1) / kernels::kMaskChunk;
  const Array ends = Array::empty({chunks}, DType::i64, x.device());
  int64_t count = 0;
  if (chunks > 0) {
    BINADE_DISPATCH(x.device(), count_mask(chosen, ends));
    count = static_cast<int64_t>(ends.select(0, chunks - 1).item());
  }
  return compacted(reshape(expand(x, shape), {shape.numel()}),
                   Mask{Saved(chosen), ends, shape.numel(), count});
}

Tensor bincount(const Tensor& x, const Tensor& weights, int64_t least) {
  check_index("bincount", "x", x);
  check(x.dims() == 1, "bincount: x must be a vector, got ", Kind{x});
  check(least >= 0, "bincount: the least number of counts must not be below 0, got ", least);
  int64_t length = least;
  if (x.numel() > 0) {
    const std::vector<int64_t> ends =
        cat({min(x, {}, true), max(x, {}, true)}, 0).to_vector<int64_t>();
    check(ends[0] >= 0, "bincount: numbers below 0 are not counted, but x has ", ends[0]);
    length = std::max(length, ends[1] + 1);
  }
  if (!weights.defined()) {
    const Tensor one = expand(Tensor::ones({1}, DType::i64, x.device()), x.shape());
    return index_add(Tensor::zeros({length}, DType::i64, x.device()), 0, x, one);
  }
  check_floating("bincount", "weights", weights);
  check_device("bincount", {x, weights});
  check(weights.shape() == x.shape(), "bincount: there must be a weight for every number of x ",
        Kind{x}, ", got weights ", Kind{weights});
  const Tensor wide = to(weights, statistics_dtype(weights.dtype()));
  const Tensor sums = index_add(Tensor::zeros({length}, wide.dtype(), x.device()), 0, x, wide);
  return to(sums, full_dtype(weights.dtype()));
}

Tensor one_hot(const Tensor& index, int64_t classes, DType dtype) {
  check_index("one_hot", "index", index);
  check(classes >= 1, "one_hot: classes must be above 0, got ", classes);
  Shape shape = index.shape();
  shape.push_back(classes);
  const Array y = Array::empty(shape, dtype, index.device());
  BINADE_DISPATCH(y.device(), one_hot(index.array().reshape({index.numel()}), rows_to_write(y)));
  return record_constant("one_hot", {index}, y);
}

Tensor searchsorted(const Tensor& sorted, const Tensor& values, bool right) {
  check_defined("searchsorted", "sorted", sorted);
  check_defined("searchsorted", "values", values);
  check_device("searchsorted", {sorted, values});
  check_same_dtype("searchsorted", sorted, values);
  bool fits = sorted.dims() == 1 || sorted.dims() == values.dims();
  if (sorted.dims() != 1)
    for (int d = 0; fits && d + 1 < sorted.dims(); ++d) fits = sorted.size(d) == values.size(d);
  check(sorted.dims() >= 1 && fits,
        "searchsorted: sorted must be (S), or (…, S) for values (…, V), got sorted ", Kind{sorted},
        " and values ", Kind{values});
  const Array y = Array::empty(values.shape(), DType::i64, values.device());
  if (y.numel() == 0) return record_constant("searchsorted", {sorted, values}, y);
  const bool shared = sorted.dims() == 1;
  const int64_t width = shared ? values.numel() : values.size(-1);
  const int64_t rows = values.numel() / width;
  BINADE_DISPATCH(
      y.device(),
      searchsorted(sorted.array().contiguous().view({shared ? 1 : rows, sorted.size(-1)}),
                   values.array().contiguous().view({rows, width}), right, y.view({rows, width})));
  return record_constant("searchsorted", {sorted, values}, y);
}

Tensor multinomial(const Tensor& weights, int64_t count, bool replacement) {
  check_floating("multinomial", "weights", weights);
  check(weights.dims() == 1 || weights.dims() == 2,
        "multinomial: weights must be (K) or (N, K), got ", Kind{weights});
  const int64_t width = weights.size(-1);
  check(width >= 1 && width <= kernels::kMostWeights, "multinomial: weights must have from 1 to ",
        kernels::kMostWeights, " columns, got ", Kind{weights});
  check(count >= 1 && (replacement || count <= width), "multinomial: cannot draw ", count, " of ",
        width, replacement ? " with" : " without", " replacement");
  RandomState& random = RandomState::current();
  const PhiloxKey key{random.seed(), random.step_on(weights.device()), random.next_place()};
  const Array y = Array::empty(with_last(weights.shape(), count), DType::i64, weights.device());
  const Array rows = weights.array().contiguous().view({weights.numel() / width, width});
  BINADE_DISPATCH(y.device(), multinomial(rows, key, replacement, rows_to_write(y)));
  return record_constant("multinomial", {weights}, y);
}

}  // namespace binade
