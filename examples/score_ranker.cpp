// Scores documents with a saved ranker, however large their files are.
//
//   score_ranker --ranker ranker/ --data test.txt --scores scores.txt
//   score_ranker --ranker ranker/ --data <(zcat a.txt.gz) b.txt --scores scores.txt
#include <cmath>

#include <binade/binade.h>
#include <binade/data/letor_stream.h>
#include <binade/heads/rank/files.h>
#include <binade/heads/rank/training.h>

#include "device.h"
#include "ranked_lists.h"

using namespace binade;
using namespace binade::examples;
namespace rank = heads::rank;

namespace {

struct Options : LineOptions {
  std::vector<std::string> data;
  std::string ranker, scores, device = "auto", precision;
  bool sparse = false;
};

void add_options(CLI::App& app, Options& o) {
  prepare(app);
  const OptionGroup files{app, "Files"};
  files.add("--ranker", o.ranker, "Folder of a ranker, as train_ranker --save writes it")
      ->required();
  files
      .add("--data", o.data,
           "LETOR / SVMlight files or pipes, one after another; lines of a query follow each other")
      ->required();
  files.add("--scores", o.scores, "Where scores go: one number a line, in the order of the lines")
      ->required();
  const OptionGroup lines{app, "Lines"};
  add_line_options(lines, o);
  lines.flag("--sparse", o.sparse, "The last features may be in no line, as all of them are 0");
  const OptionGroup device{app, "Precision and device"};
  device.add("--device", o.device, "auto (a GPU where one is usable), cpu, cuda or cuda:N");
  device.add("--precision", o.precision,
             "fp32, fp16, fp16-autocast or bf16; default: fp32 on a CPU, fp16 on a GPU");
}

void score_ranker(const Options& o) {
  const Device device = choose_device(o.device);
  const amp::Preset preset =
      o.precision.empty() ? amp::Preset::default_for(device) : amp::Preset::parse(o.precision);
  const rank::SavedRanker saved = rank::load_ranker(o.ranker);
  const int64_t width = saved.ranker->config().features;
  saved.ranker->to(device);
  preset.apply(*saved.ranker);

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
  CLI::App app("Scores documents with a saved ranker, in constant memory");
  Options o;
  add_options(app, o);
  return run_program(app, argc, argv, [&] { score_ranker(o); });
}
