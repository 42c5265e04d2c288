// Measures ranked lists: metrics of a file of scores under the conventions of any program, bounds
// from ties, and a paired test against other scores.
//
//   evaluate_ranking --data test.txt --scores scores.txt
//   evaluate_ranking --data test.txt --scores a.txt --baseline b.txt --metrics ndcg@10 --convention
//   all evaluate_ranking --data S1.txt S2.txt --feature 39 --convention letor4
#include "evaluate_ranking/report.h"
#include "output_files.h"
#include "ranked_lists.h"

#include <binade/data/ranking_scores.h>

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options {
  ListOptions lists;
  std::string scores, baseline, ties, empty_lists, per_query;
  int64_t feature = -1;
  std::vector<std::string> metrics, conventions;
  double largest_label = 0;
  int64_t rounds = 100'000;
  uint64_t seed = 0;
  bool json_lines = false;
};

void add_options(CommandLine& command, Options& o) {
  o.metrics = {"ndcg@1", "ndcg@5", "ndcg@10", "map", "mrr", "err", "p@10"};
  o.conventions = {"zero"};
  add_list_options(command, o.lists);
  const OptionGroup scores{command, "Scores"};
  scores.add("--scores", o.scores, "One number a line, in the order of the documents");
  scores.add("--feature", o.feature, "Take this feature as the score, by its number in the files")
      .range(int64_t{0}, kMostFeatures);
  scores.add("--baseline", o.baseline, "Other scores, which a paired test compares with");
  const OptionGroup metrics{command, "Metrics"};
  metrics.add("--metrics", o.metrics,
              "ndcg@K, map@K, mrr@K, err@K, p@K, arp; without @K: the list");
  metrics.add("--convention", o.conventions, convention_help(/*named=*/true) + "; or all of them");
  metrics.add("--ties", o.ties,
              "Order of tied documents: stable, expected, best, worst, random, name (default: the "
              "convention's)");
  metrics.add("--empty-lists", o.empty_lists,
              "What lists without relevant documents count: zero, one, skip (default: the "
              "convention's)");
  metrics.add("--largest-label", o.largest_label, "The data set's, for ERR; 0: that of these lists")
      .range(0.0, 1000.0);
  metrics.add("--seed", o.seed, "Of random ties and of the paired test");
  metrics.add("--rounds", o.rounds, "Sign patterns that the paired test draws").count(1);
  const OptionGroup output{command, "Output"};
  output.add("--json-lines", o.json_lines, "Print an object of JSON for every result");
  output.add("--per-query", o.per_query, "File for a table of every list's values");
}

std::vector<double> scores_of(const data::RankingSet& set, const Options& o) {
  check(o.scores.empty() != (o.feature < 0), "give either --scores or --feature");
  if (!o.scores.empty()) return data::read_scores(o.scores, set);
  return feature_scores(set, o.feature);
}

// Of all conventions those whose gain table has the labels.
std::vector<rank::Convention> conventions_of(const Options& o, data::RankingSet& set) {
  std::vector<rank::Convention> conventions;
  for (const std::string& name : o.conventions) {
    const auto names = name == "all" ? rank::Convention::preset_names() : std::vector{name};
    for (const std::string& preset : names) {
      rank::Convention convention = rank::Convention::preset(preset);
      const bool fits = std::all_of(set.label_span().begin(), set.label_span().end(),
                                    [&](float label) { return convention.has_gain(label); });
      if (name == "all" && !fits) {
        set.notes.push_back(preset + " is left out: its gain table lacks labels of these lists");
        continue;
      }
      convention.seed = o.seed;
      if (!o.ties.empty()) convention.ties = rank::parse_ties(o.ties);
      if (!o.empty_lists.empty()) convention.empty = rank::parse_empty_lists(o.empty_lists);
      conventions.push_back(convention);
    }
  }
  return conventions;
}

void evaluate_ranking(const Options& o) {
  std::vector<rank::Metric> metrics;
  for (const std::string& name : o.metrics) metrics.push_back(rank::Metric::parse(name));
  ListOptions lists = o.lists;
  if (o.feature < 0) {  // features do not matter
    if (lists.missing == "refuse") lists.missing = "zero";
    if (lists.out_of_range == "refuse") lists.out_of_range = "clamp";
  }
  std::vector<std::filesystem::path> inputs = list_files(lists);
  inputs.insert(inputs.end(), {o.scores, o.baseline});
  check_outputs({{"--per-query", o.per_query}}, inputs);
  data::RankingSet set = read_lists(lists, /*comments=*/true);
  const std::vector<double> scores = scores_of(set, o);
  std::vector<double> baseline;
  if (!o.baseline.empty()) baseline = data::read_scores(o.baseline, set);

  rank::Judged judged = {set.offset_span(), set.label_span(), o.largest_label};
  std::vector<int64_t> by_name;
  bool named = !set.comments.empty();
  for (int64_t i = 0; named && i < set.documents(); ++i)
    named = !data::document_name(set.comments[i]).empty();
  if (named) {
    by_name = rank::falling_names(set.documents(),
                                  [&](int64_t i) { return data::document_name(set.comments[i]); });
    judged.tie_order = by_name;
  }
  std::vector<RankingResult> results;
  for (rank::Convention convention : conventions_of(o, set)) {
    if (!named && convention.needs_names() && o.ties.empty())
      convention.ties = rank::Ties::stable;  // which the result says
    const auto of_scores = rank::evaluate(judged, scores, metrics, convention, o.lists.threads);
    const auto bounds = rank::tie_bounds(judged, scores, metrics, convention, o.lists.threads);
    std::vector<rank::Evaluation> of_baseline;
    if (!baseline.empty())
      of_baseline = rank::evaluate(judged, baseline, metrics, convention, o.lists.threads);
    for (size_t m = 0; m < metrics.size(); ++m) {
      RankingResult& result = results.emplace_back(RankingResult{of_scores[m], bounds[m], {}, {}});
      if (!of_baseline.empty()) {
        result.test = rank::paired_test(of_scores[m].each, of_baseline[m].each, o.rounds, o.seed);
        result.baseline = of_baseline[m];
      }
    }
  }
  if (!o.per_query.empty()) write_per_query(o.per_query, set, results);
  if (!o.json_lines) {
    fmt::print("{} queries, {} documents\n", set.queries(), set.documents());
    for (const std::string& note : set.notes) fmt::print("note: {}\n", note);
  }
  for (const RankingResult& result : results)
    fmt::print("{}", o.json_lines ? result_json(result) : result_lines(result));
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Measures ranked lists under the conventions of any program");
  Options o;
  add_options(command, o);
  return run_program(command, argc, argv, [&] { evaluate_ranking(o); });
}
