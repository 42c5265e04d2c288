// Losses of one document at a time: a term says what a document's outputs x cost with label y.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// (x − y)². Its root would have an infinite slope at 0.
template <class C>
struct SquaredError {
  explicit SquaredError(const RankLossParams&) {}
  BINADE_RANK C operator()(const C* x, int, C y, C* slope, bool*) const {
    slope[0] = 2 * (x[0] - y);
    return (x[0] - y) * (x[0] - y);
  }
};

// −t ln σ(x) − (1 − t) ln σ(−x)
template <class C>
BINADE_RANK C cross_entropy_of_logit(C x, C target, C& slope) {
  const Logistic<C> sigmoid = logistic(x);
  slope = sigmoid.at - target;
  // Of the two, the one that grows with |x| is x itself: nothing cancels.
  return sigmoid.softplus - target * x;
}

template <class C>
struct BinaryCrossEntropy {
  explicit BinaryCrossEntropy(const RankLossParams& p) : levels(static_cast<C>(p.levels)) {}
  C levels;
  BINADE_RANK C operator()(const C* x, int, C y, C* slope, bool*) const {
    return cross_entropy_of_logit(x[0], Least()(y / levels, C(1)), slope[0]);
  }
};

// Column k is the logit of y > k.
template <class C>
struct Ordinal {
  explicit Ordinal(const RankLossParams&) {}
  BINADE_RANK C operator()(const C* x, int columns, C y, C* slope, bool*) const {
    C loss = 0;
    for (int k = 0; k < columns; ++k)
      loss += cross_entropy_of_logit(x[k], y > static_cast<C>(k) ? C(1) : C(0), slope[k]);
    return loss;
  }
};

// Column k is a score less the k-th threshold.
template <class C>
struct PRank {
  explicit PRank(const RankLossParams& p) : margin(static_cast<C>(p.margin)) {}
  C margin;
  BINADE_RANK C operator()(const C* x, int columns, C y, C* slope, bool*) const {
    C loss = 0;
    for (int k = 0; k < columns; ++k) {
      const C sign = y > static_cast<C>(k) ? C(1) : C(-1);
      const C short_of = margin - sign * x[k];
      loss += Largest()(short_of, C(0));
      // At 0 as well: PRank counts z·x ≤ 0 as a mistake, and a model that starts at 0 must move.
      slope[k] = short_of >= 0 ? -sign : C(0);
    }
    return loss;
  }
};

// Softmax cross-entropy over the grades.
template <class C>
struct McRank {
  explicit McRank(const RankLossParams&) {}
  BINADE_RANK C operator()(const C* x, int columns, C y, C* slope, bool* bad_label) const {
    const int grade = static_cast<int>(Largest()(C(-1), Least()(y, static_cast<C>(columns))));
    if (grade < 0 || grade >= columns || static_cast<C>(grade) != y) {
      *bad_label = true;
      for (int k = 0; k < columns; ++k) slope[k] = 0;
      return 0;
    }
    C largest = x[0], sum = 0;
    for (int k = 1; k < columns; ++k) largest = Largest()(largest, x[k]);
    for (int k = 0; k < columns; ++k) sum += slope[k] = exponential(x[k] - largest);
    for (int k = 0; k < columns; ++k) slope[k] = slope[k] / sum - (k == grade ? C(1) : C(0));
    return log(sum) + (largest - x[grade]);
  }
};

template <class C, class Term>
struct Pointwise {
  using Real = C;
  static constexpr int kArrays = 0;
  explicit Pointwise(const RankLossParams& p) : term(p), mean(p.mean != 0) {}
  Term term;
  bool mean;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    C scale = 1;
    if (mean) {
      const C total = sum_over(team, list.n, [&](int i) { return list.weight(i); });
      scale = total > 0 ? 1 / total : C(0);
    }
    return sum_over(team, list.n, [&](int i) {
      const int64_t at = static_cast<int64_t>(i) * list.columns;
      const C weight = list.weight(i) * scale;
      C* slope = list.gradient + at;
      const C loss = term(list.scores + at, list.columns, list.label(i), slope, list.bad_label);
      for (int k = 0; k < list.columns; ++k) slope[k] *= weight;
      return weight * loss;
    });
  }
};

// Calls body with the loss, if it is one of this file's.
template <class C, class Body>
bool visit_pointwise(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::mse:
      body(Pointwise<C, SquaredError<C>>(p));
      return true;
    case RankLoss::bce:
      body(Pointwise<C, BinaryCrossEntropy<C>>(p));
      return true;
    case RankLoss::ordinal:
      body(Pointwise<C, Ordinal<C>>(p));
      return true;
    case RankLoss::prank:
      body(Pointwise<C, PRank<C>>(p));
      return true;
    case RankLoss::mcrank:
      body(Pointwise<C, McRank<C>>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
