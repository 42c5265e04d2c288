#include <binade/nn/mot/block.h>

#include <array>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>

namespace binade::nn {
namespace {

constexpr std::array<std::string_view, 3> kChoices = {"dense", "moe", "mot"};

}  // namespace

ExpertChoice parse_expert_choice(std::string_view name) {
  for (size_t i = 0; i < kChoices.size(); ++i)
    if (kChoices[i] == name) return static_cast<ExpertChoice>(i);
  fail("unknown architecture '", name, "'; there are dense, moe and mot");
}

std::string_view name_of(ExpertChoice choice) {
  return kChoices[static_cast<size_t>(choice)];
}

MotAttention::MotAttention(const MotBlockConfig& config, int64_t layer)
    : config_(config), layer_(layer) {
  const bool two = config.experts == ExpertChoice::mot;
  const int64_t query_dim = config.dim, key_dim = config.kv_heads * config.head_dim();
  const auto projection = [&](const char* name, int64_t in, int64_t out, bool bias) {
    return make_experts<Linear>(name, two, [&](const std::string& full) {
      return add<Linear>(full, in, out, bias, init::normal(0.02));
    });
  };
  const auto norm = [&](const char* name) {
    return make_experts<RmsNorm>(name, two, [&](const std::string& full) {
      return add<RmsNorm>(full, config.head_dim(), config.norm_eps);
    });
  };
  q_proj_ = projection("q_proj", config.dim, query_dim, true);
  k_proj_ = projection("k_proj", config.dim, key_dim, true);
  v_proj_ = projection("v_proj", config.dim, key_dim, true);
  o_proj_ = projection("o_proj", query_dim, config.dim, false);
  q_norm_ = norm("q_norm");
  k_norm_ = norm("k_norm");
}

MotAttention::Projected MotAttention::project(const Halves& x) const {
  const int64_t q_end = config_.heads, k_end = q_end + config_.kv_heads;
  const Halves heads = for_halves(x, [&](size_t half, const Tensor& in) {
    const Tensor packed = forward_joint(in, {&q_proj_[half], &k_proj_[half], &v_proj_[half]});
    return reshape(packed, {in.size(0), in.size(1), k_end + config_.kv_heads, config_.head_dim()});
  });
  const auto part = [&](int64_t begin, int64_t end) {
    return for_halves(heads, [&](size_t, const Tensor& in) { return slice(in, 2, begin, end); });
  };
  return {q_norm_.forward(part(0, q_end)), k_norm_.forward(part(q_end, k_end)),
          part(k_end, k_end + config_.kv_heads)};
}

Halves MotAttention::forward(const Halves& x, const SlotPass& pass) const {
  const Projected heads = project(x);
  const Tensor q = pass.rotary.rotate(heads.q.joined()), k = pass.rotary.rotate(heads.k.joined());
  const Tensor v = transpose(heads.v.joined(), 1, 2);
  Tensor y;  // (B, Hq, T, D)
  if (pass.store) {
    y = pass.store->attend(layer_, q, k, v);
  } else {
    AttentionOptions options;
    options.query_slots = options.key_slots = pass.slots;
    y = scaled_dot_product_attention(q, k, v, options);
  }
  const Tensor merged = reshape(transpose(y, 1, 2), {y.size(0), y.size(2), config_.dim});
  return o_proj_.forward(x.halves_of(merged));
}

MotBlock::MotBlock(const MotBlockConfig& config, int64_t layer) {
  const auto norm = [&](const char* name) {
    return make_experts<RmsNorm>(
        name, config.experts == ExpertChoice::mot,
        [&](const std::string& full) { return add<RmsNorm>(full, config.dim, config.norm_eps); });
  };
  input_layernorm_ = norm("input_layernorm");
  self_attn_ = add<MotAttention>("self_attn", config, layer);
  post_attention_layernorm_ = norm("post_attention_layernorm");
  mlp_ = make_experts<GatedMlp>(
      "mlp", config.experts != ExpertChoice::dense, [&](const std::string& full) {
        return add<GatedMlp>(full, GatedMlpOptions{.dim = config.dim, .hidden = config.hidden});
      });
}

Halves MotBlock::forward(const Halves& x, const SlotPass& pass) const {
  const Halves attended = self_attn_->forward(input_layernorm_.forward(x), pass);
  return for_halves(attended, [&](size_t half, const Tensor& in) {
    const auto [middle, normed] =
        post_attention_layernorm_[half].forward_add(in, half == 0 ? x.understanding : x.generation);
    return middle + mlp_[half].forward(normed);
  });
}

}  // namespace binade::nn
