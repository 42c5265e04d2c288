#include <binade/core/kernels/cuda/attention/attention_plain.h>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/matmul.h>

#include <binade/core/kernels/cuda/attention/attention_softmax.h>

namespace binade::kernels::cuda {

namespace {

// (B, Hq, T, X) as (B, Hkv, G, T, X), whatever its strides.
Array grouped(const Array& x, int64_t key_heads) {
  const int64_t group = x.size(1) / key_heads;
  return Array::view_of(x.storage(), x.dtype(), {x.size(0), key_heads, group, x.size(2), x.size(3)},
                        {x.stride(0), x.stride(1) * group, x.stride(1), x.stride(2), x.stride(3)},
                        x.offset());
}

// (B, Hkv, T, D) as (B, Hkv, G, T, D): the same keys for every query head of a group.
Array for_group(const Array& x, int64_t group) {
  return x.unsqueeze(2).expand({x.size(0), x.size(1), group, x.size(2), x.size(3)});
}

Array transposed(const Array& x) {
  return x.transpose(-2, -1);
}

// out (B, Hkv, Tk, D) = Σ over the group of aᵀ·b for a (B, Hkv, G, Tq, Tk), b (B, Hkv, G, Tq, D).
void sum_of_matmuls(const Array& a, const Array& b, const Array& out) {
  const int64_t group = a.size(2);
  // Several terms are added up in f32.
  const Array sum =
      group > 1 && is_half(out.dtype()) ? Array::empty(out.shape(), DType::f32, out.device()) : out;
  for (int64_t g = 0; g < group; ++g) {
    MatmulEpilogue epilogue;
    epilogue.beta = g > 0 ? 1.0f : 0.0f;
    matmul(transposed(a.select(2, g)), b.select(2, g), sum, epilogue);
  }
  if (!sum.shares_storage(out)) copy(sum, out);
}

// Memory of the scores' shape.
Array like_scores(const Array& q, const Array& k, DType dtype) {
  return Array::empty({q.size(0), q.size(1), q.size(2), k.size(2)}, dtype, q.device());
}

DType score_dtype(const Array& q) {
  return q.dtype() == DType::f64 ? DType::f64 : DType::f32;
}

// The dot products of rows of a (B, Hq, Tq, D) with rows of b (B, Hkv, Tk, D).
Array row_matmul(const Array& a, const Array& b) {
  const Array scores = like_scores(a, b, score_dtype(a));
  const int64_t heads = b.size(1);
  matmul(grouped(a, heads), transposed(for_group(b, a.size(1) / heads)), grouped(scores, heads),
         {});
  return scores;
}

// x (B, H, T, D) with zeros in spare slots, which need not hold numbers; x itself where there are
// no slots.
Array without_spare(const Array& x, const Array& slots) {
  if (!slots.defined()) return x;
  const Array samples = slots.select(1, 0);
  const Array used = Array::empty(samples.shape(), DType::boolean, x.device());
  const Array zero = Array::zeros({1}, DType::i32, x.device());
  compare(CompareOp::ge, samples, zero.expand(samples.shape()), used);
  const Array out = Array::empty(x.shape(), x.dtype(), x.device());
  where(used.view({x.size(0), 1, x.size(2), 1}).expand(x.shape()), x,
        Array::zeros({1}, x.dtype(), x.device()).expand(x.shape()), out);
  return out;
}

}  // namespace

void plain_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& out, const Array& logsumexp) {
  const Array probabilities = like_scores(q, k, q.dtype());
  masked_softmax(row_matmul(q, k), params, probabilities, logsumexp);
  const int64_t heads = k.size(1);
  const Array values = without_spare(v, params.splits.keys);
  matmul(grouped(probabilities, heads), for_group(values, q.size(1) / heads), grouped(out, heads),
         {});
}

void plain_attention_backward(const Array& q_in, const Array& k_in, const Array& v_in,
                              const Array& logsumexp, const Array& dout_in,
                              const AttentionParams& params, const Array& dq, const Array& dk,
                              const Array& dv) {
  const auto& [query_slots, key_slots] = params.splits;
  const Array q = without_spare(q_in, query_slots), dout = without_spare(dout_in, query_slots),
              k = without_spare(k_in, key_slots), v = without_spare(v_in, key_slots);
  const int64_t heads = k.size(1);
  const Array probabilities = like_scores(q, k, q.dtype());
  const Array dscores = like_scores(q, k, q.dtype());
  masked_softmax_backward(row_matmul(q, k), params, logsumexp, row_matmul(dout, v), probabilities,
                          dscores);
  sum_of_matmuls(grouped(probabilities, heads), grouped(dout, heads), dv);
  sum_of_matmuls(grouped(dscores, heads), grouped(q, heads), dk);
  matmul(grouped(dscores, heads), for_group(k, q.size(1) / heads), grouped(dq, heads), {});
}

}  // namespace binade::kernels::cuda
