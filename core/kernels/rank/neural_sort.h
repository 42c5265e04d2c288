// NeuralNDCG: NDCG of a sort that was made smooth. NeuralSort's matrix (Grover et al. 2019) with
// L(i, j) = ((n + 1 − 2i)·s(j) − Σ_k |s(j) − s(k)|)/τ, the softmax of its rows, Sinkhorn's scaling,
// columns then rows so many times, and gains times the matrix as the gains by rank.
//
// The matrix is e^(L(i, j) + a(i) + b(j)): the scaling keeps vectors a and b for backward, and
// entries are computed when they are needed. Time O(n²·iterations), memory O(n·iterations).
#pragma once

#include <binade/core/kernels/rank/list.h>

namespace binade::kernels::rank {

template <class C>
struct NeuralNdcg {
  using Real = C;
  explicit NeuralNdcg(const RankLossParams& p)
      : inverse_(1 / p.temperature),
        iterations_(static_cast<int>(p.iterations)),
        truncation_(static_cast<int>(p.truncation)) {}
  // In double, as L grows with n: what goes into an exponential is a difference of large numbers.
  int arrays() const {
    return (kFixed + 2 * iterations_ + 1) * static_cast<int>(sizeof(double) / sizeof(C));
  }

  template <class Team>
  BINADE_RANK C operator()(Team& team, const RankList<C>& list) const {
    const int n = list.n;
    double* work = reinterpret_cast<double*>(list.array(0));
    double *scores = work, *distances = work + n;
    double *row_slopes = work + 2 * n, *column_slopes = work + 3 * n;  // of the loss in a and in b
    // Sums over rows of the slope in L(i, j), plain and times ∂L/∂s.
    double *sums = work + 4 * n, *moments = work + 5 * n;
    double *discounts = work + 6 * n, *gains = work + 7 * n;
    double *rows = work + int64_t{kFixed} * n,
           *columns = rows + int64_t{iterations_ + 1} * n;  // a, b by iteration
    const auto a = [&](int t) { return rows + static_cast<int64_t>(t) * n; };
    const auto b = [&](int t) { return columns + static_cast<int64_t>(t - 1) * n; };
    const auto factor = [&](int i) { return static_cast<double>(n - 1 - 2 * i) * inverse_; };
    const auto entry = [&](int i, int j) { return factor(i) * scores[j] - distances[j]; };

    const double centre =
        sum_over(team, n, [&](int i) { return static_cast<double>(list.scores[i]); }) / n;
    for_each(team, n, [&](int j) { scores[j] = static_cast<double>(list.scores[j]) - centre; });
    for_each_line(
        team, n, [&](int j, int k) { return fabs(scores[j] - scores[k]); },
        [&](int j, double sum) { distances[j] = sum * inverse_; });

    // −ln Σ e^x(k) for each line.
    const auto balance = [&](const auto& x, double* out) {
      const int first = team.member(), step = team.members();
      for (int i = team.group(); i < n; i += team.groups()) {
        double largest = Range<double>::kLeast;
        BINADE_RANK_SIMD_MAX(largest)
        for (int k = first; k < n; k += step) {
          const double value = x(i, k);
          largest = value > largest ? value : largest;
        }
        largest = team.group_reduce(largest, Largest());
        C sum = 0;
        BINADE_RANK_SIMD(sum)
        for (int k = first; k < n; k += step) sum += exponential(static_cast<C>(x(i, k) - largest));
        sum = team.group_reduce(sum, Add());
        if (team.member() == 0) out[i] = -(largest + static_cast<double>(log(sum)));
      }
      team.sync();
    };
    balance([&](int i, int j) { return entry(i, j); }, a(0));
    for (int t = 1; t <= iterations_; ++t) {
      const double *before = a(t - 1), *column = b(t);
      balance([&](int j, int i) { return entry(i, j) + before[i]; }, b(t));
      balance([&](int i, int j) { return entry(i, j) + column[j]; }, a(t));
    }

    const int ranks = truncation_ > 0 && truncation_ < n ? truncation_ : n;
    const C ideal = ideal_dcg(team, list, ranks);
    const double scale = ideal > 0 ? -1 / static_cast<double>(ideal) : 0;
    const double* last_row = a(iterations_);
    const double* last_column = b(iterations_);
    for_each(team, n, [&](int i) {
      discounts[i] = scale * discount<double>(i);
      gains[i] = static_cast<double>(gain(list.label(i)) * list.weight(i));
    });
    // An entry's part of the loss: −P(i, j)·G(j)·w(j)/(D(i)·ideal).
    const auto share = [&](int i, int j) {
      if (i >= ranks) return 0.0;
      return discounts[i] * gains[j] * matrix(entry(i, j) + last_row[i] + last_column[j]);
    };
    for_each_line(
        team, n, [&](int i, int j) { return share(i, j); },
        [&](int i, double sum) { row_slopes[i] = sum; });
    const double loss = 1 + sum_over(team, n, [&](int i) { return row_slopes[i]; });
    for_each_moments(
        team, n, [&](int j, int i) { return share(i, j); }, factor,
        [&](int j, double sum, double moment) {
          column_slopes[j] = sums[j] = sum;
          moments[j] = moment;
        });

    for (int t = iterations_; t >= 1; --t) {
      const double *row = a(t), *row_before = a(t - 1), *column = b(t);
      const auto row_step = [&](int i, int j) {
        return row_slopes[i] * matrix(entry(i, j) + row[i] + column[j]);
      };
      const auto column_step = [&](int i, int j) {
        return matrix(entry(i, j) + row_before[i] + column[j]);
      };
      for_each_moments(
          team, n, [&](int j, int i) { return row_step(i, j); }, factor,
          [&](int j, double sum, double moment) {
            column_slopes[j] -= sum;
            sums[j] -= sum;
            moments[j] -= moment;
          });
      for_each_moments(
          team, n, [&](int j, int i) { return column_step(i, j); }, factor,
          [&](int j, double sum, double moment) {
            sums[j] -= column_slopes[j] * sum;
            moments[j] -= column_slopes[j] * moment;
          });
      for_each_line(
          team, n, [&](int i, int j) { return column_slopes[j] * column_step(i, j); },
          [&](int i, double sum) { row_slopes[i] = -sum; });
      for_each(team, n, [&](int j) { column_slopes[j] = 0; });
    }
    const double* row = a(0);
    for_each_moments(
        team, n, [&](int j, int i) { return row_slopes[i] * matrix(entry(i, j) + row[i]); }, factor,
        [&](int j, double sum, double moment) {
          sums[j] -= sum;
          moments[j] -= moment;
        });

    for_each_line(
        team, n,
        [&](int j, int k) {
          const double both = sums[j] + sums[k], difference = scores[j] - scores[k];
          return difference > 0 ? both : difference < 0 ? -both : 0.0;
        },
        [&](int j, double sum) { list.gradient[j] = static_cast<C>(moments[j] - inverse_ * sum); });
    return static_cast<C>(loss);
  }

 private:
  static constexpr int kFixed = 8;
  double inverse_;
  int iterations_, truncation_;

  BINADE_RANK static double matrix(double x) {
    return static_cast<double>(exponential(static_cast<C>(x)));
  }
  // put(i, Σ_k term(i, k)) for all i, then sync().
  template <class Team, class Term, class Put>
  BINADE_RANK static void for_each_line(Team& team, int n, const Term& term, const Put& put) {
    for (int i = team.group(); i < n; i += team.groups()) {
      double sum = 0;
      const int first = team.member(), step = team.members();
      BINADE_RANK_SIMD(sum)
      for (int k = first; k < n; k += step) sum += term(i, k);
      sum = team.group_reduce(sum, Add());
      if (team.member() == 0) put(i, sum);
    }
    team.sync();
  }
  // The same with Σ_k factor(k)·term(i, k).
  template <class Team, class Term, class Factor, class Put>
  BINADE_RANK static void for_each_moments(Team& team, int n, const Term& term,
                                           const Factor& factor, const Put& put) {
    for (int i = team.group(); i < n; i += team.groups()) {
      double sum = 0, moment = 0;
      const int first = team.member(), step = team.members();
      BINADE_RANK_SIMD(sum, moment)
      for (int k = first; k < n; k += step) {
        const double value = term(i, k);
        sum += value;
        moment += factor(k) * value;
      }
      sum = team.group_reduce(sum, Add());
      moment = team.group_reduce(moment, Add());
      if (team.member() == 0) put(i, sum, moment);
    }
    team.sync();
  }
};

template <class C, class Body>
bool visit_neural_sort(const RankLossParams& p, const Body& body) {
  if (p.loss != RankLoss::neural_ndcg) return false;
  body(NeuralNdcg<C>(p));
  return true;
}

}  // namespace binade::kernels::rank
