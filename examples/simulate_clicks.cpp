// Simulates users who click on lists as a weak ranker shows them, and writes the log as lists whose
// labels are clicks, with weights that undo the bias of ranks.
//
//   simulate_clicks --data train.txt --logging-scores weak.txt --output clicks.txt
//   simulate_clicks --data train.txt --logging-feature 9 --swaps 0.1 --propensities em --output c
//
// Beside the log lie OUTPUT.weights, a number for each of its lines, OUTPUT.positions, the ranks at
// which users saw them, and OUTPUT.list-weights, the number of clicks of each session.
#include "ranked_lists.h"
#include "simulate_clicks/click_files.h"

#include <binade/data/feature_scaling.h>
#include <binade/data/ranking_scores.h>
#include <binade/heads/rank/clicks.h>

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options {
  ListOptions lists;
  std::string logging_scores, output, model, propensities, scaling;
  int64_t logging_feature = -1;
  rank::ClickOptions clicks;
  rank::EmOptions em;
  double largest_weight = 0;
};

void add_options(CommandLine& command, Options& o) {
  o.model = "position";
  o.propensities = "true";
  o.scaling = "log1p,zscore";
  add_list_options(command, o.lists);
  const OptionGroup users{command, "Users"};
  users.add("--logging-scores", o.logging_scores,
            "Scores that lists were shown by: one number a line, in the order of the documents");
  users.add("--logging-feature", o.logging_feature, "… or this feature, by its number in the files")
      .range(int64_t{0}, kMostFeatures);
  users
      .add(
          "--model", o.model,
          "position: rank r is examined with probability 1/r^eta; cascade: from the top to a click")
      .one_of({"position", "cascade"});
  users.add("--eta", o.clicks.model.eta, "Of the position model");
  users.add("--noise", o.clicks.model.noise, "Probability of a click on an irrelevant document");
  users.add("--stop", o.clicks.model.stop, "Probability that a click ends a cascade");
  users.add("--patience", o.clicks.model.patience,
            "Probability that a cascade goes on without a click");
  users.add("--largest-label", o.clicks.model.largest_label,
            "The data set's; 0: that of these lists");
  users.add("--shown", o.clicks.shown, "Ranks that users see");
  users.add("--sessions", o.clicks.sessions, "Sessions of every list");
  users.add("--swaps", o.clicks.swap_share,
            "Share of sessions in which rank 1 and another one may change places");
  users.add("--seed", o.clicks.seed, "Of users");
  const OptionGroup log{command, "Log"};
  log.add("--output", o.output, "File for the sessions, in lines of LETOR").required();
  log.add("--propensities", o.propensities,
          "What weights are the inverse of: true (the position model's), swaps, em, regression-em "
          "(estimates from the log) or none")
      .one_of({"true", "swaps", "em", "regression-em", "none"});
  log.add("--largest-weight", o.largest_weight, "Larger weights are cut to this one; 0: not")
      .rate();
  log.add("--iterations", o.em.iterations, "Of em and regression-em");
  log.add("--ridge", o.em.ridge, "L2 penalty of regression-em");
  log.add("--scaling", o.scaling, "How features are scaled for regression-em");
}

std::vector<double> logging_scores(const data::RankingSet& set, const Options& o) {
  check(o.logging_scores.empty() != (o.logging_feature < 0),
        "give either --logging-scores or --logging-feature");
  if (!o.logging_scores.empty()) return data::read_scores(o.logging_scores, set);
  return feature_scores(set, o.logging_feature);
}

// Examination of every rank relative to the first, by what was chosen.
std::vector<double> propensities_of(const data::RankingSet& set, const rank::ClickLog& log,
                                    const Options& o) {
  if (o.propensities == "swaps") return rank::swap_propensities(log);
  if (o.propensities == "em") return rank::em_propensities(log, o.em);
  if (o.propensities == "regression-em") {
    const auto steps = data::FeatureScalingOptions::parse(o.scaling);
    const data::RankingSet scaled = data::FeatureScaling::fit(set, steps).apply(set);
    return rank::regression_em_propensities(log, scaled.feature_span(), scaled.feature_count(),
                                            o.em);
  }
  std::vector<double> propensities(static_cast<size_t>(log.shown), 1.0);
  if (o.propensities == "true")
    for (int64_t r = 1; r <= log.shown; ++r) propensities[r - 1] = o.clicks.model.examination(r);
  return propensities;
}

void simulate_clicks(Options o) {
  const bool cascade = o.model == "cascade";
  check(!cascade || o.propensities != "true",
        "a cascade has no true propensity of a rank; choose other --propensities");
  if (cascade) o.clicks.model.kind = rank::ClickModel::Kind::cascade;
  std::vector<std::filesystem::path> inputs = list_files(o.lists);
  inputs.emplace_back(o.logging_scores);
  check_outputs(click_files(o.output), inputs);
  const data::RankingSet set = read_lists(o.lists, /*comments=*/true);
  // Ranks that no list has would only be lines of a table.
  int64_t longest = 1;
  for (int64_t q = 0; q < set.queries(); ++q)
    longest = std::max(longest, set.offset_span()[q + 1] - set.offset_span()[q]);
  o.clicks.shown = std::min(o.clicks.shown, longest);
  const rank::Judged judged = {set.offset_span(), set.label_span()};
  const rank::ClickLog log = rank::simulate_clicks(judged, logging_scores(set, o), o.clicks);
  const std::vector<double> propensities = propensities_of(set, log, o);
  const auto unknown = write_click_files(o.output, set, log, propensities, o.largest_weight);

  const auto clicks = std::count(log.clicks.begin(), log.clicks.end(), 1);
  say("{} sessions of {} lists, {} clicks on {} documents shown\n", log.sessions(), set.queries(),
      clicks, log.documents.size());
  say("rank  click rate  {}propensity ({})\n", cascade ? "" : "examined  ", o.propensities);
  const auto rates = rank::click_rates(log);
  for (int64_t r = 1; r <= log.shown; ++r) {
    const std::string examined =
        cascade ? "" : fmt::format("{:8.4f}  ", o.clicks.model.examination(r));
    say("{:4}  {:10.4f}  {}{:.4f}\n", r, rates[r - 1], examined, propensities[r - 1]);
  }
  if (unknown > 0)
    say("{} documents were shown at ranks of unknown propensity; their weight is 0\n", unknown);
  say("wrote {}, {}.weights, {}.list-weights and {}.positions\n", o.output, o.output, o.output,
      o.output);
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Simulates clicks on ranked lists, and undoes the bias of ranks");
  Options o;
  add_options(command, o);
  return run_program(command, argc, argv, [&] { simulate_clicks(o); });
}
