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
  check(options.window == 0 || !sequence.mask.defined(),
        "a mask in place of the causal one does not go with a sliding window: a layer sees ",
        options.window, " tokens");
  AttentionOptions attention;
  attention.causal = !sequence.mask.defined();
  attention.window = options.window;
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
  const Tensor y =
      sequence.cache
          ? sequence.cache->attend(options.layer, q, k, v, options.scale, options.window)
          : scaled_dot_product_attention(q, k, v, op_options(options, sequence, training));
  return reshape(transpose(y, 1, 2), {q.size(0), q.size(2), q.size(1) * q.size(3)});
}

}  // namespace

SelfAttention::SelfAttention(const SelfAttentionOptions& options) : options_(checked(options)) {
  const int64_t head = options.head_size();
  const int64_t query_dim = options.heads * head, key_dim = options.key_heads() * head;
  const auto projection = [&](const char* name, int64_t out) {
    return add<Linear>(name, options.input_dim ? options.input_dim : options.dim, out, options.bias,
                       options.weight);
  };
  if (options.fused) {
    qkv_proj_ = projection("qkv_proj", query_dim + 2 * key_dim);
  } else {
    q_proj_ = projection("q_proj", query_dim);
    k_proj_ = projection("k_proj", key_dim);
    v_proj_ = projection("v_proj", key_dim);
  }
  o_proj_ =
      add<Linear>("o_proj", query_dim, options.dim, options.output_bias, options.output_weight);
  if (options.qk_norm == QkNorm::none) return;
  const bool by_head = options.qk_norm == QkNorm::head;
  q_norm_ =
      add<RmsNorm>("q_norm", by_head ? head : query_dim, options.norm_eps, options.norm_from_one);
  k_norm_ =
      add<RmsNorm>("k_norm", by_head ? head : key_dim, options.norm_eps, options.norm_from_one);
}

SelfAttention::Projected SelfAttention::project(const Tensor& x) const {
  if (!qkv_proj_) return {q_proj_->forward(x), k_proj_->forward(x), v_proj_->forward(x)};
  const Tensor qkv = qkv_proj_->forward(x);
  const int64_t q_end = options_.heads * options_.head_size(),
                k_end = q_end + options_.key_heads() * options_.head_size();
  return {slice(qkv, -1, 0, q_end), slice(qkv, -1, q_end, k_end), slice(qkv, -1, k_end)};
}

bool SelfAttention::can_pack() const {
  return !q_norm_ && (qkv_proj_ || can_join({q_proj_.get(), k_proj_.get(), v_proj_.get()}));
}

Tensor SelfAttention::project_packed(const Tensor& x) const {
  if (qkv_proj_) return qkv_proj_->forward(x);
  return forward_joint(x, {q_proj_.get(), k_proj_.get(), v_proj_.get()});
}

Tensor SelfAttention::forward(const Tensor& x, const Sequence& sequence,
                              const RotaryTables& rotary) const {
  if (!sequence.cache && can_pack() && (rotary.shared() || !options_.rotary)) {
    AttentionOptions packed = op_options(options_, sequence, training());
    if (options_.rotary) {
      packed.rope_cos = rotary.cos();
      packed.rope_sin = rotary.sin();
    }
    return o_proj_->forward(
        packed_attention(project_packed(x), options_.heads, options_.key_heads(), packed));
  }
  auto [q, k, v] = project(x);
  const auto normed = [&](QkNorm where, const std::shared_ptr<RmsNorm>& norm, const Tensor& in) {
    return options_.qk_norm == where ? norm->forward(in) : in;
  };
  // (B, T, H·D) → (B, T, H, D)
  const auto by_head = [&](const Tensor& in) {
    return reshape(in,
                   {x.size(0), x.size(1), in.size(2) / options_.head_size(), options_.head_size()});
  };
  const auto placed = [&](const std::shared_ptr<RmsNorm>& norm, const Tensor& in) {
    const Tensor heads = normed(QkNorm::head, norm, by_head(normed(QkNorm::width, norm, in)));
    return options_.rotary ? rotary.rotate(heads) : transpose(heads, 1, 2);
  };
  return o_proj_->forward(attend(placed(q_norm_, q), placed(k_norm_, k),
                                 transpose(by_head(v), 1, 2), options_, sequence, training()));
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
