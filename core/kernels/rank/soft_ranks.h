// Measures of a ranking whose ranks were made smooth: r_i = 1 + Σ_{j ≠ i} F((sj − si)/T) with a
// distribution F that is symmetrical around 0. Loss: 1 − measure. O(n²) time.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

struct LogisticStep {
  template <class C>
  static C scale(const RankLossParams& p) {
    return static_cast<C>(1 / p.temperature);
  }
  template <class C>
  BINADE_RANK Step<C> operator()(C x) const {
    return logistic_step(x);
  }
};
// Scores with a normal error of deviation σ: their difference has one of σ√2.
struct NormalStep {
  template <class C>
  static C scale(const RankLossParams& p) {
    return static_cast<C>(0.70710678118654752440 / p.sigma);
  }
  template <class C>
  BINADE_RANK Step<C> operator()(C x) const {
    return normal_step(x);
  }
};

// What a document at a (real) rank adds to the measure, and its derivative.
template <class C>
struct RankValue {
  C value, slope;
};
struct NdcgOfRanks {
  template <class C>
  BINADE_RANK C gain_of(C label) const {
    return gain(label);
  }
  template <class Team, class C>
  BINADE_RANK C ideal(Team& team, const RankList<C>& list) const {
    return ideal_dcg(team, list, list.n);
  }
  template <class C>
  BINADE_RANK RankValue<C> operator()(C rank) const {
    const C log_rank = log1p(rank), ln2 = C(0.69314718055994530942);
    return {ln2 / log_rank, -ln2 / ((1 + rank) * log_rank * log_rank)};
  }
};
// The mean of 1/rank over the relevant documents.
struct MrrOfRanks {
  template <class C>
  BINADE_RANK C gain_of(C label) const {
    return label >= 1 ? C(1) : C(0);
  }
  template <class Team, class C>
  BINADE_RANK C ideal(Team& team, const RankList<C>& list) const {
    return sum_over(team, list.n, [&](int i) { return gain_of(list.label(i)); });
  }
  template <class C>
  BINADE_RANK RankValue<C> operator()(C rank) const {
    return {1 / rank, -1 / (rank * rank)};
  }
};

template <class C, class Distribution, class Measure>
struct SoftRanks {
  using Real = C;
  static constexpr int kArrays = 2;
  explicit SoftRanks(const RankLossParams& p) : inverse(Distribution::template scale<C>(p)) {}
  C inverse;  // 1/T

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    const Measure measure{};
    const Distribution distribution{};
    C *values = list.array(0), *slopes = list.array(1);
    const C ideal = measure.ideal(team, list);
    const C scale = ideal > 0 ? 1 / ideal : C(0);
    for (int i = team.group(); i < n; i += team.groups()) {
      const C score = list.scores[i];
      C above = 0;
      const int first = team.member(), step_size = team.members();
      BINADE_RANK_SIMD(above)
      for (int j = first; j < n; j += step_size) {
        const C step = distribution((list.scores[j] - score) * inverse).value;
        above += j == i ? C(0) : step;
      }
      const C rank = 1 + team.group_reduce(above, Add());
      const C share = measure.gain_of(list.label(i)) * list.weight(i) * scale;
      const RankValue<C> term = measure(rank);
      if (team.member() == 0) {
        values[i] = share * term.value;
        slopes[i] = share * term.slope;  // of the measure in the rank
      }
    }
    team.sync();
    for (int i = team.group(); i < n; i += team.groups()) {
      const C score = list.scores[i], slope = slopes[i];
      C gradient = 0;
      const int first = team.member(), step_size = team.members();
      BINADE_RANK_SIMD(gradient)
      for (int j = first; j < n; j += step_size)
        gradient += distribution((list.scores[j] - score) * inverse).density * (slope - slopes[j]);
      gradient = team.group_reduce(gradient, Add());
      if (team.member() == 0) list.gradient[i] = gradient * inverse;
    }
    const C reached = sum_over(team, n, [&](int i) { return values[i]; });
    team.sync();
    return 1 - reached;
  }
};

template <class C, class Body>
bool visit_soft_ranks(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::approx_ndcg:
      body(SoftRanks<C, LogisticStep, NdcgOfRanks>(p));
      return true;
    case RankLoss::approx_mrr:
      body(SoftRanks<C, LogisticStep, MrrOfRanks>(p));
      return true;
    case RankLoss::softrank:
      body(SoftRanks<C, NormalStep, NdcgOfRanks>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
