// How much a ranker relies on each feature: what a metric of labelled lists loses when the
// feature's values change places between documents.
//
//   feature_importance --ranker ranker/ --data test.txt --metric ndcg@10 --convention skip
//   feature_importance --ranker ranker/ --data test.txt --within-lists --output importance.tsv
#include <nlohmann/json.hpp>

#include <binade/binade.h>
#include <binade/heads/rank/importance.h>

#include "output_files.h"
#include "saved_ranker.h"

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options : SavedRankerOptions {
  ListOptions lists;
  rank::ImportanceOptions importance;
  std::string metric = "ndcg@10", convention = "skip", output;
  bool sparse = false;
};

void add_options(CommandLine& command, Options& o) {
  add_ranker_option(OptionGroup{command, "Files"}, o);
  add_list_options(command, o.lists);
  add_sparse_option(OptionGroup{command, "Lists"}, o.sparse);
  const OptionGroup importance{command, "Importance"};
  importance.add("--metric", o.metric,
                 "ndcg@K, map@K, mrr@K, err@K, p@K, arp; without @K: the list");
  importance.add("--convention", o.convention, convention_help(/*named=*/false));
  importance.add("--repeats", o.importance.repeats, "Permutations of every feature")
      .range(int64_t{1}, int64_t{1} << 20);
  importance.add("--within-lists", o.importance.within_lists,
                 "Values change places within each list, not between all documents");
  importance.add("--seed", o.importance.seed, "Of the permutations");
  importance.add("--output", o.output,
                 "Write every permutation's drop to this .tsv or .jsonl file");
  add_device_options(command, o);
}

std::string table(const rank::Importance& found, bool json_lines) {
  std::string text = json_lines ? "" : "feature\tdrop\tdeviation\tconstant\tdrops\n";
  for (const rank::FeatureImportance& one : found.features) {
    if (json_lines) {
      const nlohmann::ordered_json json = {{"feature", one.feature},
                                           {"drop", one.drop},
                                           {"deviation", one.deviation},
                                           {"constant", one.constant},
                                           {"drops", one.drops}};
      text += json.dump() + '\n';
      continue;
    }
    text += concat(one.feature, '\t', exact_number(one.drop), '\t', exact_number(one.deviation),
                   '\t', one.constant ? 1 : 0, '\t');
    for (size_t i = 0; i < one.drops.size(); ++i)
      text += (i > 0 ? "," : "") + exact_number(one.drops[i]);
    text += '\n';
  }
  return text;
}

void feature_importance(Options o) {
  const bool json_lines = o.output.ends_with(".jsonl");
  check(o.output.empty() || json_lines || o.output.ends_with(".tsv"),
        "--output is a .tsv or a .jsonl file, got ", o.output);
  o.importance.metric = rank::Metric::parse(o.metric);
  o.importance.convention = rank::Convention::preset(o.convention);
  std::vector<std::filesystem::path> inputs = list_files(o.lists);
  for (const auto& file : rank::ranker_files(o.ranker)) inputs.push_back(file);
  check_outputs({{"--output", o.output}}, inputs);
  const ReadyRanker ready = load_ready_ranker(o);
  number_features(o.lists, ready.saved);
  const int64_t width = ready.saved.ranker->config().features;
  if (o.sparse) o.lists.features = width;
  const data::RankingSet set = read_lists(o.lists);
  check_all_features(set.feature_count(), width);
  const rank::Importance found =
      rank::permutation_importance(ready.saved, set, ready.preset, o.importance);
  if (!o.output.empty()) write_text_file(o.output, table(found, json_lines));
  for (const std::string& note : set.notes) say("note: {}\n", note);
  say("{}\n", found.baseline.describe());
  say("drop of the mean and its deviation, {} permutations {}:\n", o.importance.repeats,
      o.importance.within_lists ? "within lists" : "of all documents");
  for (const rank::FeatureImportance& one : found.features)
    say("{:7}  {:+.4f} ± {:.4f}{}\n", one.feature, one.drop, one.deviation,
        one.constant ? "  constant" : "");
  if (!o.output.empty()) say("wrote {}\n", o.output);
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Finds which features of labelled lists a saved ranker relies on");
  Options o;
  add_options(command, o);
  return run_program(command, argc, argv, [&] { feature_importance(o); });
}
