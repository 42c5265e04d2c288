// Multi-token prediction from its formulas, in double, one text at a time: independent of the
// library's ops. Layers are those of Llama, Qwen2 and Mistral.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <binade/heads/mtp/mtp.h>

namespace binade::test {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

inline Rows rows_of(const Tensor& x) {  // (1, T, D) or (T, D)
  const auto values = x.to_vector<double>();
  const auto width = static_cast<size_t>(x.size(-1));
  Rows rows;
  for (size_t at = 0; at < values.size(); at += width)
    rows.emplace_back(values.begin() + static_cast<int64_t>(at),
                      values.begin() + static_cast<int64_t>(at + width));
  return rows;
}

class MtpOracle {
 public:
  explicit MtpOracle(const heads::mtp::MtpHeads& heads)
      : heads_(heads), config_(heads.base().config()) {
    for (const auto& [name, array] : heads.state()) weights_[name] = array.to_vector<double>();
    const auto state = heads.base().state();
    embedding_ = rows_of(Tensor(state.at("model.embed_tokens.weight")));
    const auto head = state.find("lm_head.weight");
    output_ = head == state.end() ? embedding_ : rows_of(Tensor(head->second));
    output_.resize(static_cast<size_t>(config_.vocab_size));  // without padding
  }

  // The logits of depth k = 1 … K at every position i of a text: rows i = 0 … T − 1 − k, which
  // predict token i + k + 1 (the last has no label).
  std::vector<Rows> logits(const std::vector<int32_t>& ids, const Rows& hidden,
                           const Rows& stream) const {
    const heads::mtp::MtpConfig& config = heads_.config();
    std::vector<Rows> result;
    Rows h = hidden;
    for (int64_t k = 1; k <= config.depth; ++k) {
      const bool parallel = config.kind == heads::mtp::Kind::parallel;
      const std::string name =
          std::to_string(config.kind == heads::mtp::Kind::recursive ? 0 : k - 1) + ".";
      Rows u;
      if (parallel) u = stream;
      for (size_t i = 0; !parallel && i + static_cast<size_t>(k) < ids.size(); ++i) {
        Row e = embedding_[static_cast<size_t>(ids[i + static_cast<size_t>(k)])];
        if (config.conventions.zero_first_embedding && i == 0) e.assign(e.size(), 0);
        e = norm(e, name + "embedding_norm.weight");
        Row both = norm(h[i], name + "hidden_norm.weight");
        if (config.conventions.embedding_first) std::swap(both, e);
        both.insert(both.end(), e.begin(), e.end());
        u.push_back(multiply(name + "projection.weight", both));
      }
      const Rows out = layer(name + "layer.", u);
      Rows normed, scores;
      for (const Row& row : out) {
        normed.push_back(norm(row, name + "norm.weight"));
        Row& score = scores.emplace_back();
        for (const Row& token : output_) score.push_back(dot(token, normed.back()));
      }
      result.push_back(scores);
      h = config.conventions.recurs_behind_norm ? normed : out;
    }
    return result;
  }

 private:
  static double dot(const Row& a, const Row& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }
  Row norm(const Row& x, const std::string& weight) const {
    const double scale =
        1 / std::sqrt(dot(x, x) / static_cast<double>(x.size()) + config_.norm_eps);
    Row y = weights_.at(weight);
    for (size_t i = 0; i < x.size(); ++i) y[i] *= x[i] * scale;
    return y;
  }
  // W·x, and b where there is one.
  Row multiply(const std::string& name, const Row& x) const {
    const Row& w = weights_.at(name);
    Row y(w.size() / x.size());
    for (size_t o = 0; o < y.size(); ++o)
      for (size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    std::string bias = name;
    bias.replace(bias.rfind("weight"), 6, "bias");
    if (const auto b = weights_.find(bias); b != weights_.end())
      for (size_t o = 0; o < y.size(); ++o) y[o] += b->second[o];
    return y;
  }
  // Head h of a projection, rotated by position t.
  Row rotated(const Row& all, int64_t h, size_t t) const {
    const auto size = static_cast<size_t>(config_.head_size());
    Row x(all.begin() + static_cast<int64_t>(size) * h,
          all.begin() + static_cast<int64_t>(size) * (h + 1));
    Row y = x;
    for (size_t i = 0; i < size / 2; ++i) {
      const double angle =
          static_cast<double>(t) *
          std::pow(config_.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(size));
      y[i] = x[i] * std::cos(angle) - x[i + size / 2] * std::sin(angle);
      y[i + size / 2] = x[i + size / 2] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return y;
  }
  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Rows layer(const std::string& name, Rows x) const {
    const auto size = static_cast<size_t>(config_.head_size());
    Rows q, k, v;
    for (const Row& row : x) {
      const Row n = norm(row, name + "input_layernorm.weight");
      q.push_back(multiply(name + "self_attn.q_proj.weight", n));
      k.push_back(multiply(name + "self_attn.k_proj.weight", n));
      v.push_back(multiply(name + "self_attn.v_proj.weight", n));
    }
    for (size_t t = 0; t < x.size(); ++t) {
      Row mixed;
      for (int64_t h = 0; h < config_.heads; ++h) {
        const int64_t kv = h / (config_.heads / config_.key_heads());
        Row p;
        double total = 0;
        const auto window = static_cast<size_t>(config_.window_of(config_.layers - 1));
        const size_t first = window > 0 && t + 1 > window ? t + 1 - window : 0;
        for (size_t s = first; s <= t; ++s) {
          p.push_back(std::exp(dot(rotated(q[t], h, t), rotated(k[s], kv, s)) /
                               std::sqrt(static_cast<double>(size))));
          total += p.back();
        }
        Row out(size, 0);
        for (size_t s = first; s <= t; ++s)
          for (size_t i = 0; i < size; ++i)
            out[i] += p[s - first] / total * v[s][static_cast<size_t>(kv) * size + i];
        mixed.insert(mixed.end(), out.begin(), out.end());
      }
      add(x[t], multiply(name + "self_attn.o_proj.weight", mixed));
    }
    for (Row& row : x) {
      const Row n = norm(row, name + "post_attention_layernorm.weight");
      Row gate = multiply(name + "mlp.gate_proj.weight", n);
      const Row up = multiply(name + "mlp.up_proj.weight", n);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      add(row, multiply(name + "mlp.down_proj.weight", gate));
    }
    return x;
  }

  const heads::mtp::MtpHeads& heads_;
  const nn::CausalLmConfig& config_;
  std::map<std::string, Row> weights_;
  Rows embedding_, output_;
};

}  // namespace binade::test
