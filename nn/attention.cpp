#include <binade/nn/attention.h>

#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/shape.h>

namespace binade::nn {
namespace {

SelfAttentionOptions checked(const SelfAttentionOptions& options) {
  check(options.dim > 0 && options.heads > 0, "attention needs a dimension and heads, got ",
        options.dim, " and ", options.heads);
  check(options.head_dim > 0 || options.dim % options.heads == 0, "attention: ", options.heads,
        " heads do not divide the dimension ", options.dim);
  check(options.key_heads() > 0 && options.heads % options.key_heads() == 0,
        "attention: ", options.key_heads(), " key heads do not divide ", options.heads,
        " query heads");
  return options;
}

AttentionOptions op_options(const SelfAttentionOptions& options, const Sequence& sequence,
                            bool training) {
  AttentionOptions attention;
  attention.causal = !sequence.mask.defined();
  attention.mask = sequence.mask;
  attention.documents = sequence.documents;
  attention.scale = options.scale;
  attention.dropout = options.dropout;
  attention.training = training;
  return attention;
}

// Through the cache where there is one; q (B, Hq, T, D), k and v (B, Hkv, T, D) → (B, T, Hq·D).
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v,
              const SelfAttentionOptions& options, const Sequence& sequence, bool training) {
  const Tensor y = sequence.cache ? sequence.cache->attend(options.layer, q, k, v, options.scale)
                                  : scaled_dot_product_attention(
                                        q, k, v, op_options(options, sequence, training));
  return reshape(transpose(y, 1, 2), {q.size(0), q.size(2), q.size(1) * q.size(3)});
}

}  // namespace

SelfAttention::SelfAttention(const SelfAttentionOptions& options) : options_(checked(options)) {
  const int64_t head = options.head_size();
  const int64_t query_dim = options.heads * head, key_dim = options.key_heads() * head;
  q_proj_ = add<Linear>("q_proj", options.dim, query_dim, options.bias, options.weight);
  k_proj_ = add<Linear>("k_proj", options.dim, key_dim, options.bias, options.weight);
  v_proj_ = add<Linear>("v_proj", options.dim, key_dim, options.bias, options.weight);
  o_proj_ =
      add<Linear>("o_proj", query_dim, options.dim, options.output_bias, options.output_weight);
  if (options.qk_norm_eps > 0) {
    q_norm_ = add<RmsNorm>("q_norm", head, options.qk_norm_eps);
    k_norm_ = add<RmsNorm>("k_norm", head, options.qk_norm_eps);
  }
}

Tensor SelfAttention::forward(const Tensor& x, const Sequence& sequence,
                              const RotaryTables& rotary) const {
  const int64_t batch = x.size(0), tokens = x.size(1), head = options_.head_size();
  if (!sequence.cache && !q_norm_ && rotary.shared() &&
      can_join({q_proj_.get(), k_proj_.get(), v_proj_.get()})) {
    AttentionOptions packed = op_options(options_, sequence, training());
    packed.rope_cos = rotary.cos();
    packed.rope_sin = rotary.sin();
    return o_proj_->forward(
        packed_attention(forward_joint(x, {q_proj_.get(), k_proj_.get(), v_proj_.get()}),
                         options_.heads, options_.key_heads(), packed));
  }
  Tensor q = reshape(q_proj_->forward(x), {batch, tokens, options_.heads, head});
  Tensor k = reshape(k_proj_->forward(x), {batch, tokens, options_.key_heads(), head});
  const Tensor v = reshape(v_proj_->forward(x), {batch, tokens, options_.key_heads(), head});
  if (q_norm_) {
    q = q_norm_->forward(q);
    k = k_norm_->forward(k);
  }
  return o_proj_->forward(attend(rotary.rotate(q), rotary.rotate(k), transpose(v, 1, 2), options_,
                                 sequence, training()));
}

PackedSelfAttention::PackedSelfAttention(const SelfAttentionOptions& options)
    : options_(checked(options)) {
  const int64_t head = options.head_size();
  c_attn_ = add<Linear>("c_attn", options.dim, (options.heads + 2 * options.key_heads()) * head,
                        options.bias, options.weight);
  c_proj_ = add<Linear>("c_proj", options.heads * head, options.dim, options.output_bias,
                        options.output_weight);
}

Tensor PackedSelfAttention::forward(const Tensor& x, const Sequence& sequence) const {
  const Tensor qkv = c_attn_->forward(x);  // (B, T, (Hq + 2·Hkv)·D)
  if (!sequence.cache)
    return c_proj_->forward(packed_attention(qkv, options_.heads, options_.key_heads(),
                                             op_options(options_, sequence, training())));
  const int64_t q_end = options_.heads, k_end = q_end + options_.key_heads();
  const Tensor heads = transpose(
      reshape(qkv, {x.size(0), x.size(1), k_end + options_.key_heads(), options_.head_size()}), 1,
      2);
  return c_proj_->forward(attend(slice(heads, 1, 0, q_end), slice(heads, 1, q_end, k_end),
                                 slice(heads, 1, k_end), options_, sequence, training()));
}

}  // namespace binade::nn
