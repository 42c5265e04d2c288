#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/clicks.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace binade::heads::rank {
namespace {

// Uniform draws of one session. Draw d of a document is word d % 4 of its block, so that what one
// document draws does not depend on others.
class SessionDraws {
 public:
  SessionDraws(uint64_t seed, int64_t list, int64_t session)
      : seed_(seed), step_(static_cast<uint64_t>(list) << 32 | static_cast<uint64_t>(session)) {}
  double uniform(int64_t block, int word) const {
    return uniform_of(philox(seed_, step_, 1, static_cast<uint64_t>(block)).word[word]);
  }

 private:
  uint64_t seed_, step_;
};

void check_options(const ClickOptions& o) {
  const auto share = [](double value, const char* what) {
    check(value >= 0 && value <= 1, what, " of a click model is between 0 and 1, got ", value);
  };
  share(o.model.stop, "stop");
  share(o.model.patience, "patience");
  share(o.swap_share, "the share of interventions");
  check(o.model.noise >= 0 && o.model.noise < 1,
        "noise of a click model is from 0 and below 1, got ", o.model.noise);
  check(o.model.eta >= 0 && o.model.eta <= 100, "eta of a click model is from 0 to 100, got ",
        o.model.eta);
  check(o.shown >= 1 && o.sessions >= 1 && o.sessions <= INT32_MAX,
        "users see 1 document or more in 1 session or more, got ", o.shown, " and ", o.sessions);
  check(o.swap_share == 0 || o.shown >= 2, "ranks change places only where 2 or more are shown");
}

// The clicks of one session on documents of these labels, from rank 1 on.
void click(const ClickModel& model, double largest, const SessionDraws& draws,
           std::span<const double> labels, std::vector<uint8_t>& clicks) {
  bool there = true;
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto rank = static_cast<int64_t>(i) + 1;
    const bool attracted = draws.uniform(rank, 0) < model.attraction(labels[i], largest);
    bool examined = there;
    if (model.kind == ClickModel::Kind::position)
      examined = draws.uniform(rank, 1) < model.examination(rank);
    const bool clicked = examined && attracted;
    clicks.push_back(clicked ? 1 : 0);
    there = there && draws.uniform(rank, 2) < (clicked ? 1 - model.stop : model.patience);
  }
}

std::vector<double> relative_to_first(std::vector<double> rates) {
  const double first = rates.empty() ? 0 : rates[0];
  check(first > 0, "propensities are relative to rank 1, which has no clicks in the log");
  for (double& rate : rates) rate /= first;
  return rates;
}

// ---- expectation maximisation over documents at ranks
struct Cell {
  int64_t document = 0, rank = 0;  // from 0
  double shown = 0, clicks = 0;
};

std::vector<Cell> cells_of(const ClickLog& log) {
  std::vector<Cell> cells;
  for (int64_t s = 0; s < log.sessions(); ++s)
    for (int64_t i = log.offsets[s]; i < log.offsets[s + 1]; ++i)
      cells.push_back(
          {log.documents[i], i - log.offsets[s], 1, static_cast<double>(log.clicks[i])});
  const auto key = [](const Cell& c) { return std::pair(c.document, c.rank); };
  std::sort(cells.begin(), cells.end(),
            [&](const Cell& a, const Cell& b) { return key(a) < key(b); });
  std::vector<Cell> merged;
  for (const Cell& cell : cells) {
    if (merged.empty() || key(merged.back()) != key(cell)) {
      merged.push_back(cell);
    } else {
      merged.back().shown += cell.shown;
      merged.back().clicks += cell.clicks;
    }
  }
  return merged;
}

// `attraction` (per cell) is improved by `maximise(expected, attraction)`, where expected[c] is how
// many of the cell's impressions found the document attractive.
template <class Maximise>
std::vector<double> expectation_maximisation(const ClickLog& log, const std::vector<Cell>& cells,
                                             int64_t iterations, const Maximise& maximise) {
  check(iterations >= 1, "expectation maximisation needs 1 iteration or more, got ", iterations);
  std::vector<double> examination(static_cast<size_t>(log.shown));
  std::vector<double> attraction(cells.size(), 0.5), attracted(cells.size());
  for (int64_t rank = 0; rank < log.shown; ++rank)
    examination[rank] = 1 / static_cast<double>(rank + 1);
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    std::vector<double> examined(examination.size()), shown(examination.size());
    for (size_t c = 0; c < cells.size(); ++c) {
      const Cell& cell = cells[c];
      const double e = examination[cell.rank], a = attraction[c];
      // Without a click, a document was examined and unattractive, or attractive and unexamined,
      // or neither.
      const double without = cell.shown - cell.clicks, silent = std::max(1 - e * a, 1e-12);
      examined[cell.rank] += cell.clicks + without * e * (1 - a) / silent;
      shown[cell.rank] += cell.shown;
      attracted[c] = cell.clicks + without * a * (1 - e) / silent;
    }
    for (size_t rank = 0; rank < examination.size(); ++rank)
      examination[rank] = examined[rank] / shown[rank];  // NaN where nothing was shown
    maximise(attracted, attraction);
  }
  return relative_to_first(examination);
}

// Solves the positive definite A·x = b in place (Cholesky); A is row-major, of which the lower
// triangle is read.
void solve(std::vector<double>& a, std::vector<double>& b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(std::max(sum, 1e-300)) : sum / a[j * n + j];
    }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
}

// A logistic regression with an intercept, improved by one Newton step for each new target.
class LogisticRegression {
 public:
  LogisticRegression(int64_t width, double ridge)
      : weights_(static_cast<size_t>(width) + 1), ridge_(ridge) {}

  double predict(const float* x) const {
    double logit = weights_.back();
    for (size_t f = 0; f + 1 < weights_.size(); ++f) logit += weights_[f] * x[f];
    return 1 / (1 + std::exp(-logit));
  }
  // row(c): features; count(c) impressions, of which target[c] are 1.
  template <class Row, class Count>
  void step(const std::vector<double>& target, const Row& row, const Count& count) {
    const size_t n = weights_.size();
    std::vector<double> hessian(n * n), gradient(n), x(n, 1.0);
    for (size_t c = 0; c < target.size(); ++c) {
      std::copy_n(row(c), n - 1, x.begin());
      const double p = predict(row(c)), slope = count(c) * p * (1 - p);
      const double error = target[c] - count(c) * p;
      for (size_t i = 0; i < n; ++i) {
        gradient[i] += error * x[i];
        for (size_t j = 0; j <= i; ++j) hessian[i * n + j] += slope * x[i] * x[j];
      }
    }
    for (size_t i = 0; i < n; ++i) {
      gradient[i] -= ridge_ * weights_[i];
      hessian[i * n + i] += ridge_;
    }
    solve(hessian, gradient);
    // A step of bounded length, as Newton's may go too far where p is near 0 or 1.
    const double longest =
        std::abs(*std::max_element(gradient.begin(), gradient.end(),
                                   [](double a, double b) { return std::abs(a) < std::abs(b); }));
    const double damping = longest > 2 ? 2 / longest : 1;
    for (size_t i = 0; i < n; ++i) weights_[i] += damping * gradient[i];
  }

 private:
  std::vector<double> weights_;  // of the features, then the intercept
  double ridge_;
};

}  // namespace

double ClickModel::examination(int64_t rank) const {
  return std::pow(static_cast<double>(rank), -eta);
}

double ClickModel::attraction(double label, double largest) const {
  const double relevance = largest > 0 ? (std::exp2(label) - 1) / (std::exp2(largest) - 1) : 0;
  return noise + (1 - noise) * relevance;
}

ClickLog simulate_clicks(const Judged& lists, std::span<const double> logging_scores,
                         const ClickOptions& options) {
  check_options(options);
  double largest = options.model.largest_label;
  if (largest == 0)
    for (const float label : lists.labels) largest = std::max<double>(largest, label);
  ClickLog log;
  log.shown = options.shown;
  log.offsets = {0};
  Judged checked = lists;
  checked.largest_label = largest;
  const auto ranking = ranked_documents(checked, logging_scores, Convention::preset("zero"));
  const auto count = static_cast<int64_t>(lists.offsets.size()) - 1;
  std::vector<double> labels;
  for (int64_t q = 0; q < count; ++q) {
    const int64_t length = std::min(options.shown, lists.offsets[q + 1] - lists.offsets[q]);
    for (int64_t session = 0; length > 0 && session < options.sessions; ++session) {
      const SessionDraws draws(options.seed, q, session);
      std::vector<int64_t> documents(ranking.begin() + lists.offsets[q],
                                     ranking.begin() + lists.offsets[q] + length);
      int32_t swapped = 0;
      if (length >= 2 && draws.uniform(0, 0) < options.swap_share) {
        const auto others = static_cast<double>(length - 1);
        swapped = 2 + static_cast<int32_t>(draws.uniform(0, 1) * others);
        if (draws.uniform(0, 2) < 0.5) std::swap(documents[0], documents[swapped - 1]);
      }
      labels.clear();
      for (const int64_t document : documents) labels.push_back(lists.labels[document]);
      click(options.model, largest, draws, labels, log.clicks);
      log.documents.insert(log.documents.end(), documents.begin(), documents.end());
      log.offsets.push_back(static_cast<int64_t>(log.documents.size()));
      log.lists.push_back(q);
      log.swapped.push_back(swapped);
    }
  }
  return log;
}

std::vector<double> click_rates(const ClickLog& log) {
  std::vector<double> clicks(static_cast<size_t>(log.shown)), shown(clicks.size());
  for (const Cell& cell : cells_of(log)) {
    clicks[cell.rank] += cell.clicks;
    shown[cell.rank] += cell.shown;
  }
  for (size_t rank = 0; rank < clicks.size(); ++rank) clicks[rank] /= shown[rank];
  return clicks;
}

std::vector<double> swap_propensities(const ClickLog& log) {
  std::vector<double> first(static_cast<size_t>(log.shown)), other(first.size());
  for (int64_t s = 0; s < log.sessions(); ++s) {
    const int32_t k = log.swapped[s];
    if (k == 0) continue;
    first[k - 1] += log.clicks[log.offsets[s]];
    other[k - 1] += log.clicks[log.offsets[s] + k - 1];
  }
  const double all = std::accumulate(first.begin(), first.end(), 0.0);
  check(all > 0, "the log has no sessions with interventions that were clicked at rank 1");
  std::vector<double> propensities = {1};
  for (size_t rank = 1; rank < first.size(); ++rank)
    propensities.push_back(other[rank] / first[rank]);  // 0/0 is NaN: nothing is known
  return propensities;
}

std::vector<double> em_propensities(const ClickLog& log, const EmOptions& options) {
  const std::vector<Cell> cells = cells_of(log);
  return expectation_maximisation(
      log, cells, options.iterations,
      [&](const std::vector<double>& attracted, std::vector<double>& attraction) {
        // Cells of a document lie together.
        for (size_t begin = 0; begin < cells.size();) {
          size_t end = begin;
          double sum = 0, shown = 0;
          for (; end < cells.size() && cells[end].document == cells[begin].document; ++end) {
            sum += attracted[end];
            shown += cells[end].shown;
          }
          for (; begin < end; ++begin) attraction[begin] = sum / shown;
        }
      });
}

std::vector<double> regression_em_propensities(const ClickLog& log, std::span<const float> features,
                                               int64_t width, const EmOptions& options) {
  const std::vector<Cell> cells = cells_of(log);
  check(width >= 1 && options.ridge > 0, "regression-EM needs features and a ridge above 0, got ",
        width, " and ", options.ridge);
  for (const Cell& cell : cells) {
    check((cell.document + 1) * width <= static_cast<int64_t>(features.size()), "document ",
          cell.document, " of the log has no features");
    for (int64_t f = 0; f < width; ++f)
      check(std::isfinite(features[cell.document * width + f]), "feature ", f, " of document ",
            cell.document, " (both from 0) is not finite");
  }
  LogisticRegression model(width, options.ridge);
  const auto row = [&](size_t c) { return features.data() + cells[c].document * width; };
  return expectation_maximisation(
      log, cells, options.iterations,
      [&](const std::vector<double>& attracted, std::vector<double>& attraction) {
        model.step(attracted, row, [&](size_t c) { return cells[c].shown; });
        for (size_t c = 0; c < cells.size(); ++c) attraction[c] = model.predict(row(c));
      });
}

}  // namespace binade::heads::rank
