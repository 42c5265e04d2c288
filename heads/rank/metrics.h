// Measures of ranked lists, computed in f64 on the host, under conventions that are named: programs
// differ in what a list without relevant documents counts and in how tied scores are ordered, which
// moves one ranker's NDCG@10 on MQ2008 from 0.22 to 0.78.
//
// y is a document's label, r its rank from 1 when scores fall. With gain G, discount D and a cut k:
//   NDCG@k  Σ_{r≤k} G(y)·D(r), divided by its largest possible value
//   MAP@k   Σ_{r≤k, y≥1} (relevant documents up to r)/r, divided by the number of all relevant ones
//   MRR@k   1/r of the first relevant document (y ≥ 1), 0 beyond k
//   ERR@k   Σ_{r≤k} 1/r·R_r·Π_{i<r}(1 − R_i), R = (2^y − 1)/2^(largest label)   (Chapelle et al.
//   2009) P@k     relevant documents (y ≥ 1) up to k, divided by k, or by the list's length without
//   a cut ARP     Σ y·r / Σ y: the average relevance position, of the whole list; smaller is better
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace binade::heads::rank {

enum class Measure : uint8_t { ndcg, map, mrr, err, precision, arp };

struct Metric {
  Measure measure = Measure::ndcg;
  int64_t cut = 0;  // k; 0: the whole list

  // From "ndcg@10", "map", "mrr@5", "err", "p@10" or "precision@10", "arp", in any case. Error for
  // others, with the nearest name, and for a cut that is not a whole number from 1 to 2^31 − 1.
  static Metric parse(std::string_view text);
  std::string name() const;  // "NDCG@10"
  bool smaller_is_better() const { return measure == Measure::arp; }
  bool operator==(const Metric&) const = default;
};

enum class Gain : uint8_t { exponential, linear };  // 2^y − 1, or y
enum class Discount : uint8_t { log2, letor };  // 1/log2(1 + r), or 1, 1, 1/log2(r) from r = 3 on
// What a list without any relevant document counts. (ARP has no value there and always skips it. A
// list without documents never counts.)
enum class EmptyLists : uint8_t { zero, one, skip };
// In which order documents of one score are taken:
enum class Ties : uint8_t {
  stable,    // as they stand
  expected,  // the mean over all orders (McSherry & Najork 2008)
  best,      // falling labels
  worst,     // rising labels
  random,    // one order, drawn from a seed and the place of the list
  name,      // falling names of documents, as trec_eval does: see Judged::tie_order
};

struct Convention {
  std::string name = "zero";  // the preset's
  Gain gain = Gain::exponential;
  Discount discount = Discount::log2;
  EmptyLists empty = EmptyLists::zero;
  Ties ties = Ties::stable;
  uint64_t seed = 0;                // of random ties
  bool short_lists_zero = false;    // NDCG@k of a list with fewer than k documents is 0
  std::optional<int> gain_table{};  // labels must be whole and at most this

  bool has_gain(double label) const;  // whether the gain table, if there is one, has the label
  bool needs_names() const { return ties == Ties::name; }  // of documents: Judged::tie_order

  // lightgbm, xgboost, allrank, tfr, rax, dasalc, letor4, trec_eval: what those programs do. Also
  // one, zero and skip: exponential gain, stable ties and that policy. Error names close ones.
  static Convention preset(std::string_view name);
  static std::vector<std::string> preset_names();
  // "gain 2^y-1, discount 1/log2(1+r), lists without relevant documents count 0, ties by input
  // order", as far as it matters to the metric.
  std::string describe(const Metric& metric) const;
};

// The order of ties from text: stable, expected, best, worst, random, name.
Ties parse_ties(std::string_view text);
// What empty lists count, from text: zero, one, skip.
EmptyLists parse_empty_lists(std::string_view text);

// Lists with their labels: offsets (Q + 1) as in Lists, labels (N).
struct Judged {
  std::span<const int64_t> offsets;
  std::span<const float> labels;
  // The data set's largest label, which ERR needs; 0: the largest of `labels`.
  double largest_label = 0;
  // (N), for Ties::name: the document with the smaller number comes first.
  std::span<const int64_t> tie_order{};
};

struct Evaluation {
  Metric metric;
  Convention convention;
  double mean = 0;           // over the lists that count; NaN if there are none
  int64_t lists = 0;         // that count
  int64_t empty = 0;         // lists with documents of which none is relevant
  std::vector<double> each;  // (Q), NaN for lists that do not count

  // "NDCG@10 0.4955 (zero: gain …; 564 lists, 220 of them …)".
  std::string describe() const;
};

// Every metric under one convention. scores (N); the larger, the earlier. Error for scores or
// labels of another number, NaN among them, offsets that do not fit, labels that are negative or
// not in the gain table (naming the document).
std::vector<Evaluation> evaluate(const Judged& lists, std::span<const double> scores,
                                 std::span<const Metric> metrics, const Convention& convention,
                                 int threads = 0);

// What evaluate() throws for lists whatever their scores: before there are any.
void check_judged(const Judged& lists, const Convention& convention);

// The rows of all lists, each list's in the order of its ranks. Tied documents stand in one order,
// even under Ties::expected: as they stood. Errors as above.
std::vector<int64_t> ranked_documents(const Judged& lists, std::span<const double> scores,
                                      const Convention& convention);

// Means when ties fall as well and as badly as they can. The first is better: for ARP, smaller.
struct TieBounds {
  double best = 0, worst = 0;
};
std::vector<TieBounds> tie_bounds(const Judged& lists, std::span<const double> scores,
                                  std::span<const Metric> metrics, const Convention& convention,
                                  int threads = 0);

// Names as trec_eval orders ties: position in the falling order of names (as bytes); equal names in
// order of the rows.
std::vector<int64_t> falling_names(int64_t count,
                                   const std::function<std::string_view(int64_t)>& name);

// Fisher's randomisation test of paired values (Smucker, Allan & Carterette, CIKM 2007): how often
// the mean difference would be at least as far from 0 if the signs of the differences were chance.
struct PairedTest {
  double mean_difference = 0;  // a − b
  double p_value = 1;          // two-sided; (1 + hits)/(1 + rounds) unless exact
  int64_t lists = 0;           // pairs without NaN
  int64_t rounds = 0;          // sign patterns that were tried
  bool exact = false;          // all of them were
};
// a, b: (Q), pairs with a NaN are left out. All patterns are tried where there are no more than
// `rounds`. Error for different lengths, NaN in one of a pair only, and rounds below 1.
PairedTest paired_test(std::span<const double> a, std::span<const double> b,
                       int64_t rounds = 100'000, uint64_t seed = 0);

}  // namespace binade::heads::rank
