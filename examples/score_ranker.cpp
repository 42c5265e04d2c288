// Scores documents with a saved ranker, or with several, however large their files are.
//
//   score_ranker --ranker ranker/ --data test.txt --scores scores.txt
//   score_ranker --ranker seed-1/ seed-2/ seed-3/ --data test.txt --scores scores.txt
//   score_ranker --ranker ranker/ --data <(zcat a.txt.gz) b.txt --scores scores.txt
#include <cmath>
#include <deque>

#include <binade/binade.h>
#include <binade/data/letor_stream.h>
#include <binade/heads/rank/training.h>

#include "output_files.h"
#include "saved_ranker.h"

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options : LineOptions, SavedRankerOptions {
  std::vector<std::string> rankers, data;
  std::string scores;
  bool sparse = false;
};

void add_options(CommandLine& command, Options& o) {
  const OptionGroup files{command, "Files"};
  files
      .add("--ranker", o.rankers,
           "Folder of a ranker, as train_ranker --save writes it; of several, the mean of their "
           "scores")
      .required();
  files
      .add("--data", o.data,
           "LETOR / SVMlight files or pipes, one after another; lines of a query follow each other")
      .required();
  files.add("--scores", o.scores, "Where scores go: one number a line, in the order of the lines")
      .required();
  const OptionGroup lines{command, "Lines"};
  add_line_options(lines, o);
  add_sparse_option(lines, o.sparse);
  add_device_options(command, o);
}

// Rankers that all learned from the same features.
std::vector<ReadyRanker> load_rankers(const Options& o) {
  std::vector<ReadyRanker> rankers;
  std::optional<int> numbered;
  for (const std::string& folder : o.rankers) {
    SavedRankerOptions one = o;
    one.ranker = folder;
    rankers.push_back(load_ready_ranker(one));
    const rank::SavedRanker &first = rankers[0].saved, &saved = rankers.back().saved;
    const int64_t width = saved.ranker->config().features;
    check(width == first.ranker->config().features, "the ranker in ", folder, " has ", width,
          " features, that in ", o.rankers[0], " has ", first.ranker->config().features);
    if (!numbered) numbered = saved.first_feature;
    check(!saved.first_feature || saved.first_feature == numbered, "the ranker in ", folder,
          " numbers its features from another number than the rankers before it");
  }
  return rankers;
}

// The mean of the rankers' scores.
std::vector<double> mean_scores(const std::vector<ReadyRanker>& rankers,
                                const data::RankingSet& lists) {
  std::vector<double> sums(static_cast<size_t>(lists.documents()));
  // Rankers of several seeds scale alike.
  std::deque<std::pair<std::optional<data::FeatureScaling>, rank::ResidentSet>> scaled;
  const auto scaled_for = [&](const ReadyRanker& one) -> const rank::ResidentSet& {
    const std::optional<data::FeatureScaling>& scaling = one.saved.scaling;
    for (const auto& [as, set] : scaled)
      if (as == scaling) return set;
    return scaled
        .emplace_back(scaling, rank::ResidentSet(scaling ? scaling->apply(lists) : lists,
                                                 one.preset.compute_dtype, one.device))
        .second;
  };
  for (const ReadyRanker& one : rankers) {
    const std::vector<double> scores =
        rank::score(*one.saved.ranker, scaled_for(one), one.saved.loss, one.preset);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += scores[i];
  }
  for (double& sum : sums) sum /= static_cast<double>(rankers.size());
  return sums;
}

void score_ranker(Options o) {
  const std::vector<ReadyRanker> rankers = load_rankers(o);
  const int64_t width = rankers[0].saved.ranker->config().features;
  for (const ReadyRanker& one : rankers) number_features(o, one.saved);

  data::LetorStreamOptions reading{.lines = line_options(o)};
  reading.lines.features = width;
  data::LetorStream stream({o.data.begin(), o.data.end()}, reading);
  std::vector<std::filesystem::path> inputs(o.data.begin(), o.data.end());
  for (const std::string& folder : o.rankers)
    for (const auto& file : rank::ranker_files(folder)) inputs.push_back(file);
  check_outputs({{"--scores", o.scores}}, inputs);
  AtomicFile file(o.scores);
  std::vector<std::string> notes;
  while (std::optional<data::RankingSet> lists = stream.next()) {
    if (stream.documents() == lists->documents()) notes = lists->notes;  // of the first block
    const int64_t before = stream.documents() - lists->documents();
    std::string text;
    for (const double score : mean_scores(rankers, *lists)) {
      check(!std::isnan(score), "the score of a document of documents ", before + 1, " to ",
            stream.documents(), " is no number in ", rankers[0].preset.name,
            "; try --precision fp32");
      text += exact_number(score) + '\n';
    }
    file.write(text);
  }
  if (!o.sparse) check_all_features(stream.features_seen(), width);
  file.commit();
  for (const std::string& note : notes) say("note: {}\n", note);
  say("scored {} documents of {} lists\n", stream.documents(), stream.queries());
}

}  // namespace

int main(int argc, char** argv) {
  CommandLine command("Scores documents with a saved ranker, in constant memory");
  Options o;
  add_options(command, o);
  return run_program(command, argc, argv, [&] { score_ranker(o); });
}
