// Losses of pairs of documents: Σ weight · f(a·(s_preferred − s_other)), with weights that may
// depend on the ranks and have no gradient. Every pair is looked at from both of its ends, so that
// a document's gradient is a sum of its own and O(n) memory is enough. A list takes O(n²) time, or
// O(k·n) where only pairs with a document among the first k count.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// ---- f and its derivative: of the margin x, in favour of one document or (−x) of the other
// --------

template <class C>
struct PairTerm {
  C loss;                // f(x)
  C pull, counter_pull;  // −f'(x), −f'(−x)
};

// ln(1 + e^(−x)). Never the logarithm of a sigmoid: a pair that is far on the wrong side keeps its
// gradient.
template <class C>
struct LogisticLink {
  BINADE_RANK PairTerm<C> operator()(C x) const {
    const Logistic<C> sigmoid = logistic(-x);
    return {sigmoid.softplus, sigmoid.at, sigmoid.opposite};
  }
};
// σ(−x), the number of wrong pairs made smooth.
template <class C>
struct SigmoidLink {
  BINADE_RANK PairTerm<C> operator()(C x) const {
    const Step<C> step = logistic_step(-x);
    return {step.value, step.density, step.density};
  }
};

// ---- weights
// -------------------------------------------------------------------------------------

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
  BINADE_RANK auto operator()(const SortedList<C>& list, int i, int j) const {
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
  BINADE_RANK auto operator()(const SortedList<C>& list, int i, int j) const {
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
  BINADE_RANK PairWeights<C> operator()(const SortedList<C>&, int i, int j) const {
    return {i == j ? C(0) : shares[i], i == j ? C(0) : shares[j]};
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
  BINADE_RANK auto operator()(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool below = i < j, differ = (yi >= 1) != (yj >= 1);
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
  BINADE_RANK auto operator()(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool differ = (yi >= 1) != (yj >= 1);
    const int upper = Least()(i, j), lower = Largest()(i, j);
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
  BINADE_RANK auto operator()(const SortedList<C>& list, int i, int j) const {
    const C yi = list.labels[i], yj = list.labels[j];
    const bool counts = ((yi >= 1) != (yj >= 1)) & ((i < cut) != (j < cut));
    return by_label(yi, yj, counts ? share : C(0));
  }
};

// ---- the loss
// ------------------------------------------------------------------------------------

struct PairSums {
  double loss = 0, pull = 0, count = 0;
};
BINADE_RANK PairSums operator+(const PairSums& a, const PairSums& b) {
  return {a.loss + b.loss, a.pull + b.pull, a.count + b.count};
}

template <class C, class Rule>
struct Pairwise {
  using Real = C;
  static constexpr int kArrays = SortedList<C>::kArrays + Rule::kArrays;
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
    for (int i = team.group(); i < n; i += team.groups()) {
      const int others = i < ranks ? n : ranks;
      const RowSums row = by_distance ? row_sums<true>(team, weights, sorted, i, others)
                                      : row_sums<false>(team, weights, sorted, i, others);
      if (team.member() == 0) {
        total.loss += static_cast<double>(row.loss);
        total.pull += static_cast<double>(row.pull);
        total.count += static_cast<double>(row.count);
        list.gradient[order[i]] = sigma * row.gradient;
      }
    }
    total = team.reduce(total, Add());
    double scale = 1;
    const double pulls = 2 * static_cast<double>(sigma) * total.pull;
    if (normalise && pulls > 0) scale = log2(1 + pulls) / pulls;
    if (mean) scale = total.count > 0 ? scale / total.count : 0;
    scale_gradient(team, list, static_cast<C>(scale));
    return static_cast<C>(scale * total.loss);
  }

 private:
  struct RowSums {
    C loss, pull, count;  // of pairs that prefer the row's document
    C gradient;           // without sigma
  };
  // Over the pairs of document i with the first so many.
  template <bool kByDistance, class Team>
  BINADE_RANK RowSums row_sums(Team& team, const Rule& weights, const SortedList<C>& sorted, int i,
                               int others) const {
    const C score = sorted.scores[i], label = sorted.labels[i], weight = sorted.weights[i];
    const C* scores = sorted.scores;
    const C* labels = sorted.labels;
    const C* document_weights = sorted.weights;
    C loss = 0, pull = 0, count = 0, gradient = 0;
    const int first = team.member(), step = team.members();
    BINADE_RANK_SIMD(loss, pull, count, gradient)
    for (int j = first; j < others; j += step) {
      const PairWeights<C> pair = weights(sorted, i, j);
      const C distance = score - scores[j];
      C factor = 1;
      if constexpr (kByDistance) factor = divide(C(1), C(0.01) + fabs(distance));
      const C up = pair.up * factor * weight, down = pair.down * factor * document_weights[j];
      const PairTerm<C> term = typename Rule::Link()(sigma * distance);
      const bool counts = Rule::kAllPairs ? i != j : label > labels[j];
      loss += up * term.loss;
      pull += up * term.pull;
      count += counts ? weight : C(0);
      gradient += down * term.counter_pull - up * term.pull;
    }
    return {team.group_reduce(loss, Add()), team.group_reduce(pull, Add()),
            team.group_reduce(count, Add()), team.group_reduce(gradient, Add())};
  }
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
