// Cross-entropy between a distribution made of the labels and the softmax of the scores.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// ln Σ e^x in two parts: the largest x, and ln Σ e^(x − largest).
template <class C>
struct LogSum {
  C largest, log_rest;
};
// shares[i] = e^x(i) / Σ e^x.
template <class C, class Team, class X>
BINADE_RANK LogSum<C> softmax_over(Team& team, int n, const X& x, C* shares) {
  C largest = Range<C>::kLeast;
  for (int i = team.lane(); i < n; i += team.lanes()) largest = Largest()(largest, x(i));
  largest = team.reduce(largest, Largest());
  const C sum = sum_over(team, n, [&](int i) { return shares[i] = exponential(x(i) - largest); });
  team.sync();
  for_each(team, n, [&](int i) { shares[i] /= sum; });
  return {largest, log(sum)};
}

// −Σ w·t·ln p + ε·Σ w·t·(1 − p) with p = softmax(s). Targets t:
//   ListNet  softmax(y), or y/Σy
//   XE-NDCG  (2^y − γ)/Σ(2^y − γ), γ drawn from [0, 1) for each document
template <class C, bool kDrawn>
struct SoftmaxLoss {
  using Real = C;
  static constexpr int kArrays = 3;
  explicit SoftmaxLoss(const RankLossParams& p)
      : share_of_labels(p.targets != 0),
        epsilon(static_cast<C>(p.epsilon)),
        terms(static_cast<int>(p.terms)) {}
  bool share_of_labels;
  C epsilon;
  int terms;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    C *p = list.array(0), *wanted = list.array(1), *rest = list.array(2);
    const LogSum<C> log_sum = softmax_over<C>(
        team, n, [&](int i) { return list.scores[i]; }, p);
    make_targets(team, list, wanted);
    for_each(team, n, [&](int i) { wanted[i] *= list.weight(i); });
    const C total = sum_over(team, n, [&](int i) { return wanted[i]; });
    const C caught = sum_over(team, n, [&](int i) { return wanted[i] * p[i]; });
    for_each(team, n, [&](int i) {
      C slope = total * p[i] - wanted[i];
      if (epsilon != 0) slope -= epsilon * p[i] * (wanted[i] - caught);
      list.gradient[i] = slope;
    });
    // LightGBM's rank_xendcg: each further term is made of the one before it.
    const auto divided = [&](int i, C slope) {
      return slope / Largest()(1 - p[i], Range<C>::kEpsilon);
    };
    if (terms > 1) for_each(team, n, [&](int i) { rest[i] = divided(i, list.gradient[i]); });
    for (int term = 2; term <= terms; ++term) {
      const C sum = sum_over(team, n, [&](int i) { return rest[i]; });
      for_each(team, n, [&](int i) {
        const C slope = p[i] * (sum - rest[i]);
        list.gradient[i] += slope;
        rest[i] = divided(i, slope);
      });
    }
    return sum_over(team, n, [&](int i) {
      const C minus_log = log_sum.log_rest + (log_sum.largest - list.scores[i]);
      return wanted[i] * (minus_log + epsilon * (1 - p[i]));
    });
  }

 private:
  template <class Team>
  BINADE_RANK void make_targets(Team& team, const RankList<C>& list, C* targets) const {
    const int n = list.n;
    if constexpr (!kDrawn) {
      if (!share_of_labels) {
        softmax_over<C>(
            team, n, [&](int i) { return list.label(i); }, targets);
        return;
      }
    }
    const C sum = sum_over(team, n, [&](int i) {
      targets[i] = list.label(i);
      if constexpr (kDrawn)
        targets[i] = exp2(targets[i]) - static_cast<C>(uniform_of(list.draws.word(list.first + i)));
      return targets[i];
    });
    const C scale = sum > 0 ? 1 / sum : C(0);
    for_each(team, n, [&](int i) { targets[i] *= scale; });
  }
};

template <class C, class Body>
bool visit_softmax(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::listnet:
      body(SoftmaxLoss<C, false>(p));
      return true;
    case RankLoss::xe_ndcg:
      body(SoftmaxLoss<C, true>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
