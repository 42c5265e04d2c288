#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/metrics.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <binade/data/parallel.h>

namespace binade::heads::rank {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kRelevant = 1;        // the least label that MAP, MRR and P@k call relevant
constexpr double kLargestGain = 1000;  // the largest label whose 2^y leaves room for a sum

// Documents of one score, at ranks begin + 1 to end. Unless a tie stands for all its orders, every
// document is a group of its own; so all formulas below are means over the orders of groups.
struct Group {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// One list in order of its ranks.
struct Ranking {
  std::vector<double> labels;  // by rank
  std::vector<Group> groups;
  std::vector<double> falling;  // labels from the largest on
  std::vector<double> buffer;

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

class Measurer {
 public:
  Measurer(const Convention& convention, double largest_label)
      : convention_(convention), stop_scale_(std::exp2(-largest_label)) {}

  // NaN for a list that has no relevant document.
  double measure(const Metric& metric, Ranking& list) const {
    const int64_t cut = metric.cut == 0 ? list.size() : std::min(metric.cut, list.size());
    switch (metric.measure) {
      case Measure::ndcg:
        return ndcg(metric.cut, cut, list);
      case Measure::map:
        return average_precision(cut, list);
      case Measure::mrr:
        return reciprocal_rank(cut, list);
      case Measure::err:
        return expected_reciprocal_rank(cut, list);
      case Measure::precision:
        return precision(metric.cut == 0 ? list.size() : metric.cut, cut, list);
      case Measure::arp:
        return relevance_position(list);
    }
    return kNaN;
  }

 private:
  double gain(double label) const {
    return convention_.gain == Gain::exponential ? std::exp2(label) - 1 : label;
  }
  double discount(int64_t rank) const {
    const auto r = static_cast<double>(rank);
    if (convention_.discount == Discount::log2) return 1 / std::log2(1 + r);
    return rank <= 2 ? 1 : 1 / std::log2(r);
  }

  double ndcg(int64_t asked, int64_t cut, const Ranking& list) const {
    double ideal = 0, sum = 0;
    for (int64_t rank = 1; rank <= cut; ++rank)
      ideal += gain(list.falling[static_cast<size_t>(rank - 1)]) * discount(rank);
    if (ideal == 0) return kNaN;
    if (convention_.short_lists_zero && list.size() < asked) return 0;
    for (const Group& group : list.groups) {
      if (group.begin >= cut) break;
      double gains = 0, discounts = 0;
      for (int64_t i = group.begin; i < group.end; ++i) gains += gain(list.labels[i]);
      for (int64_t i = group.begin; i < std::min(group.end, cut); ++i) discounts += discount(i + 1);
      sum += gains / static_cast<double>(group.size()) * discounts;
    }
    return sum / ideal;
  }

  static int64_t relevant(const Ranking& list, const Group& group) {
    int64_t count = 0;
    for (int64_t i = group.begin; i < group.end; ++i) count += list.labels[i] >= kRelevant ? 1 : 0;
    return count;
  }

  // At a place of a group of t documents, m of them relevant, stands a relevant one with
  // probability m/t; then i others before it in the group bring i·(m − 1)/(t − 1) relevant ones.
  static double average_precision(int64_t cut, const Ranking& list) {
    double sum = 0;
    int64_t before = 0;  // relevant documents above the group
    for (const Group& group : list.groups) {
      const auto t = static_cast<double>(group.size());
      const int64_t count = relevant(list, group);
      const auto m = static_cast<double>(count);
      if (count > 0) {
        const double among = group.size() > 1 ? (m - 1) / (t - 1) : 0;
        for (int64_t i = group.begin; i < std::min(group.end, cut); ++i)
          sum += m / t *
                 (static_cast<double>(before) + 1 + static_cast<double>(i - group.begin) * among) /
                 static_cast<double>(i + 1);
      }
      before += count;
    }
    return before == 0 ? kNaN : sum / static_cast<double>(before);
  }

  // The first of m relevant documents among t stands at place j with probability
  // C(t − j − 1, m − 1)/C(t, m).
  static double reciprocal_rank(int64_t cut, const Ranking& list) {
    for (const Group& group : list.groups) {
      const int64_t count = relevant(list, group);
      if (count == 0) continue;
      const int64_t t = group.size();
      double probability = static_cast<double>(count) / static_cast<double>(t), sum = 0;
      for (int64_t j = 0; j <= t - count && group.begin + j < cut; ++j) {
        sum += probability / static_cast<double>(group.begin + j + 1);
        if (j < t - count)
          probability *= static_cast<double>(t - j - count) / static_cast<double>(t - j - 1);
      }
      return sum;
    }
    return kNaN;
  }

  // Whether a reader comes past a group does not depend on its order. Within one, past its first j
  // documents: the mean over all choices of j of the product of their 1 − R, from one document more
  // at a time.
  double expected_reciprocal_rank(int64_t cut, Ranking& list) const {
    if (list.falling.empty() || list.falling[0] <= 0) return kNaN;
    double sum = 0, arrives = 1;
    std::vector<double>& past = list.buffer;
    for (const Group& group : list.groups) {
      if (group.begin >= cut) break;
      const int64_t places = std::min(group.end, cut) - group.begin;
      past.assign(static_cast<size_t>(places) + 1, 0);
      past[0] = 1;
      double all = 1;
      for (int64_t i = group.begin; i < group.end; ++i) {
        const double goes_on = 1 - (std::exp2(list.labels[i]) - 1) * stop_scale_;
        all *= goes_on;
        const int64_t n = i - group.begin + 1;
        for (int64_t j = std::min(n, places); j >= 1; --j) {
          const double share = static_cast<double>(j) / static_cast<double>(n);
          past[j] = (1 - share) * past[j] + share * goes_on * past[j - 1];
        }
      }
      for (int64_t j = 0; j < places; ++j)
        sum += arrives * (past[j] - past[j + 1]) / static_cast<double>(group.begin + j + 1);
      arrives *= all;
    }
    return sum;
  }

  static double precision(int64_t divisor, int64_t cut, const Ranking& list) {
    double sum = 0;
    int64_t all = 0;
    for (const Group& group : list.groups) {
      const int64_t count = relevant(list, group);
      all += count;
      if (group.begin < cut)
        sum += static_cast<double>(count) *
               static_cast<double>(std::min(group.end, cut) - group.begin) /
               static_cast<double>(group.size());
    }
    return all == 0 ? kNaN : sum / static_cast<double>(divisor);
  }

  static double relevance_position(const Ranking& list) {
    double sum = 0, weight = 0;
    for (const Group& group : list.groups) {
      double labels = 0;
      for (int64_t i = group.begin; i < group.end; ++i) labels += list.labels[i];
      sum += labels * 0.5 * static_cast<double>(group.begin + 1 + group.end);
      weight += labels;
    }
    return weight == 0 ? kNaN : sum / weight;
  }

  const Convention& convention_;
  double stop_scale_;
};

void check_lists(const Judged& lists, std::span<const double> scores,
                 const Convention& convention) {
  check(scores.size() == lists.labels.size(), "there are ", scores.size(), " scores for ",
        lists.labels.size(), " documents");
  check_judged(lists, convention);
  for (int64_t i = 0; i < lists.offsets.back(); ++i)
    check(!std::isnan(scores[i]), "the score of document ", i, " (from 0) is NaN");
}

// The rows of list q in order of their ranks.
void order_list(const Judged& lists, std::span<const double> scores, const Convention& convention,
                int64_t q, std::vector<int64_t>& order) {
  const int64_t begin = lists.offsets[q], count = lists.offsets[q + 1] - begin;
  order.resize(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), begin);
  const auto key = [&](int64_t row) -> double {
    switch (convention.ties) {
      case Ties::best:
        return -static_cast<double>(lists.labels[row]);
      case Ties::worst:
        return lists.labels[row];
      case Ties::random: {
        const PhiloxBlock block = philox(convention.seed, static_cast<uint64_t>(q), 0,
                                         static_cast<uint64_t>(row - begin));
        return static_cast<double>(block.word[0]) + static_cast<double>(block.word[1]) * 0x1p-32;
      }
      case Ties::name:
        return static_cast<double>(lists.tie_order[row]);
      case Ties::stable:
      case Ties::expected:
        break;
    }
    return 0;
  };
  const bool keyed = convention.ties != Ties::stable && convention.ties != Ties::expected;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (scores[a] != scores[b]) return scores[a] > scores[b];
    return keyed && key(a) < key(b);
  });
}

void rank_list(const Judged& lists, std::span<const double> scores, const Convention& convention,
               int64_t q, std::vector<int64_t>& order, Ranking& list) {
  order_list(lists, scores, convention, q, order);
  const auto count = static_cast<int64_t>(order.size());
  list.labels.resize(order.size());
  list.groups.clear();
  for (int64_t i = 0; i < count; ++i) {
    list.labels[i] = lists.labels[order[i]];
    const bool tied =
        convention.ties == Ties::expected && i > 0 && scores[order[i]] == scores[order[i - 1]];
    if (tied)
      list.groups.back().end = i + 1;
    else
      list.groups.push_back({i, i + 1});
  }
  list.falling = list.labels;
  std::sort(list.falling.begin(), list.falling.end(), std::greater<>());
}

}  // namespace

void check_judged(const Judged& lists, const Convention& convention) {
  const auto documents = static_cast<int64_t>(lists.labels.size());
  check(!lists.offsets.empty() && lists.offsets[0] == 0 && lists.offsets.back() <= documents,
        "the offsets of lists must go from 0 to at most the number of documents, ", documents);
  for (size_t q = 1; q < lists.offsets.size(); ++q)
    check(lists.offsets[q] >= lists.offsets[q - 1], "the offsets of lists fall from ",
          lists.offsets[q - 1], " to ", lists.offsets[q], " at list ", q - 1);
  for (int64_t i = 0; i < lists.offsets.back(); ++i) {
    const double label = lists.labels[i];
    check(label >= 0 && label <= kLargestGain, "document ", i, " (from 0) has the label ", label,
          "; labels are numbers from 0 to ", kLargestGain);
    check(convention.has_gain(label), "document ", i, " (from 0) has the label ", label,
          ", but the gain table of ", convention.name, " is for the whole numbers from 0 to ",
          convention.gain_table.value_or(0));
    if (lists.largest_label > 0)
      check(label <= lists.largest_label, "document ", i, " (from 0) has the label ", label,
            ", larger than the largest one, ", lists.largest_label);
  }
  if (convention.needs_names())
    check(static_cast<int64_t>(lists.tie_order.size()) == documents, "ties by names (",
          convention.name,
          ") need the names of the documents; the file has none, or they were "
          "not kept. Choose another order of ties");
}

std::vector<Evaluation> evaluate(const Judged& lists, std::span<const double> scores,
                                 std::span<const Metric> metrics, const Convention& convention,
                                 int threads) {
  check_lists(lists, scores, convention);
  double largest_label = lists.largest_label;
  if (largest_label == 0)
    for (const float label : lists.labels)
      largest_label = std::max(largest_label, static_cast<double>(label));

  const auto count = static_cast<int64_t>(lists.offsets.size()) - 1;
  std::vector<Evaluation> out;
  for (const Metric& metric : metrics) {
    out.push_back({metric, convention});
    out.back().each.assign(static_cast<size_t>(count), kNaN);
  }
  const Measurer measurer(convention, largest_label);
  constexpr int64_t kLists = 256;
  data::parallel_for((count + kLists - 1) / kLists, threads, [&](int64_t block, int) {
    std::vector<int64_t> order;
    Ranking list;
    for (int64_t q = block * kLists; q < std::min(count, (block + 1) * kLists); ++q) {
      rank_list(lists, scores, convention, q, order, list);
      for (Evaluation& evaluation : out)
        evaluation.each[static_cast<size_t>(q)] = measurer.measure(evaluation.metric, list);
    }
  });
  for (Evaluation& evaluation : out) {
    double sum = 0;
    for (int64_t q = 0; q < count; ++q) {
      double& value = evaluation.each[static_cast<size_t>(q)];
      if (lists.offsets[q] == lists.offsets[q + 1]) continue;
      if (std::isnan(value)) {
        ++evaluation.empty;
        if (convention.empty == EmptyLists::skip || evaluation.metric.measure == Measure::arp)
          continue;
        value = convention.empty == EmptyLists::one ? 1 : 0;
      }
      sum += value;
      ++evaluation.lists;
    }
    evaluation.mean = evaluation.lists > 0 ? sum / static_cast<double>(evaluation.lists) : kNaN;
  }
  return out;
}

std::vector<int64_t> ranked_documents(const Judged& lists, std::span<const double> scores,
                                      const Convention& convention) {
  check_lists(lists, scores, convention);
  std::vector<int64_t> rows, order;
  for (int64_t q = 0; q + 1 < static_cast<int64_t>(lists.offsets.size()); ++q) {
    order_list(lists, scores, convention, q, order);
    rows.insert(rows.end(), order.begin(), order.end());
  }
  return rows;
}

std::vector<TieBounds> tie_bounds(const Judged& lists, std::span<const double> scores,
                                  std::span<const Metric> metrics, const Convention& convention,
                                  int threads) {
  Convention bound = convention;
  bound.ties = Ties::best;
  const auto best = evaluate(lists, scores, metrics, bound, threads);
  bound.ties = Ties::worst;
  const auto worst = evaluate(lists, scores, metrics, bound, threads);
  std::vector<TieBounds> out;
  for (size_t m = 0; m < metrics.size(); ++m) out.push_back({best[m].mean, worst[m].mean});
  return out;
}

std::vector<int64_t> falling_names(int64_t count,
                                   const std::function<std::string_view(int64_t)>& name) {
  std::vector<int64_t> rows(static_cast<size_t>(count)), places(rows.size());
  std::iota(rows.begin(), rows.end(), int64_t{0});
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return name(a) > name(b); });
  for (size_t place = 0; place < rows.size(); ++place)
    places[static_cast<size_t>(rows[place])] = static_cast<int64_t>(place);
  return places;
}

PairedTest paired_test(std::span<const double> a, std::span<const double> b, int64_t rounds,
                       uint64_t seed) {
  check(a.size() == b.size(), "a paired test needs as many values on both sides, got ", a.size(),
        " and ", b.size());
  check(rounds >= 1, "a randomisation test needs 1 round or more, got ", rounds);
  std::vector<double> differences;
  for (size_t q = 0; q < a.size(); ++q) {
    check(std::isnan(a[q]) == std::isnan(b[q]), "list ", q,
          " has a value on one side of a paired test alone");
    if (!std::isnan(a[q])) differences.push_back(a[q] - b[q]);
  }
  PairedTest test;
  test.lists = static_cast<int64_t>(differences.size());
  if (differences.empty()) return test;
  double sum = 0, magnitude = 0;
  for (const double d : differences) sum += d, magnitude += std::abs(d);
  test.mean_difference = sum / static_cast<double>(test.lists);
  const double least = std::abs(sum) - 1e-12 * magnitude;  // sums round
  // With a bit for each list, the sum of a pattern is 2·Σ(bits that are set) − Σ.
  test.exact = test.lists < 62 && (int64_t{1} << test.lists) <= rounds;
  test.rounds = test.exact ? int64_t{1} << test.lists : rounds;
  int64_t hits = 0;
  for (int64_t round = 0; round < test.rounds; ++round) {
    double chosen = 0;
    PhiloxBlock block{};
    for (int64_t i = 0; i < test.lists; ++i) {
      if (test.exact) {
        chosen += static_cast<double>(round >> i & 1) * differences[i];
        continue;
      }
      if (i % 128 == 0)
        block = philox(seed, static_cast<uint64_t>(round), 0, static_cast<uint64_t>(i / 128));
      chosen += static_cast<double>(block.word[i / 32 % 4] >> (i % 32) & 1) * differences[i];
    }
    hits += std::abs(2 * chosen - sum) >= least ? 1 : 0;
  }
  test.p_value = test.exact ? static_cast<double>(hits) / static_cast<double>(test.rounds)
                            : static_cast<double>(1 + hits) / static_cast<double>(1 + test.rounds);
  return test;
}

}  // namespace binade::heads::rank
