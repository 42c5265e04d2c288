// Losses of pairs that need not look at every pair.
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

// Σ over ordered pairs of ((si − sj) − (yi − yj))²: with d = s − y, sums of d and d² say it all.
template <class C>
struct PairwiseSquares {
  using Real = C;
  static constexpr int kArrays = 0;
  explicit PairwiseSquares(const RankLossParams& p) : mean(p.mean != 0) {}
  bool mean;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    const double count = n;
    // About the mean, so that squares of what all have in common do not cancel.
    const auto raw = [&](int i) {
      return static_cast<double>(list.scores[i]) - static_cast<double>(list.labels[i]);
    };
    const double centre = sum_over(team, n, raw) / count;
    const auto d = [&](int i) { return raw(i) - centre; };
    const auto w = [&](int i) { return static_cast<double>(list.weight(i)); };
    const double sum = sum_over(team, n, d);
    const double squares = sum_over(team, n, [&](int i) { return d(i) * d(i); });
    const double weights = sum_over(team, n, w);
    const double weighted = sum_over(team, n, [&](int i) { return w(i) * d(i); });
    double scale = 1;
    if (mean) scale = weights > 0 ? 1 / (weights * (count - 1)) : 0;
    for (int i = team.lane(); i < n; i += team.lanes()) {
      const double first = w(i) * (count * d(i) - sum), second = weights * d(i) - weighted;
      list.gradient[i] = static_cast<C>(2 * scale * (first + second));
    }
    return static_cast<C>(sum_over(team, n, [&](int i) {
      return scale * w(i) * (d(i) * (count * d(i) - 2 * sum) + squares);
    }));
  }
};

// Σ over yi > yj of max(0, margin − (si − sj)). By falling score, the documents j that come closer
// to i than the margin, or beat it, are the first so many; prefix sums over those with a smaller
// label give i's term, and its gradient is a count. A pass for each label that occurs.
template <class C>
struct Hinge {
  using Real = C;
  // Sums are kept in double: they are differences of large ones.
  static constexpr int kDoubles = sizeof(double) / sizeof(C);
  static constexpr int kArrays = 4 + 3 * kDoubles;
  explicit Hinge(const RankLossParams& p) : margin(static_cast<C>(p.margin)), mean(p.mean != 0) {}
  C margin;
  bool mean;

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    const int* order = list.order(0);
    team.sort_descending(
        list, n, [&](int i) { return list.scores[i]; }, list.order(0));
    C *scores = list.array(3 * kDoubles), *labels = scores + n, *weights = labels + n;
    C* gradient = weights + n;
    double* lower_counts = reinterpret_cast<double*>(list.array(0));
    double *lower_scores = lower_counts + n, *upper_weights = lower_scores + n;
    const double centre =
        sum_over(team, n, [&](int i) { return static_cast<double>(list.scores[i]); }) / n;
    for_each(team, n, [&](int r) {
      scores[r] = list.scores[order[r]];
      labels[r] = list.label(order[r]);
      weights[r] = list.weight(order[r]);
      gradient[r] = 0;
    });
    // How many of the first documents have score + limit > s (or ≥).
    const auto count_above = [&](C s, C limit, bool equal) {
      int low = 0, high = n;
      while (low < high) {
        const int middle = (low + high) / 2;
        const C difference = s - scores[middle];
        if (equal ? difference <= limit : difference < limit)
          low = middle + 1;
        else
          high = middle;
      }
      return low;
    };
    const auto sum_until = [](const double* sums, int count) {
      return count > 0 ? sums[count - 1] : 0.0;
    };

    double loss = 0, pairs = 0;
    C level = Range<C>::kMost;
    for (;;) {
      C next = Range<C>::kLeast;
      for (int r = team.lane(); r < n; r += team.lanes())
        if (labels[r] < level) next = Largest()(next, labels[r]);
      level = team.reduce(next, Largest());
      if (level == Range<C>::kLeast) break;
      team.scan(
          n, [&](int r) { return labels[r] < level ? 1.0 : 0.0; },
          [&](int r, double sum) { lower_counts[r] = sum; }, Add());
      team.scan(
          n,
          [&](int r) { return labels[r] < level ? static_cast<double>(scores[r]) - centre : 0.0; },
          [&](int r, double sum) { lower_scores[r] = sum; }, Add());
      team.scan(
          n, [&](int r) { return labels[r] > level ? static_cast<double>(weights[r]) : 0.0; },
          [&](int r, double sum) { upper_weights[r] = sum; }, Add());
      for (int r = team.lane(); r < n; r += team.lanes()) {
        if (labels[r] != level) continue;
        const C s = scores[r];
        const double weight = static_cast<double>(weights[r]);
        const int close = count_above(s, margin, false);  // s − sj < margin
        const double count = sum_until(lower_counts, close);
        loss +=
            weight * (count * (static_cast<double>(margin) - (static_cast<double>(s) - centre)) +
                      sum_until(lower_scores, close));
        pairs += weight * lower_counts[n - 1];
        const int far = count_above(s, -margin, true);  // si ≥ s + margin
        gradient[r] =
            static_cast<C>(upper_weights[n - 1] - sum_until(upper_weights, far) - weight * count);
      }
      team.sync();  // before the sums are written over
    }
    loss = team.reduce(loss, Add());
    pairs = team.reduce(pairs, Add());
    double scale = 1;
    if (mean) scale = pairs > 0 ? 1 / pairs : 0;
    for_each(team, n, [&](int r) {
      list.gradient[order[r]] = static_cast<C>(scale * static_cast<double>(gradient[r]));
    });
    return static_cast<C>(scale * loss);
  }
};

template <class C, class Body>
bool visit_pair_sums(const RankLossParams& p, const Body& body) {
  switch (p.loss) {
    case RankLoss::pairwise_mse:
      body(PairwiseSquares<C>(p));
      return true;
    case RankLoss::hinge:
      body(Hinge<C>(p));
      return true;
    default:
      return false;
  }
}

}  // namespace binade::kernels::rank
