// Losses of pairs of documents: Σ weight · f(a·(s_preferred − s_other)), with weights that may
// depend on the ranks and have no gradient. Where threads share a list, every pair is looked at
// from both of its ends, so that a document's gradient is a sum of its own: nobody adds to
// another's and O(n) memory is enough. One thread alone looks once. A list takes O(n²) time, or
// O(k·n) where only pairs with a document among the first k count.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// ---- f and its derivative: of the margin x, in favour of one document or (−x) of the other
// --------

template <class C>
struct PairTerm {
  C loss, counter_loss;  // f(x), f(−x)
  C pull, counter_pull;  // −f'(x), −f'(−x)
};

// ln(1 + e^(−x)). Never the logarithm of a sigmoid: a pair that is far on the wrong side keeps its
// gradient.
template <class C>
struct LogisticLink {
  BINADE_RANK PairTerm<C> operator()(C x) const {
    const Logistic<C> sigmoid = logistic(-x);
    return {sigmoid.softplus, sigmoid.softplus + x, sigmoid.at, sigmoid.opposite};
  }
};
// σ(−x), the number of wrong pairs made smooth.
template <class C>
struct SigmoidLink {
  BINADE_RANK PairTerm<C> operator()(C x) const {
    const Step<C> step = logistic_step(-x);
    return {step.value, 1 - step.value, step.density, step.density};
  }
};

// ---- weights ------------------------------------------------------------------------------------

// The documents by falling score. Rules have kArrays arrays of their own behind these.
template <class C>
struct SortedList {
  static constexpr int kArrays = 3;
  int n;
  int ranks;  // that count
  C *scores, *labels, *weights;
  BINADE_RANK bool relevant(int r) const { return labels[r] >= 1; }
};

template <class C>
struct PairWeights {
  C up, down;  // of the pair that prefers the row's document, or the other; 0: there is none
};
// The same weight, for whichever has the larger label.
template <class C>
BINADE_RANK PairWeights<C> by_label(C row, C other, C weight) {
  return {row > other ? weight : C(0), row < other ? weight : C(0)};
}

template <class C>
struct EqualPairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = 0;
  static constexpr bool kAllPairs = false;
  explicit EqualPairs(const RankLossParams&) {}
  template <class Team>
  BINADE_RANK void prepare(Team&, const RankList<C>&, const SortedList<C>&) {}
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>& list, int i, int j) const {
    return by_label(list.labels[i], list.labels[j], C(1));
  }
};
template <class C>
struct SoftZeroOne : EqualPairs<C> {
  using Link = SigmoidLink<C>;
  using EqualPairs<C>::EqualPairs;
};

// |Gi − Gj|·(a·|1/D(ri) − 1/D(rj)| + b·|1/D(d) − 1/D(d + 1)|) / ideal DCG with d = |ri − rj|:
// LambdaRank (a = 1, b = 0), NDCGLoss2 (0, 1) and NDCGLoss2++ (1, μ). The ideal DCG is cut at the
// truncation; discounts behind it are what they are.
template <class C, bool kDistances>
struct NdcgPairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = kDistances ? 4 : 2;
  static constexpr bool kAllPairs = false;
  explicit NdcgPairs(const RankLossParams& p)
      : rank_part(static_cast<C>(p.rank_part)), distance_part(static_cast<C>(p.distance_part)) {}
  C rank_part, distance_part;
  C *gains = nullptr, *discounts = nullptr;
  C* steps = nullptr;  // 1/D(d) − 1/D(d + 1) by ±d, times its factor; 0 for d = 0

  template <class Team>
  BINADE_RANK void prepare(Team& team, const RankList<C>& list, const SortedList<C>& sorted) {
    gains = list.array(SortedList<C>::kArrays);
    discounts = list.array(SortedList<C>::kArrays + 1);
    const C ideal = ideal_dcg(team, list, sorted.ranks);
    const C scale = ideal > 0 ? 1 / ideal : C(0);
    if constexpr (kDistances) steps = list.array(SortedList<C>::kArrays + 2) + list.n;
    for_each(team, list.n, [&](int r) {
      gains[r] = gain(sorted.labels[r]) * scale;
      discounts[r] = rank_part * discount<C>(r);
      if constexpr (kDistances)
        steps[r] = steps[-r] =
            r == 0 ? C(0) : distance_part * (discount<C>(r - 1) - discount<C>(r));
    });
  }
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    C change = fabs(discounts[i] - discounts[j]);
    if constexpr (kDistances) change += steps[j - i];
    return by_label(yi, yj, change * fabs(gains[i] - gains[j]));
  }
};

// G/D(r) of the preferred document against all others, whatever their labels.
template <class C>
struct NdcgLoss1Pairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = 1;
  static constexpr bool kAllPairs = true;  // also those of equal labels
  explicit NdcgLoss1Pairs(const RankLossParams&) {}
  C* shares = nullptr;

  template <class Team>
  BINADE_RANK void prepare(Team& team, const RankList<C>& list, const SortedList<C>& sorted) {
    shares = list.array(SortedList<C>::kArrays);
    const C ideal = ideal_dcg(team, list, sorted.ranks);
    const C scale = ideal > 0 ? 1 / ideal : C(0);
    for_each(team, list.n,
             [&](int r) { shares[r] = gain(sorted.labels[r]) * discount<C>(r) * scale; });
  }
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>&, int i, int j) const {
    const bool same = !kOrdered && i == j;
    return {same ? C(0) : shares[i], same ? C(0) : shares[j]};
  }
};

// The measures of binary relevance: how much swapping the two changes average precision, the
// reciprocal rank or precision. 0 for two documents that are relevant or are not.
template <class C>
struct MapPairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = 2;
  static constexpr bool kAllPairs = false;
  explicit MapPairs(const RankLossParams&) {}
  C* precisions = nullptr;  // the share of relevant documents up to here
  C* inverses = nullptr;    // Σ of 1/rank over them
  C scale = 0;

  template <class Team>
  BINADE_RANK void prepare(Team& team, const RankList<C>& list, const SortedList<C>& sorted) {
    precisions = list.array(SortedList<C>::kArrays);
    inverses = list.array(SortedList<C>::kArrays + 1);
    team.scan(
        list.n, [&](int r) { return sorted.relevant(r) ? C(1) : C(0); },
        [&](int r, C sum) { precisions[r] = sum / static_cast<C>(r + 1); }, Add());
    team.scan(
        list.n, [&](int r) { return sorted.relevant(r) ? 1 / static_cast<C>(r + 1) : C(0); },
        [&](int r, C sum) { inverses[r] = sum; }, Add());
    scale = 1 / (precisions[list.n - 1] * static_cast<C>(list.n));
  }
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool below = kOrdered || i < j, differ = (yi >= 1) != (yj >= 1);
    const bool upper_relevant = below ? yi >= 1 : yj >= 1;
    const C inverse_i = 1 / static_cast<C>(i + 1), inverse_j = 1 / static_cast<C>(j + 1);
    // Whichever of them is relevant has its precision at the upper rank (with itself) or at the
    // lower one, and moves each relevant document between by one.
    const C upper = below ? precisions[i] : precisions[j];
    const C lower = below ? precisions[j] : precisions[i];
    const C first = upper_relevant ? C(0) : below ? inverse_i : inverse_j;
    const C last = upper_relevant ? C(0) : below ? inverse_j : inverse_i;
    const C between = fabs(inverses[i] - inverses[j]) - last;
    const C change = upper + first + between - lower;
    return by_label(yi, yj, differ ? fabs(change) * scale : C(0));
  }
};

template <class C>
struct MrrPairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = 0;
  static constexpr bool kAllPairs = false;
  explicit MrrPairs(const RankLossParams&) {}
  int first = 0, second = 0;  // relevant documents

  template <class Team>
  BINADE_RANK void prepare(Team& team, const RankList<C>& list, const SortedList<C>& sorted) {
    const auto first_behind = [&](int start) {
      int found = Range<int>::kMost;
      for (int r = start + team.lane(); r < list.n; r += team.lanes())
        if (sorted.relevant(r)) found = Least()(found, r);
      return team.reduce(found, Least());
    };
    first = first_behind(0);
    second = first_behind(first + 1);
  }
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool differ = (yi >= 1) != (yj >= 1);
    const int upper = kOrdered ? i : Least()(i, j), lower = kOrdered ? j : Largest()(i, j);
    // The first relevant document after the swap: it moves down if it is the upper one, and
    // another comes before it if the upper one is not relevant.
    const int down = upper == first ? Least()(lower, second) : first;
    const int moved = upper < first ? upper : down;
    const C change = 1 / static_cast<C>(moved + 1) - 1 / static_cast<C>(first + 1);
    return by_label(yi, yj, differ ? fabs(change) : C(0));
  }
};

template <class C>
struct PrecisionPairs {
  using Link = LogisticLink<C>;
  static constexpr int kArrays = 0;
  static constexpr bool kAllPairs = false;
  explicit PrecisionPairs(const RankLossParams& p)
      : cut(static_cast<int>(p.truncation)), share(static_cast<C>(1 / p.truncation)) {}
  int cut;
  C share;
  template <class Team>
  BINADE_RANK void prepare(Team&, const RankList<C>&, const SortedList<C>&) {}
  template <bool kOrdered>
  BINADE_RANK PairWeights<C> of(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool counts = ((yi >= 1) != (yj >= 1)) & ((i < cut) != (j < cut));
    return by_label(yi, yj, counts ? share : C(0));
  }
};

// ---- the loss -----------------------------------------------------------------------------------

struct PairSums {
  double loss = 0, pull = 0, count = 0;
};
BINADE_RANK PairSums operator+(const PairSums& a, const PairSums& b) {
  return {a.loss + b.loss, a.pull + b.pull, a.count + b.count};
}

template <class C, class Rule>
struct Pairwise {
  using Real = C;
  static constexpr int kArrays = SortedList<C>::kArrays + Rule::kArrays + 1;
  explicit Pairwise(const RankLossParams& p)
      : rule(p),
        sigma(static_cast<C>(p.sigma)),
        truncation(static_cast<int>(p.truncation)),
        mean(p.mean != 0),
        normalise(p.normalise != 0) {}
  Rule rule;
  C sigma;
  int truncation;
  bool mean, normalise;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    const int ranks = truncation > 0 && truncation < n ? truncation : n;
    const int* order = list.order(0);
    team.sort_descending(
        list, n, [&](int i) { return list.scores[i]; }, list.order(0));
    const SortedList<C> sorted{n, ranks, list.array(0), list.array(1), list.array(2)};
    for_each(team, n, [&](int r) {
      sorted.scores[r] = list.scores[order[r]];
      sorted.labels[r] = list.label(order[r]);
      sorted.weights[r] = list.weight(order[r]);
    });
    Rule weights = rule;
    weights.prepare(team, list, sorted);
    const bool by_distance = normalise && sorted.scores[0] != sorted.scores[n - 1];

    PairSums total;  // of the rows whose first thread this is
    C* gradient = list.array(SortedList<C>::kArrays + Rule::kArrays);  // by rank, without sigma
    if constexpr (Team::kAlone) for_each(team, n, [&](int r) { gradient[r] = 0; });
    for (int i = team.group(); i < (Team::kAlone ? ranks : n); i += team.groups()) {
      const Rows rows{weights, sorted, gradient, sigma, i, i < ranks ? n : ranks};
      const RowSums row =
          by_distance ? rows.template sums<true>(team) : rows.template sums<false>(team);
      if (team.member() == 0) {
        total = total + PairSums{static_cast<double>(row.loss), static_cast<double>(row.pull),
                                 static_cast<double>(row.count)};
        gradient[i] = (Team::kAlone ? gradient[i] : C(0)) + row.gradient;
      }
    }
    total = team.reduce(total, Add());
    double scale = 1;
    const double pulls = 2 * static_cast<double>(sigma) * total.pull;
    if (normalise && pulls > 0) scale = log2(1 + pulls) / pulls;
    if (mean) scale = total.count > 0 ? scale / total.count : 0;
    const C factor = static_cast<C>(scale) * sigma;
    for_each(team, n, [&](int r) { list.gradient[order[r]] = factor * gradient[r]; });
    return static_cast<C>(scale * total.loss);
  }

 private:
  struct RowSums {
    C loss, pull, count, gradient;
  };
  // The pairs of document i with the first so many.
  struct Rows {
    const Rule& weights;
    const SortedList<C>& sorted;
    C* gradients;
    C sigma;
    int i, others;

    // Alone, those behind i, whose gradients are added to. Otherwise all, of which loss, pull and
    // count are those of the pairs that prefer i.
    template <bool kByDistance, class Team>
    BINADE_RANK RowSums sums(Team& team) const {
      constexpr bool kAlone = Team::kAlone;
      const C score = sorted.scores[i], label = sorted.labels[i], weight = sorted.weights[i];
      const C* scores = sorted.scores;
      const C* labels = sorted.labels;
      const C* document_weights = sorted.weights;
      C* behind = gradients;
      C loss = 0, pull = 0, count = 0, gradient = 0;
      const int first = kAlone ? i + 1 : team.member(), step = team.members();
      BINADE_RANK_SIMD(loss, pull, count, gradient)
      for (int j = first; j < others; j += step) {
        const PairWeights<C> pair = weights.template of<kAlone>(sorted, i, j);
        const C distance = score - scores[j], other_weight = document_weights[j];
        C factor = 1;
        if constexpr (kByDistance) factor = divide(C(1), C(0.01) + fabs(distance));
        const C up = pair.up * factor * weight, down = pair.down * factor * other_weight;
        const PairTerm<C> term = typename Rule::Link()(sigma * distance);
        const C change = down * term.counter_pull - up * term.pull;
        const bool up_counts = Rule::kAllPairs ? i != j : label > labels[j];
        loss += up * term.loss;
        pull += up * term.pull;
        count += up_counts ? weight : C(0);
        gradient += change;
        if constexpr (kAlone) {
          const bool down_counts = Rule::kAllPairs || label < labels[j];
          loss += down * term.counter_loss;
          pull += down * term.counter_pull;
          count += down_counts ? other_weight : C(0);
          behind[j] -= change;
        }
      }
      if constexpr (kAlone)
        return {loss, pull, count, gradient};
      else
        return {team.group_reduce(loss, Add()), team.group_reduce(pull, Add()),
                team.group_reduce(count, Add()), team.group_reduce(gradient, Add())};
    }
  };
};

template <class C, class Body>
bool visit_pairs(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::ranknet:
      body(Pairwise<C, EqualPairs<C>>(p));
      return true;
    case RankLoss::soft01:
      body(Pairwise<C, SoftZeroOne<C>>(p));
      return true;
    case RankLoss::lambdarank:
      if (p.distance_part != 0)
        body(Pairwise<C, NdcgPairs<C, true>>(p));
      else
        body(Pairwise<C, NdcgPairs<C, false>>(p));
      return true;
    case RankLoss::ndcg_loss1:
      body(Pairwise<C, NdcgLoss1Pairs<C>>(p));
      return true;
    case RankLoss::lambda_map:
      body(Pairwise<C, MapPairs<C>>(p));
      return true;
    case RankLoss::lambda_mrr:
      body(Pairwise<C, MrrPairs<C>>(p));
      return true;
    case RankLoss::lambda_precision:
      body(Pairwise<C, PrecisionPairs<C>>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
