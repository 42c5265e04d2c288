// Scores documents with a saved ranker, however large their files are.
//
//   score_ranker --ranker ranker/ --data test.txt --scores scores.txt
//   score_ranker --ranker ranker/ --data <(zcat a.txt.gz) b.txt --scores scores.txt
#include <cmath>

#include <binade/binade.h>
#include <binade/data/letor_stream.h>
#include <binade/heads/rank/training.h>

#include "saved_ranker.h"

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options : LineOptions, SavedRankerOptions {
  std::vector<std::string> data;
  std::string scores;
  bool sparse = false;
};

void add_options(CommandLine& command, Options& o) {
  const OptionGroup files{command, "Files"};
  add_ranker_option(files, o);
  files
      .add("--data", o.data,
           "LETOR / SVMlight files or pipes, one after another; lines of a query follow each other")
      .required();
  files.add("--scores", o.scores, "Where scores go: one number a line, in the order of the lines")
      .required();
  const OptionGroup lines{command, "Lines"};
  add_line_options(lines, o);
  lines.add("--sparse", o.sparse, "The last features may be in no line, as all of them are 0");
  add_device_options(command, o);
}

void score_ranker(Options o) {
  const auto [device, preset, saved] = load_ready_ranker(o);
  const int64_t width = saved.ranker->config().features;
  number_features(o, saved);

  data::LetorStreamOptions reading{.lines = line_options(o)};
  reading.lines.features = width;
  data::LetorStream stream({o.data.begin(), o.data.end()}, reading);
  for (const std::string& file : o.data) {
    std::error_code not_there;
    check(!std::filesystem::equivalent(file, o.scores, not_there), "--scores would overwrite ",
          file);
  }
  AtomicFile file(o.scores);
  std::vector<std::string> notes;
  while (std::optional<data::RankingSet> lists = stream.next()) {
    if (stream.documents() == lists->documents()) notes = lists->notes;  // of the first block
    const rank::ResidentSet set(saved.scaling ? saved.scaling->apply(*lists) : *std::move(lists),
                                preset.compute_dtype, device);
    const int64_t before = stream.documents() - set.host().documents();
    std::string text;
    for (const double score : rank::score(*saved.ranker, set, saved.loss, preset)) {
      check(!std::isnan(score), "the score of a document of documents ", before + 1, " to ",
            stream.documents(), " is no number in ", preset.name, "; try --precision fp32");
      text += exact_number(score) + '\n';
    }
    file.write(text);
  }
  check(o.sparse || stream.features_seen() == width, "the lines have ", stream.features_seen(),
        " features, the ranker has ", width,
        "; if they leave features out that are always 0, say --sparse");
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
