// EAGLE from its formulas, in double, one text and one token at a time: independent of the
// library's ops, and of how training lays steps side by side.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <binade/heads/eagle/eagle.h>

namespace binade::test {

class EagleOracle {
 public:
  using Row = std::vector<double>;
  // Keys and values of a token, all heads behind each other; keys are rotated.
  struct Seen {
    Row k, v;
  };
  struct Step {
    Row logits;     // over the draft vocabulary
    Row recurring;  // what stands in for the next token's features
    Seen own;
  };

  explicit EagleOracle(const heads::eagle::EagleHead& head)
      : eagle3_(head.config().version == heads::eagle::Version::eagle3),
        layer_(eagle3_ ? "midlayer." : "layers.0."),
        config_(head.base().config()) {
    for (const auto& [name, array] : head.state()) weights_[name] = array.to_vector<double>();
    for (const auto& [name, array] : head.base().state())
      weights_["base." + name] = array.to_vector<double>();
  }

  // What the layer reads of the model's features of a token.
  Row enter(const Row& features) const {
    return eagle3_ ? multiply("fc.weight", features) : features;
  }

  // The token behind a place, what stands there of the model (or of the head itself), what the
  // layer sees of places before it, and its position.
  Step step(const std::vector<Seen>& before, int32_t token, const Row& hidden,
            size_t position) const {
    const Row& table = weights_.at("base.model.embed_tokens.weight");
    const auto dim = static_cast<size_t>(config_.dim);
    Row embedding(table.begin() + static_cast<int64_t>(dim) * token,
                  table.begin() + static_cast<int64_t>(dim) * (token + 1));
    Row read, x;
    if (eagle3_) {
      read = norm(embedding, layer_ + "input_layernorm.weight");
      const Row second = norm(hidden, layer_ + "hidden_norm.weight");
      read.insert(read.end(), second.begin(), second.end());
      x = hidden;
    } else {
      embedding.insert(embedding.end(), hidden.begin(), hidden.end());
      read = x = multiply("fc.weight", embedding);
    }
    const std::string attention = layer_ + "self_attn.";
    Step made;
    made.own.k = rotated(multiply(attention + "k_proj.weight", read), position);
    made.own.v = multiply(attention + "v_proj.weight", read);
    std::vector<Seen> all = before;
    all.push_back(made.own);
    const Row q = rotated(multiply(attention + "q_proj.weight", read), position);
    add(x, multiply(attention + "o_proj.weight", attend(q, all)));
    const Row n = norm(x, layer_ + "post_attention_layernorm.weight");
    Row gate = multiply(layer_ + "mlp.gate_proj.weight", n);
    const Row up = multiply(layer_ + "mlp.up_proj.weight", n);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
    add(x, multiply(layer_ + "mlp.down_proj.weight", gate));
    made.recurring = x;
    if (eagle3_) {
      made.logits = multiply("lm_head.weight", norm(x, "norm.weight"));
    } else {
      const bool own = weights_.count("base.lm_head.weight") > 0;
      made.logits = multiply(own ? "base.lm_head.weight" : "base.model.embed_tokens.weight", x);
      made.logits.resize(static_cast<size_t>(config_.vocab_size));  // without padding
    }
    return made;
  }

  // What the head knows behind a text: its newest step, and what every place left to be seen.
  struct Known {
    std::vector<Seen> seen;
    Step newest;
    size_t position = 0;  // of the next step
  };
  // ids[0 … i] were fed to the model, which gave features for each; ids[i + 1] is the newest token.
  Known read(const std::vector<int32_t>& ids, const std::vector<Row>& features) const {
    Known known;
    for (size_t j = 0; j + 1 < ids.size(); ++j, ++known.position) {
      known.newest = step(known.seen, ids[j + 1], enter(features[j]), known.position);
      known.seen.push_back(known.newest.own);
    }
    return known;
  }
  // … and one guess further.
  Known guess(Known known, int32_t token) const {
    known.newest = step(known.seen, token, known.newest.recurring, known.position++);
    known.seen.push_back(known.newest.own);
    return known;
  }

 private:
  static double dot(const double* a, const double* b, size_t size) {
    double sum = 0;
    for (size_t i = 0; i < size; ++i) sum += a[i] * b[i];
    return sum;
  }
  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Row norm(const Row& x, const std::string& weight) const {
    const double mean = dot(x.data(), x.data(), x.size()) / static_cast<double>(x.size());
    Row y = weights_.at(weight);
    for (size_t i = 0; i < x.size(); ++i) y[i] *= x[i] / std::sqrt(mean + config_.norm_eps);
    return y;
  }
  Row multiply(const std::string& name, const Row& x) const {
    const Row& w = weights_.at(name);
    Row y(w.size() / x.size());
    for (size_t o = 0; o < y.size(); ++o) y[o] = dot(w.data() + o * x.size(), x.data(), x.size());
    return y;
  }
  Row rotated(const Row& heads, size_t position) const {
    const auto size = static_cast<size_t>(config_.head_size());
    Row y = heads;
    for (size_t first = 0; first < heads.size(); first += size)
      for (size_t i = 0; i < size / 2; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(config_.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(size));
        const double a = heads[first + i], b = heads[first + i + size / 2];
        y[first + i] = a * std::cos(angle) - b * std::sin(angle);
        y[first + i + size / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    return y;
  }
  Row attend(const Row& q, const std::vector<Seen>& all) const {
    const auto size = static_cast<size_t>(config_.head_size());
    const auto group = static_cast<size_t>(config_.heads / config_.key_heads());
    Row mixed(q.size(), 0);
    for (size_t h = 0; h < static_cast<size_t>(config_.heads); ++h) {
      Row p;
      for (const Seen& seen : all)
        p.push_back(dot(q.data() + h * size, seen.k.data() + h / group * size, size) /
                    std::sqrt(static_cast<double>(size)));
      const double largest = *std::max_element(p.begin(), p.end());
      double total = 0;
      for (double& x : p) total += x = std::exp(x - largest);
      for (size_t s = 0; s < all.size(); ++s)
        for (size_t i = 0; i < size; ++i)
          mixed[h * size + i] += p[s] / total * all[s].v[h / group * size + i];
    }
    return mixed;
  }

  bool eagle3_;
  std::string layer_;
  const nn::CausalLmConfig& config_;
  std::map<std::string, Row> weights_;
};

// Rows of x (…, D).
inline std::vector<EagleOracle::Row> rows_in_double(const Tensor& x) {
  const auto values = x.to_vector<double>();
  const int64_t width = x.size(-1);
  std::vector<EagleOracle::Row> rows;
  for (auto at = values.begin(); at != values.end(); at += width) rows.emplace_back(at, at + width);
  return rows;
}

}  // namespace binade::test
