// Likelihoods of the order of the labels: sums of exponentials over the documents that are left, by
// scans over the documents in that order.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// −Σ over positions i of α(i)·w·ln(e^{s(i)} / Σ_{j ≥ i} e^{s(j)}), documents by falling label.
// The gradient is e^{s(k)}·Σ_{i ≤ k} α(i)·w / (Σ_{j ≥ i} e^{s(j)}) − α(k)·w: a second scan. Both
// have a running maximum: one shift for the whole list would lose the tail.
template <class C>
struct ListMle {
  using Real = C;
  static constexpr int kArrays = 4;
  explicit ListMle(const RankLossParams& p)
      : positions(static_cast<int>(p.positions)),
        truncation(static_cast<int>(p.truncation)),
        random_ties(p.random_ties != 0) {}
  int positions, truncation;
  bool random_ties;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    const int ranks = truncation > 0 && truncation < n ? truncation : n;
    int* order = list.order(0);
    sort_by_label(team, list, order);
    C *scores = list.array(0), *alpha = list.array(1), *exponents = list.array(2),
      *values = list.array(3);
    for_each(team, n, [&](int r) {
      scores[r] = list.scores[order[r]];
      alpha[r] = r < ranks ? list.weight(order[r]) * position_weight(r, n) : C(0);
    });
    const auto put = [&](int r, const Scaled<C>& sum) {
      exponents[r] = sum.exponent;
      values[r] = sum.value;
    };
    team.scan(
        n,
        [&](int i) {
          return Scaled<C>{scores[n - 1 - i], C(1)};
        },
        [&](int i, const Scaled<C>& sum) { put(n - 1 - i, sum); }, Add());
    const C loss = sum_over(
        team, n, [&](int r) { return alpha[r] * ((exponents[r] - scores[r]) + log(values[r])); });
    team.sync();
    team.scan(
        n,
        [&](int r) {
          return Scaled<C>{-exponents[r], alpha[r] / values[r]};
        },
        put, Add());
    for_each(team, n, [&](int r) {
      list.gradient[order[r]] = Scaled<C>{exponents[r], values[r]}.times_exp(scores[r]) - alpha[r];
    });
    return loss;
  }

 private:
  template <class Team>
  BINADE_RANK void sort_by_label(Team& team, const RankList<C>& list, int* order) const {
    if (!random_ties) {
      team.sort_descending(
          list, list.n, [&](int i) { return list.label(i); }, order);
      return;
    }
    int* drawn = list.order(1);
    team.sort_descending(
        list, list.n,
        [&](int i) { return static_cast<C>(uniform_of(list.draws.word(list.first + i))); }, drawn);
    team.sort_descending(
        list, list.n, [&](int i) { return list.label(drawn[i]); }, order);
    for_each(team, list.n, [&](int r) { order[r] = drawn[order[r]]; });
  }
  // α of the position r, counted from 0, in a list of n > 1.
  BINADE_RANK C position_weight(int r, int n) const {
    if (positions == 0) return 1;
    if (positions == 2) return discount<C>(r);
    // (2^(n − i) − 1) / (2^(n − 1) − 1) with i = r + 1, without numbers beyond the range.
    const C end = exp2(static_cast<C>(1 - n));
    return (exp2(static_cast<C>(-r)) - end) / (1 - end);
  }
};

// −Σ G·w·ln(e^s / (e^s + Σ over smaller labels of e^{s'})).
template <class C>
struct UniqueSoftmax {
  using Real = C;
  static constexpr int kArrays = 7;
  explicit UniqueSoftmax(const RankLossParams&) {}

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    int* order = list.order(0);
    team.sort_descending(
        list, n, [&](int i) { return list.label(i); }, order);
    C *scores = list.array(0), *labels = list.array(1), *gains = list.array(2);
    C *exponents = list.array(3), *values = list.array(4);            // from here to the end
    C *back_exponents = list.array(5), *back_values = list.array(6);  // from the start to here
    for_each(team, n, [&](int r) {
      scores[r] = list.scores[order[r]];
      labels[r] = list.label(order[r]);
      gains[r] = gain(labels[r]) * list.weight(order[r]);
    });
    team.scan(
        n,
        [&](int i) {
          return Scaled<C>{scores[n - 1 - i], C(1)};
        },
        [&](int i, const Scaled<C>& sum) {
          exponents[n - 1 - i] = sum.exponent;
          values[n - 1 - i] = sum.value;
        },
        Add());
    // Where the labels are first at most, or below, that of r.
    const auto first = [&](int r, bool below) {
      int low = 0, high = n;
      while (low < high) {
        const int middle = (low + high) / 2;
        if (below ? labels[middle] < labels[r] : labels[middle] <= labels[r])
          high = middle;
        else
          low = middle + 1;
      }
      return low;
    };
    const auto denominator = [&](int r) {
      const int end = first(r, true);
      const Scaled<C> own{scores[r], C(1)};
      return end == n ? own : own + Scaled<C>{exponents[end], values[end]};
    };
    team.scan(
        n,
        [&](int r) {
          const Scaled<C> sum = denominator(r);
          return Scaled<C>{-sum.exponent, gains[r] / sum.value};
        },
        [&](int r, const Scaled<C>& sum) {
          back_exponents[r] = sum.exponent;
          back_values[r] = sum.value;
        },
        Add());
    return sum_over(team, n, [&](int r) {
      const Scaled<C> sum = denominator(r);
      const int start = first(r, false);
      C slope = gains[r] * (exponential(scores[r] - sum.exponent) / sum.value - 1);
      if (start > 0)
        slope += Scaled<C>{back_exponents[start - 1], back_values[start - 1]}.times_exp(scores[r]);
      list.gradient[order[r]] = slope;
      return gains[r] * ((sum.exponent - scores[r]) + log(sum.value));
    });
  }
};

template <class C, class Body>
bool visit_likelihood(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::listmle:
      body(ListMle<C>(p));
      return true;
    case RankLoss::unique_softmax:
      body(UniqueSoftmax<C>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
