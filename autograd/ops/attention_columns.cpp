#include <cmath>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/attention.h>

namespace binade {

using namespace ops;

namespace {

constexpr const char* kOp = "attention_with_columns";

// q, k, v, the columns' keys, their values: the order of the op's inputs.
struct Inputs {
  Array q, k, v;
  kernels::AttentionColumns columns;

  explicit Inputs(const std::vector<Array>& all) : q(all[0]), k(all[1]), v(all[2]) {
    const auto middle = all.begin() + 3 + std::ssize(all) / 2 - 1;
    columns = {{all.begin() + 3, middle}, {middle, all.end()}};
  }
};

Array contiguous_last(const Array& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

// The same attention with a mask: keys and columns side by side, (B, Hkv, T·(1 + C), D).
Tensor with_explicit_mask(const TensorList& in, const kernels::AttentionParams& params) {
  const int64_t length = in[0].size(2), count = std::ssize(in) / 2 - 1;
  const Device device = in[0].device();
  Tensor seen = Tensor::ones({length, length}, DType::boolean, device);
  const Tensor own = triu(tril(seen));
  if (params.causal) seen = tril(seen);
  seen = reshape(seen, {1, 1, length, length});
  if (params.documents.defined()) {
    const Tensor documents(params.documents);
    seen = logical_and(seen, unsqueeze(equal(unsqueeze(documents, 2), unsqueeze(documents, 1)), 1));
  }
  TensorList masks{seen}, keys{in[1]}, values{in[2]};
  for (int64_t c = 0; c < count; ++c) {
    masks.push_back(expand(reshape(own, {1, 1, length, length}), seen.shape()));
    keys.push_back(in[static_cast<size_t>(3 + c)]);
    values.push_back(in[static_cast<size_t>(3 + count + c)]);
  }
  AttentionOptions options;
  options.scale = params.scale;
  options.mask = cat(masks, 3);
  return scaled_dot_product_attention(in[0], cat(keys, 2), cat(values, 2), options);
}

struct ColumnsGradient {
  std::vector<Saved> inputs;
  Saved out;
  Array logsumexp;
  kernels::AttentionParams params;

  void operator()(Backward& backward) const {
    std::vector<Array> saved, gradients;
    for (const Saved& input : inputs) {
      saved.push_back(input.array());
      gradients.push_back(empty_with_layout(saved.back()));
    }
    const Inputs in(saved), d(gradients);
    if (in.q.numel() == 0) {
      for (const Array& gradient : gradients) gradient.zero();
    } else {
      const Array y = out.array(), dout = contiguous_last(backward.grad());
      kernels::AttentionParams all = params;
      all.inner = Array::empty(logsumexp.shape(), logsumexp.dtype(), logsumexp.device());
      BINADE_DISPATCH(dout.device(), attention_inner(y, dout, all.inner));
      BINADE_DISPATCH(dout.device(),
                      attention_backward(in.q, in.k, in.v, y, logsumexp, dout, all, d.q, d.k, d.v));
      BINADE_DISPATCH(dout.device(),
                      attend_columns_backward(in.q, in.columns, params.scale, logsumexp, all.inner,
                                              dout, d.q, d.columns));
    }
    for (size_t i = 0; i < gradients.size(); ++i)
      backward.slot(static_cast<int>(i)).add(gradients[i]);
  }

  void operator()(BackwardOnTape& tape) const {
    TensorList in;
    for (size_t i = 0; i < inputs.size(); ++i)
      in.push_back(tape.input(static_cast<int>(i), inputs[i].array()));
    tape.through(with_explicit_mask(in, params), tape.grad());
  }
};

void check_columns(const Tensor& q, const Tensor& k, const Tensor& v, const TensorList& keys,
                   const TensorList& values, const AttentionOptions& options) {
  check(q.dims() == 4 && k.dims() == 4 && k.shape() == v.shape() && q.size(0) == k.size(0) &&
            q.size(2) == k.size(2) && q.size(3) == k.size(3) && k.size(1) > 0 &&
            q.size(1) % k.size(1) == 0,
        kOp, ": q must be (B, Hq, T, D), k and v (B, Hkv, T, D) with Hq a multiple of Hkv, got q ",
        Kind{q}, ", k ", Kind{k}, ", v ", Kind{v});
  check(keys.size() == values.size() && std::ssize(keys) <= kernels::kMostAttentionColumns, kOp,
        ": there are ", keys.size(), " columns of keys and ", values.size(),
        " of values; as many of each, and at most ", kernels::kMostAttentionColumns);
  for (const TensorList* columns : {&keys, &values})
    for (const Tensor& column : *columns)
      check(column.shape() == k.shape(), kOp, ": a column must be as the keys, ", k.shape(),
            ", got ", Kind{column});
  check(!options.mask.defined() && options.window == 0 && options.dropout == 0 &&
            !options.query_slots.defined() && !options.key_slots.defined() &&
            !options.rope_cos.defined() && !options.rope_sin.defined(),
        kOp, ": there is no mask, window, dropout, slot or rotation beside columns");
  check(!options.documents.defined() || (options.documents.dtype() == DType::i32 &&
                                         options.documents.shape() == Shape{q.size(0), q.size(2)}),
        kOp, ": documents must be (B, T) i32");
}

}  // namespace

Tensor attention_with_columns(const Tensor& q, const Tensor& k, const Tensor& v,
                              const TensorList& column_keys, const TensorList& column_values,
                              const AttentionOptions& options) {
  check_columns(q, k, v, column_keys, column_values, options);
  if (column_keys.empty()) return scaled_dot_product_attention(q, k, v, options);
  TensorList inputs{q, k, v};
  inputs.insert(inputs.end(), column_keys.begin(), column_keys.end());
  inputs.insert(inputs.end(), column_values.begin(), column_values.end());
  std::vector<Array> arrays;
  ColumnsGradient gradient;
  for (Tensor& input : inputs) {
    check_floating(kOp, "an input", input);
    check_device(kOp, {q, input, options.documents});
    input = autocast(PrecisionClass::half, input);
    check_same_dtype(kOp, inputs[0], input);
    arrays.push_back(contiguous_last(input.array()));
    gradient.inputs.emplace_back(arrays.back());
  }
  const Inputs in(arrays);
  kernels::AttentionParams& params = gradient.params;
  params.scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(q.size(3)));
  params.causal = options.causal;
  if (options.documents.defined()) params.documents = options.documents.array().contiguous();
  const Array out =
      Array::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, in.q.dtype(), q.device())
          .transpose(1, 2);
  gradient.logsumexp =
      Array::empty({q.size(0), q.size(1), q.size(2)}, statistics_dtype(in.q.dtype()), q.device());
  if (in.q.numel() > 0) {
    BINADE_DISPATCH(q.device(), attention(in.q, in.k, in.v, params, out, gradient.logsumexp));
    BINADE_DISPATCH(q.device(),
                    attend_columns(in.q, in.columns, params.scale, out, gradient.logsumexp));
  }
  gradient.out = Saved(out);
  return record(kOp, inputs, std::vector<Array>{out}, std::move(gradient))[0];
}

}  // namespace binade
