#include <binade/autograd/ops/attention.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/no_policy.h>
#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/dropout.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/split_rules.h>
#include <binade/core/random.h>

namespace binade {

using namespace ops;

namespace {

// q (B, Hq, Tq, D), k and v (B, Hkv, Tk, D) as the kernels take them.
struct Heads {
  Array q, k, v;
};

// The heads of packed rows (B, T, (Hq + 2·Hkv)·D); views.
Heads unpack(const Array& qkv, int64_t query_heads, int64_t key_heads) {
  const int64_t heads = query_heads + 2 * key_heads;
  const Array split =
      qkv.view({qkv.size(0), qkv.size(1), heads, qkv.size(2) / heads}).transpose(1, 2);
  return {split.slice(1, 0, query_heads), split.slice(1, query_heads, query_heads + key_heads),
          split.slice(1, query_heads + key_heads)};
}

// Tables of a rotation, (T, R/2) f32; undefined: there is none.
struct Rotation {
  Array cos, sin;

  // The query and key heads of packed rows, from `packed` to `out` (which may be the same).
  void apply(const Array& packed, int64_t query_heads, int64_t key_heads, bool inverse,
             const Array& out) const {
    const auto rotated_heads = [&](const Array& rows) {
      const int64_t heads = query_heads + 2 * key_heads;
      return rows.view({rows.size(0), rows.size(1), heads, rows.size(2) / heads})
          .slice(2, 0, query_heads + key_heads)
          .transpose(1, 2);
    };
    BINADE_DISPATCH(out.device(),
                    rope(rotated_heads(packed), cos, sin, inverse, rotated_heads(out)));
  }

  // `packed` with its queries and keys rotated: itself where there is no rotation or where it may
  // be written over, otherwise a copy.
  Array rotated(const Array& packed, int64_t query_heads, int64_t key_heads, bool in_place) const {
    if (!cos.defined()) return packed;
    if (in_place) {
      apply(packed, query_heads, key_heads, false, packed);
      return packed;
    }
    const Array out = Array::empty(packed.shape(), packed.dtype(), packed.device());
    apply(packed, query_heads, key_heads, false, out);
    const int64_t values =
        packed.size(2) / (query_heads + 2 * key_heads) * (query_heads + key_heads);
    BINADE_DISPATCH(out.device(), copy(packed.slice(2, values), out.slice(2, values)));
    return out;
  }
};

void check_rope_tables(const char* op, const Tensor& cos, const Tensor& sin, int64_t tokens,
                       int64_t head_dim) {
  check_constant(op, "cos", cos);
  check_constant(op, "sin", sin);
  check(cos.dims() == 2 && cos.shape() == sin.shape() && cos.size(0) == tokens &&
            2 * cos.size(1) <= head_dim,
        op, ": cos and sin must be (T, R/2) with R ≤ D for T = ", tokens, " and D = ", head_dim,
        ", got cos ", Kind{cos}, " and sin ", Kind{sin});
  check(cos.dtype() == DType::f32 && sin.dtype() == DType::f32, op,
        ": cos and sin must be f32, got cos ", Kind{cos}, " and sin ", Kind{sin});
}

// What the backward kernel reads beside q, k and v.
struct AttentionResult {
  kernels::AttentionParams params;
  Array out;        // (B, Hq, Tq, D), memory (B, Tq, Hq, D)
  Array logsumexp;  // (B, Hq, Tq)
};

Array contiguous_last(const Array& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

double scale_of(const AttentionOptions& options, int64_t size) {
  if (options.scale != 0) return options.scale;
  return size == 0 ? 1 : 1 / std::sqrt(static_cast<double>(size));
}

// (B, Hq, Tq, Tk), what a mask broadcasts to.
Shape scores_shape(const Array& q, const Array& k) {
  return {q.size(0), q.size(1), q.size(2), k.size(2)};
}

void check_options(const char* op, const Array& q, const Array& k,
                   const AttentionOptions& options) {
  check(options.dropout >= 0 && options.dropout < 1, op, ": dropout must be in [0, 1), got ",
        options.dropout);
  check(options.window >= 0 && (options.window == 0 || options.causal), op, ": a window of ",
        options.window, " tokens ",
        options.window < 0 ? "cannot be" : "needs causal attention: it ends at the query");
  if (options.mask.defined()) {
    const Tensor& mask = options.mask;
    const Shape full = scores_shape(q, k);
    check((mask.dtype() == DType::boolean || is_floating(mask.dtype())) &&
              mask.device() == q.device() && broadcast(mask.shape(), full, op) == full,
          op, ": mask must be bool or floating and broadcast to (B, Hq, Tq, Tk) = ", full, " on ",
          q.device(), ", got ", Kind{mask});
  }
  if (options.documents.defined()) {
    const Tensor& documents = options.documents;
    check(documents.dtype() == DType::i32 && documents.device() == q.device() &&
              documents.shape() == Shape{q.size(0), q.size(2)} && q.size(2) == k.size(2) &&
              !options.mask.defined(),
          op, ": documents must be (B, T) i32 on ", q.device(), " for ", q.size(2), " queries and ",
          k.size(2), " keys of a batch of ", q.size(0), ", without a mask, got ", Kind{documents});
  }
  if (options.query_slots.defined() || options.key_slots.defined()) {
    check_defined(op, "query_slots", options.query_slots);
    check_defined(op, "key_slots", options.key_slots);
    const auto fits = [&](const Tensor& slots, int64_t tokens) {
      return slots.dtype() == DType::i32 && slots.device() == q.device() &&
             slots.shape() == Shape{q.size(0), kernels::kSlotFields, tokens};
    };
    check(fits(options.query_slots, q.size(2)) && fits(options.key_slots, k.size(2)) &&
              !options.mask.defined() && !options.documents.defined(),
          op, ": query_slots and key_slots must be (B, 4, Tq) and (B, 4, Tk) i32 on ", q.device(),
          " for ", q.size(2), " queries and ", k.size(2), " keys of a batch of ", q.size(0),
          ", without a mask or documents, got ", Kind{options.query_slots}, " and ",
          Kind{options.key_slots});
  }
}

// Checks the options, and draws the key of a dropout. The mask is not among them yet.
kernels::AttentionParams params_of(const char* op, const Array& q, const Array& k,
                                   const AttentionOptions& options) {
  check_options(op, q, k, options);
  kernels::AttentionParams params;
  params.scale = scale_of(options, q.size(3));
  params.causal = options.causal;
  params.window = options.window;
  if (options.documents.defined()) params.documents = options.documents.array().contiguous();
  if (options.query_slots.defined())
    params.splits = {contiguous_last(options.query_slots.array()),
                     contiguous_last(options.key_slots.array())};
  if (options.training && options.dropout > 0) {
    RandomState& random = RandomState::current();
    params.dropout = options.dropout;
    params.key = {random.seed(), random.step_on(q.device()), random.next_place()};
  }
  return params;
}

AttentionResult attend(const char* op, const Heads& heads, const AttentionOptions& options) {
  const auto& [q, k, v] = heads;
  const int64_t batch = q.size(0), query_heads = q.size(1), queries = q.size(2), size = q.size(3);
  AttentionResult result;
  kernels::AttentionParams& params = result.params;
  params = params_of(op, q, k, options);
  check_constant(op, "mask", options.mask);
  if (options.mask.defined()) params.mask = options.mask.array().expand(scores_shape(q, k));
  result.out =
      Array::empty({batch, queries, query_heads, size}, q.dtype(), q.device()).transpose(1, 2);
  result.logsumexp =
      Array::empty({batch, query_heads, queries}, statistics_dtype(q.dtype()), q.device());
  if (k.numel() == 0)  // nothing to attend to; logsumexp is not read
    result.out.zero();
  else if (q.numel() > 0)
    BINADE_DISPATCH(q.device(), attention(q, k, v, params, result.out, result.logsumexp));
  return result;
}

// What kernels::sees() says of slots (B, 4, Tq) and (B, 4, Tk): (B, 1, Tq, Tk), bool.
Tensor seen_splits(const Tensor& queries, const Tensor& keys) {
  const auto of_query = [&](int field) { return unsqueeze(select(queries, 1, field), 2); };
  const auto of_key = [&](int field) { return unsqueeze(select(keys, 1, field), 1); };
  const Tensor own = equal(of_query(2), of_key(2));
  const Tensor used = greater_equal(of_query(0), 0);
  const Tensor same_sample = logical_and(equal(of_query(0), of_key(0)), used);
  const Tensor whole = logical_and(own, not_equal(of_query(3), kernels::kCausalSplit));
  const Tensor reached = logical_or(less_equal(of_key(1), of_query(1)), whole);
  const Tensor open = logical_or(not_equal(of_key(3), kernels::kNoiseSplit), own);
  return unsqueeze(logical_and(logical_and(same_sample, reached), open), 1);
}

// Which keys the queries see, as it broadcasts to (B, Hq, Tq, Tk), bool; undefined: all.
Tensor visible_keys(int64_t queries, int64_t keys, const kernels::AttentionParams& params,
                    Device device) {
  Tensor seen;
  if (params.causal) {
    const int64_t ahead = keys - queries;
    seen = tril(Tensor::ones({queries, keys}, DType::boolean, device), ahead);
    if (params.window > 0) seen = triu(seen, ahead - params.window + 1);
  }
  if (params.documents.defined()) {
    const Tensor documents(params.documents);
    const Tensor own = unsqueeze(equal(unsqueeze(documents, 2), unsqueeze(documents, 1)), 1);
    seen = seen.defined() ? logical_and(seen, own) : own;
  }
  if (params.splits.defined()) {
    const Tensor splits = seen_splits(Tensor(params.splits.queries), Tensor(params.splits.keys));
    seen = seen.defined() ? logical_and(seen, splits) : splits;
  }
  return seen;
}

// x (B, H, T, D) with zeros in spare slots: what lies there need not be a number. Undefined slots:
// there are none.
Tensor without_spare(const Tensor& x, const Array& slots) {
  if (!slots.defined()) return x;
  const Tensor spare = less(select(Tensor(slots), 1, 0), 0);
  return masked_fill(x, reshape(spare, {x.size(0), 1, x.size(2), 1}), 0);
}

// Attention in public ops, with the scores as a tensor: gradients reach the mask (in place of that
// in `params`), and have gradients. In f32 (f64) from the scores on, as in the kernels: a half
// score would be off by much of an exponent. There are keys.
Tensor attention_of_ops(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                        const kernels::AttentionParams& params, const Tensor& mask) {
  const NoPolicy off;
  const auto& [query_slots, key_slots] = params.splits;
  const Tensor q = without_spare(q_in, query_slots), k = without_spare(k_in, key_slots),
               v = without_spare(v_in, key_slots);
  const int64_t queries = q.size(2), size = q.size(3), keys = k.size(2);
  const Shape full = scores_shape(q.array(), k.array());
  const DType wide = statistics_dtype(q.dtype());
  // The query heads of a key head are rows of one matmul.
  const Shape grouped{k.size(0), k.size(1), q.size(1) / k.size(1) * queries, keys};
  const Tensor products =
      matmul(to(reshape(q, with_last(grouped, size)), wide), to(transpose(k, -1, -2), wide));
  Tensor scores = reshape(products, full) * params.scale;
  const Tensor nothing = Tensor::scalar(-INFINITY, wide, q.device());
  if (mask.defined() && mask.dtype() != DType::boolean)
    scores = scores + to(mask, wide);
  else if (mask.defined())
    scores = where(mask, scores, nothing);
  if (const Tensor seen = visible_keys(queries, keys, params, q.device()); seen.defined())
    scores = where(seen, scores, nothing);
  // A softmax, but that a query that sees nothing gets zeros.
  const Tensor largest = max(scores.detach(), {-1}, true);
  const Tensor sees_nothing = equal(largest, nothing);
  const Tensor weights = exp(scores - masked_fill(largest, sees_nothing, 0));
  const Tensor total = masked_fill(sum(weights, {-1}, true), sees_nothing, 1);
  Tensor probabilities = weights / total;
  if (params.dropout > 0) probabilities = dropout_with(params.key, params.dropout, probabilities);
  const Tensor out = matmul(reshape(probabilities, grouped), to(v, wide));
  return to(without_spare(reshape(out, with_last(q.shape(), v.size(3))), query_slots), q.dtype());
}

// What backward keeps of a call.
struct SavedAttention {
  Saved out;
  Array logsumexp;
  kernels::AttentionParams params;

  explicit SavedAttention(AttentionResult result)
      : out(std::move(result.out)),
        logsumexp(std::move(result.logsumexp)),
        params(std::move(result.params)) {}

  void backward(const Heads& heads, const Array& dout, const Heads& gradients) const {
    if (heads.q.numel() == 0 || heads.k.numel() == 0) {
      for (const Array& gradient : {gradients.q, gradients.k, gradients.v}) gradient.zero();
      return;
    }
    const Array rows = dout.stride(-1) == 1 ? dout : dout.contiguous();
    BINADE_DISPATCH(rows.device(),
                    attention_backward(heads.q, heads.k, heads.v, out.array(), logsumexp, rows,
                                       params, gradients.q, gradients.k, gradients.v));
  }

  // q, k and v on the tape; dout (B, Hq, Tq, D).
  void backward(BackwardOnTape& tape, const Tensor& q, const Tensor& k, const Tensor& v,
                const Tensor& dout) const {
    if (q.numel() == 0 || k.numel() == 0) {
      for (const Tensor& x : {q, k, v})
        tape.through(x, Tensor::zeros(x.shape(), x.dtype(), x.device()));
      return;
    }
    const Tensor mask = params.mask.defined() ? Tensor(params.mask) : Tensor();
    tape.through(attention_of_ops(q, k, v, params, mask), dout);
  }
};

// Values of another size than queries and keys: what is shorter gets zeros, which add nothing to
// the scores, or columns that are cut off again.
Tensor attention_of_equal_sizes(const Tensor& q, const Tensor& k, const Tensor& v,
                                AttentionOptions options) {
  const int64_t size = q.size(3), value_size = v.size(3);
  options.scale = scale_of(options, size);
  const auto widened = [&](const Tensor& x) {
    return pad(x, {0, std::max(size, value_size) - x.size(3)});
  };
  return slice(scaled_dot_product_attention(widened(q), widened(k), widened(v), options), 3, 0,
               value_size);
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
  const Array y = empty_with_layout(x.array());
  BINADE_DISPATCH(x.device(), rope(x.array(), cos.array(), sin.array(), inverse, y));
  return record("rope", {x}, y,
                [cos = Saved(cos), sin = Saved(sin), inverse](const Tensor& dy) -> TensorList {
                  return {rotate(dy, cos.tensor(), sin.tensor(), !inverse)};
                });
}

struct AttentionGradient {
  SavedAttention saved;
  Saved q, k, v;

  void operator()(Backward& backward) const {
    const Heads heads{q.array(), k.array(), v.array()};
    const Heads gradients{empty_with_layout(heads.q), empty_with_layout(heads.k),
                          empty_with_layout(heads.v)};
    saved.backward(heads, backward.grad(), gradients);
    backward.slot(0).add(gradients.q);
    backward.slot(1).add(gradients.k);
    backward.slot(2).add(gradients.v);
  }
  void operator()(BackwardOnTape& tape) const {
    saved.backward(tape, tape.input(0, q.array()), tape.input(1, k.array()),
                   tape.input(2, v.array()), tape.grad());
  }
};

struct PackedAttentionGradient {
  SavedAttention saved;
  Saved packed;  // with its queries and keys rotated
  Rotation rotation;
  int64_t query_heads, key_heads;

  void operator()(Backward& backward) const {
    const Array qkv = packed.array();
    const Array dqkv = Array::empty(qkv.shape(), qkv.dtype(), qkv.device());
    const Array& dout = saved.out.array();
    const Array dy = backward.grad()
                         .reshape({dout.size(0), dout.size(2), dout.size(1), dout.size(3)})
                         .transpose(1, 2);
    saved.backward(unpack(qkv, query_heads, key_heads), dy, unpack(dqkv, query_heads, key_heads));
    if (rotation.cos.defined()) rotation.apply(dqkv, query_heads, key_heads, true, dqkv);
    backward.slot(0).add(dqkv);
  }

  void operator()(BackwardOnTape& tape) const {
    const Array qkv = packed.array();
    const int64_t heads = query_heads + 2 * key_heads;
    const Tensor split = transpose(
        reshape(rotated(tape, qkv), {qkv.size(0), qkv.size(1), heads, qkv.size(2) / heads}), 1, 2);
    const Array& out = saved.out.array();
    saved.backward(tape, slice(split, 1, 0, query_heads),
                   slice(split, 1, query_heads, query_heads + key_heads),
                   slice(split, 1, query_heads + key_heads),
                   transpose(reshape(tape.grad(), out.transpose(1, 2).shape()), 1, 2));
  }

 private:
  // What attention read, on the tape.
  Tensor rotated(const BackwardOnTape& tape, const Array& qkv) const {
    if (!rotation.cos.defined()) return tape.input(0, qkv);
    return record("rope", {tape.input(0)}, qkv, [*this](const Tensor& dqkv) -> TensorList {
      const int64_t heads = query_heads + 2 * key_heads, turned = query_heads + key_heads;
      const Tensor split =
          transpose(reshape(dqkv, {dqkv.size(0), dqkv.size(1), heads, dqkv.size(2) / heads}), 1, 2);
      const Tensor back = rotate(slice(split, 1, 0, turned), Tensor(rotation.cos),
                                 Tensor(rotation.sin), /*inverse=*/true);
      return {reshape(transpose(cat({back, slice(split, 1, turned)}, 1), 1, 2), dqkv.shape())};
    });
  }
};

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in,
                                    const AttentionOptions& options) {
  const char* op = "scaled_dot_product_attention";
  check(!options.rope_cos.defined() && !options.rope_sin.defined(), op,
        ": rope_cos and rope_sin are of packed_attention; rotate q and k with rope()");
  check_floating(op, "q", q_in);
  check_floating(op, "k", k_in);
  check_floating(op, "v", v_in);
  check_device(op, {q_in, k_in, v_in, options.mask, options.documents, options.query_slots,
                    options.key_slots});
  const Tensor q = autocast(PrecisionClass::half, q_in);
  const Tensor k = autocast(PrecisionClass::half, k_in);
  const Tensor v = autocast(PrecisionClass::half, v_in);
  check_same_dtype(op, q, k);
  check_same_dtype(op, k, v);
  check(q.dims() == 4 && k.dims() == 4 && v.dims() == 4 &&
            k.shape() == with_last(v.shape(), k.size(3)) && q.size(0) == k.size(0) &&
            q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
        op, ": q must be (B, Hq, Tq, D), k (B, Hkv, Tk, D) and v (B, Hkv, Tk, Dv) with Hq a ",
        "multiple of Hkv, got q ", Kind{q}, ", k ", Kind{k}, ", v ", Kind{v});
  if (options.mask.defined() && options.mask.requires_grad() && grad_enabled() && k.numel() > 0)
    return attention_of_ops(q, k, v, params_of(op, q.array(), k.array(), options), options.mask);
  if (q.size(3) != v.size(3)) return attention_of_equal_sizes(q, k, v, options);

  const Heads heads{contiguous_last(q.array()), contiguous_last(k.array()),
                    contiguous_last(v.array())};
  AttentionResult result = attend(op, heads, options);
  const Array out = result.out;
  return record(op, {q, k, v}, out,
                AttentionGradient{SavedAttention(std::move(result)), Saved(heads.q), Saved(heads.k),
                                  Saved(heads.v)});
}

Tensor packed_attention(Tensor qkv_in, int64_t query_heads, int64_t key_heads,
                        const AttentionOptions& options) {
  const char* op = "packed_attention";
  check_floating(op, "qkv", qkv_in);
  check_device(op,
               {qkv_in, options.mask, options.documents, options.query_slots, options.key_slots});
  check(query_heads > 0 && key_heads > 0 && query_heads % key_heads == 0, op,
        ": query_heads must be a multiple of key_heads, got ", query_heads, " and ", key_heads);
  check(qkv_in.dims() == 3 && qkv_in.size(2) % (query_heads + 2 * key_heads) == 0, op,
        ": qkv must be (B, T, (Hq + 2·Hkv)·D) with Hq = ", query_heads, " and Hkv = ", key_heads,
        ", got ", Kind{qkv_in});
  const Tensor qkv = autocast(PrecisionClass::half, qkv_in);
  const int64_t size = qkv.size(2) / (query_heads + 2 * key_heads);
  Rotation rotation;
  if (options.rope_cos.defined() || options.rope_sin.defined()) {
    check_defined(op, "rope_cos", options.rope_cos);
    check_defined(op, "rope_sin", options.rope_sin);
    check_device(op, {qkv, options.rope_cos, options.rope_sin});
    check_rope_tables(op, options.rope_cos, options.rope_sin, qkv.size(1), size);
    rotation = {options.rope_cos.array().contiguous(), options.rope_sin.array().contiguous()};
  }
  qkv_in = Tensor();
  const bool unseen = qkv.state().use_count() == 1 && qkv.array().storage().use_count() == 1 &&
                      qkv.array().is_contiguous();
  const Array packed =
      rotation.rotated(contiguous_last(qkv.array()), query_heads, key_heads, unseen);
  AttentionResult result = attend(op, unpack(packed, query_heads, key_heads), options);
  const Array out =
      result.out.transpose(1, 2).view({packed.size(0), packed.size(1), query_heads * size});
  return record(op, {qkv}, out,
                PackedAttentionGradient{SavedAttention(std::move(result)), Saved(packed), rotation,
                                        query_heads, key_heads});
}

Tensor rope(const Tensor& x_in, const Tensor& cos, const Tensor& sin) {
  check_floating("rope", "x", x_in);
  check_defined("rope", "cos", cos);
  check_defined("rope", "sin", sin);
  check_device("rope", {x_in, cos, sin});
  check(x_in.dims() == 4, "rope: x must be (B, H, T, D), got ", Kind{x_in});
  check_rope_tables("rope", cos, sin, x_in.size(2), x_in.size(3));
  return rotate(autocast(PrecisionClass::half, x_in), contiguous(cos), contiguous(sin), false);
}

}  // namespace binade
