// The ranking losses by brute force in f64, from the formulas of the papers: measures are computed
// by ranking, swaps by swapping, matrices are matrices.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <binade/heads/rank/losses.h>

namespace binade::test {

using Numbers = std::vector<double>;

// One list. `scores` has `columns` numbers a document; `draws` one uniform a document.
struct OracleList {
  Numbers scores, labels, weights, draws;
  size_t columns = 1;
  size_t n() const { return labels.size(); }
};

namespace oracle {

// Positions by falling value, equal ones as they come.
inline std::vector<size_t> falling(const Numbers& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

inline double gain(double label) {
  return std::pow(2.0, label) - 1;
}
inline double D(double rank) {
  return std::log2(1 + rank);
}
inline double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
inline double log_one_plus_exp(double x) {  // exact enough for |x| < 700
  return x > 30 ? x + std::exp(-x) : std::log1p(std::exp(x));
}

// ---- measures of an order: documents from the first to the last ----
inline double dcg(const std::vector<size_t>& order, const Numbers& labels, size_t ranks) {
  double sum = 0;
  for (size_t r = 0; r < std::min(ranks, order.size()); ++r)
    sum += gain(labels[order[r]]) / D(static_cast<double>(r + 1));
  return sum;
}
inline double average_precision(const std::vector<size_t>& order, const Numbers& labels) {
  double sum = 0, relevant = 0;
  for (size_t r = 0; r < order.size(); ++r)
    if (labels[order[r]] >= 1) sum += ++relevant / static_cast<double>(r + 1);
  return relevant > 0 ? sum / relevant : 0;
}
inline double reciprocal_rank(const std::vector<size_t>& order, const Numbers& labels) {
  for (size_t r = 0; r < order.size(); ++r)
    if (labels[order[r]] >= 1) return 1 / static_cast<double>(r + 1);
  return 0;
}
inline double precision(const std::vector<size_t>& order, const Numbers& labels, size_t k) {
  double hits = 0;
  for (size_t r = 0; r < std::min(k, order.size()); ++r) hits += labels[order[r]] >= 1;
  return hits / static_cast<double>(k);
}

// Σ over ordered pairs of weight(i, j)·w_i·f(s_i − s_j), over the sum of the w_i if `mean`.
inline double over_pairs(const OracleList& list, const Numbers& s, bool mean,
                         const std::function<bool(size_t, size_t)>& is_pair,
                         const std::function<double(size_t, size_t)>& weight,
                         const std::function<double(double)>& f) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < list.n(); ++i)
    for (size_t j = 0; j < list.n(); ++j) {
      if (i == j || !is_pair(i, j)) continue;
      count += list.weights[i];
      const double by = weight(i, j);
      if (by != 0) sum += by * list.weights[i] * f(s[i] - s[j]);
    }
  return !mean ? sum : count > 0 ? sum / count : 0;
}

inline Numbers softmax(const Numbers& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  Numbers p;
  double sum = 0;
  for (const double value : x) sum += p.emplace_back(std::exp(value - largest));
  for (double& value : p) value /= sum;
  return p;
}
// ln of the softmax, without p's underflow.
inline double log_softmax(const Numbers& x, size_t i) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double value : x) sum += std::exp(value - largest);
  return x[i] - largest - std::log(sum);
}

inline double neural_ndcg(const OracleList& list, const Numbers& s, double temperature,
                          int iterations, size_t ranks) {
  const size_t n = list.n();
  std::vector<Numbers> p(n, Numbers(n));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double distances = 0;
      for (size_t k = 0; k < n; ++k) distances += std::abs(s[j] - s[k]);
      const double factor = static_cast<double>(n) + 1 - 2 * static_cast<double>(i + 1);
      p[i][j] = (factor * s[j] - distances) / temperature;
    }
    p[i] = softmax(p[i]);
  }
  for (int t = 0; t < iterations; ++t) {
    for (size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += p[i][j];
      for (size_t i = 0; i < n; ++i) p[i][j] /= sum;
    }
    for (size_t i = 0; i < n; ++i) {
      const double sum = std::accumulate(p[i].begin(), p[i].end(), 0.0);
      for (size_t j = 0; j < n; ++j) p[i][j] /= sum;
    }
  }
  double reached = 0;
  for (size_t i = 0; i < ranks; ++i)
    for (size_t j = 0; j < n; ++j)
      reached += p[i][j] * gain(list.labels[j]) * list.weights[j] / D(static_cast<double>(i + 1));
  return 1 - reached / dcg(falling(list.labels), list.labels, ranks);
}

}  // namespace oracle

inline bool oracle_usable(const std::string& loss, const OracleList& list) {
  if (list.n() == 0) return false;
  for (const char* name : {"mse", "bce", "ordinal", "prank", "mcrank"})
    if (loss == name) return true;
  if (loss == "pairwise-mse") return list.n() > 1;
  bool distinct = false, relevant = false, irrelevant = false;
  for (const double label : list.labels) {
    distinct |= label != list.labels[0];
    (label >= 1 ? relevant : irrelevant) = true;
  }
  if (loss == "lambda-map" || loss == "lambda-mrr" || loss == "lambda-precision" ||
      loss == "approx-mrr")
    return relevant && irrelevant;
  return distinct;
}

// The loss of a usable list at scores `s`; ranks and what else has no gradient are those of
// list.scores.
inline double oracle_loss(const heads::rank::LossSpec& spec, const OracleList& list,
                          const Numbers& s) {
  using namespace oracle;
  const std::string name(spec.info().name);
  const size_t n = list.n();
  const Numbers &y = list.labels, &w = list.weights, &frozen = list.scores;
  const auto has = [&](const char* parameter) {
    for (const auto& known : spec.info().parameters)
      if (known.name == parameter) return true;
    return false;
  };
  const bool mean = has("reduction") && spec.value("reduction") == 1;
  const double a = has("sigma") ? spec.value("sigma") : 1;
  size_t ranks = n;
  if (has("truncation") && spec.value("truncation") > 0)
    ranks = std::min(n, static_cast<size_t>(spec.value("truncation")));

  // ---- pointwise ----
  const auto over_documents = [&](const std::function<double(size_t)>& term) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < n; ++i) {
      sum += w[i] * term(i);
      count += w[i];
    }
    return !mean ? sum : count > 0 ? sum / count : 0;
  };
  const auto bce = [](double x, double t) {
    return t * log_one_plus_exp(-x) + (1 - t) * log_one_plus_exp(x);
  };
  if (name == "mse") return over_documents([&](size_t i) { return std::pow(s[i] - y[i], 2); });
  if (name == "bce")
    return over_documents(
        [&](size_t i) { return bce(s[i], std::min(1.0, y[i] / spec.value("levels"))); });
  if (name == "ordinal" || name == "prank")
    return over_documents([&](size_t i) {
      double sum = 0;
      for (size_t k = 0; k < list.columns; ++k) {
        const double x = s[i * list.columns + k];
        const bool above = y[i] > static_cast<double>(k);
        sum += name == "ordinal" ? bce(x, above)
                                 : std::max(0.0, spec.value("margin") - (above ? x : -x));
      }
      return sum;
    });
  if (name == "mcrank")
    return over_documents([&](size_t i) {
      const auto row = s.begin() + static_cast<ptrdiff_t>(i * list.columns);
      const Numbers x(row, row + static_cast<ptrdiff_t>(list.columns));
      return -log_softmax(x, static_cast<size_t>(y[i]));
    });

  // ---- pairwise ----
  const auto by_label = [&](size_t i, size_t j) { return y[i] > y[j]; };
  const auto one = [](size_t, size_t) { return 1.0; };
  const auto logistic_loss = [&](double x) { return log_one_plus_exp(-a * x); };
  if (name == "ranknet") return over_pairs(list, s, mean, by_label, one, logistic_loss);
  if (name == "hinge")
    return over_pairs(list, s, mean, by_label, one,
                      [&](double x) { return std::max(0.0, spec.value("margin") - x); });
  if (name == "soft01")
    return over_pairs(list, s, mean, by_label, one, [&](double x) { return sigmoid(-a * x); });
  if (name == "pairwise-mse") {
    double sum = 0, count = 0;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) {
        if (i == j) continue;
        sum += w[i] * std::pow((s[i] - s[j]) - (y[i] - y[j]), 2);
        count += w[i];
      }
    return !mean ? sum : count > 0 ? sum / count : 0;
  }

  const std::vector<size_t> order = falling(frozen);
  Numbers rank(n);
  for (size_t r = 0; r < n; ++r) rank[order[r]] = static_cast<double>(r + 1);
  const double ideal = dcg(falling(y), y, ranks);
  const auto distance_weight = [&](size_t i, size_t j) {
    const double d = std::abs(rank[i] - rank[j]);
    return std::abs(1 / D(d) - 1 / D(d + 1)) * std::abs(gain(y[i]) - gain(y[j])) / ideal;
  };
  // By how much a measure changes when two documents change places.
  const auto swapped = [&](size_t i, size_t j,
                           const std::function<double(const std::vector<size_t>&)>& measure) {
    std::vector<size_t> other = order;
    std::swap(other[static_cast<size_t>(rank[i]) - 1], other[static_cast<size_t>(rank[j]) - 1]);
    return std::abs(measure(other) - measure(order));
  };
  std::function<double(size_t, size_t)> weight;
  if (name == "lambdarank" || name == "ndcg-loss2" || name == "ndcg-loss2++")
    weight = [&](size_t i, size_t j) {
      double sum = 0;
      if (name != "ndcg-loss2")
        sum +=
            std::abs(1 / D(rank[i]) - 1 / D(rank[j])) * std::abs(gain(y[i]) - gain(y[j])) / ideal;
      if (name == "ndcg-loss2") sum += distance_weight(i, j);
      if (name == "ndcg-loss2++") sum += spec.value("mu") * distance_weight(i, j);
      return sum;
    };
  if (name == "ndcg-loss1")
    return over_pairs(
        list, s, mean, [](size_t, size_t) { return true; },
        [&](size_t i, size_t) { return gain(y[i]) / D(rank[i]) / ideal; }, logistic_loss);
  if (name == "lambda-map")
    weight = [&](size_t i, size_t j) {
      return swapped(i, j, [&](const auto& o) { return average_precision(o, y); });
    };
  if (name == "lambda-mrr")
    weight = [&](size_t i, size_t j) {
      return swapped(i, j, [&](const auto& o) { return reciprocal_rank(o, y); });
    };
  if (name == "lambda-precision") {
    const auto k = static_cast<size_t>(spec.value("cut"));
    ranks = std::min(n, k);
    weight = [&, k](size_t i, size_t j) {
      return swapped(i, j, [&](const auto& o) { return precision(o, y, k); });
    };
  }
  if (weight) {
    const auto is_pair = [&](size_t i, size_t j) {
      return y[i] > y[j] && std::min(rank[i], rank[j]) <= static_cast<double>(ranks);
    };
    if (!has("norm") || spec.value("norm") == 0)
      return over_pairs(list, s, mean, is_pair, weight, logistic_loss);
    const bool differ = frozen[order.front()] != frozen[order.back()];
    const auto normalised = [&](size_t i, size_t j) {
      return weight(i, j) / (differ ? 0.01 + std::abs(frozen[i] - frozen[j]) : 1);
    };
    const double pulls = 2 * over_pairs(list, frozen, false, is_pair, normalised,
                                        [&](double x) { return a * sigmoid(-a * x); });
    const double loss = over_pairs(list, s, mean, is_pair, normalised, logistic_loss);
    return pulls > 0 ? loss * std::log2(1 + pulls) / pulls : loss;
  }

  // ---- listwise ----
  if (name == "listnet" || name == "poly1" || name == "xe-ndcg") {
    Numbers t = y;
    if (name == "xe-ndcg")
      for (size_t i = 0; i < n; ++i) t[i] = std::pow(2.0, y[i]) - list.draws[i];
    if (name != "xe-ndcg" && spec.value("targets") == 0) {
      t = softmax(y);
    } else {
      const double sum = std::accumulate(t.begin(), t.end(), 0.0);
      for (double& value : t) value /= sum;
    }
    const Numbers p = softmax(s);
    double loss = 0;
    for (size_t i = 0; i < n; ++i) {
      loss -= w[i] * t[i] * log_softmax(s, i);
      if (name == "poly1") loss += spec.value("epsilon") * w[i] * t[i] * (1 - p[i]);
    }
    return loss;
  }
  if (name == "listmle" || name == "p-listmle") {
    std::vector<size_t> wanted = falling(y);
    if (spec.value("ties") == 1) {  // a random order, then by label
      const std::vector<size_t> random = falling(list.draws);
      Numbers labels;
      for (const size_t i : random) labels.push_back(y[i]);
      wanted.clear();
      for (const size_t r : falling(labels)) wanted.push_back(random[r]);
    }
    double loss = 0;
    for (size_t r = 0; r < ranks; ++r) {
      Numbers left;
      for (size_t k = r; k < n; ++k) left.push_back(s[wanted[k]]);
      double alpha = 1;
      if (name == "p-listmle") {
        const double i = static_cast<double>(r + 1), count = static_cast<double>(n);
        if (spec.value("positions") == 1)
          alpha = n < 1000 ? (std::pow(2.0, count - i) - 1) / (std::pow(2.0, count - 1) - 1)
                           : std::pow(2.0, 1 - i);
        if (spec.value("positions") == 2) alpha = 1 / D(i);
      }
      loss -= alpha * w[wanted[r]] * log_softmax(left, 0);
    }
    return loss;
  }
  if (name == "unique-softmax") {
    double loss = 0;
    for (size_t i = 0; i < n; ++i) {
      Numbers with{s[i]};
      for (size_t j = 0; j < n; ++j)
        if (y[j] < y[i]) with.push_back(s[j]);
      loss -= gain(y[i]) * w[i] * log_softmax(with, 0);
    }
    return loss;
  }
  if (name == "approx-ndcg" || name == "approx-mrr" || name == "softrank") {
    double reached = 0, most = name == "approx-mrr" ? 0 : dcg(falling(y), y, n);
    for (size_t i = 0; i < n; ++i) {
      double position = 1;
      for (size_t j = 0; j < n; ++j) {
        if (j == i) continue;
        position += name == "softrank" ? 0.5 * std::erfc((s[i] - s[j]) / (2 * a))
                                       : sigmoid((s[j] - s[i]) / spec.value("temperature"));
      }
      if (name != "approx-mrr") {
        reached += w[i] * gain(y[i]) / D(position);
      } else if (y[i] >= 1) {
        reached += w[i] / position;
        ++most;
      }
    }
    return 1 - reached / most;
  }
  if (name == "neural-ndcg")
    return neural_ndcg(list, s, spec.value("temperature"),
                       static_cast<int>(spec.value("iterations")), ranks);
  throw std::logic_error("no oracle for " + name);
}

}  // namespace binade::test
