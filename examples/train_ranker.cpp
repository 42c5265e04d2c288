// Trains a neural ranker on lists of documents with graded labels.
//
//   train_ranker --train S1.txt S2.txt S3.txt --valid S4.txt --test S5.txt --save ranker/
//   train_ranker --fold Fold1 --loss listnet --model attention --precision fp16
//   train_ranker --run-dir runs/a --resume            goes on where a run stopped
#include <algorithm>
#include <cmath>

#include <binade/binade.h>
#include <binade/data/ranking_scores.h>

#include "train_ranker/options.h"
#include "train_ranker/setup.h"
#include "training/ranks.h"

using namespace binade;

namespace {

namespace rank = heads::rank;

// Metrics of the ranker on a set, with their convention; the scores are written where asked.
void judge(const examples::TrainRankerOptions& o, const rank::Ranker& ranker,
           const rank::ResidentSet& set, const rank::LossSpec& loss, const amp::Preset& preset,
           const rank::JudgeOptions& judging) {
  const std::vector<double> scores = rank::score(ranker, set, loss, preset);
  check(std::none_of(scores.begin(), scores.end(), [](double s) { return std::isnan(s); }),
        "the ranker's scores are NaN: training diverged; lower --learning-rate, or --clip");
  const rank::Judged lists{set.host().offset_span(), set.host().label_span()};
  for (const rank::Evaluation& one :
       rank::evaluate(lists, scores, judging.metrics, judging.convention))
    examples::say("test {}\n", one.describe());
  if (!o.test_scores.empty()) data::write_scores(o.test_scores, set.host(), scores);
}

void train_ranker(examples::TrainRankerOptions& o, const std::string& config, dist::World& world) {
  const Device device = examples::choose_device(o, world);
  const amp::Preset preset = examples::preset_of(o, device);
  examples::set_gpu_switches(o, device);
  examples::check_names(o);
  const rank::JudgeOptions judging = examples::judge_of(o);
  const auto parallel = examples::data_parallel(o, config, world, device);
  train::RunFolder folder(o.run_dir, o.resume, world.is_first());
  folder.check_config(config, examples::may_change());

  // Files → scaled features on the device; the ranker.
  examples::RankingFiles files = examples::read_files(o);
  examples::check_judged(files, judging);
  const rank::SavedRanker made = examples::make_ranker(o, files.train);
  const std::shared_ptr<rank::Ranker> ranker = made.ranker;
  const std::vector<std::string> notes = files.train.notes;
  // Takes a set over, so that features are in memory once.
  const auto resident = [&](data::RankingSet& set, const Array& weights = {},
                            const Array& list_weights = {}) {
    data::RankingSet scaled = made.scaling ? made.scaling->apply(set) : set;
    set = {};
    return std::make_shared<const rank::ResidentSet>(std::move(scaled), preset.compute_dtype,
                                                     device, weights, list_weights);
  };
  const auto train_set = resident(files.train, files.weights, files.list_weights);
  const auto valid_set = files.valid ? resident(*files.valid) : nullptr;
  const rank::ListBatches batches(
      train_set, made.loss,
      {.lists = o.batch_size,
       .accumulation = o.accumulation,
       .seed = o.seed,
       .list_numbers = ranker->config().attends() || ranker->config().has_batch_norm()});
  if (o.epochs > 0)
    o.steps = std::max<int64_t>(
        1, std::llround(o.epochs * static_cast<double>(batches.steps_per_epoch())));
  if (world.alone()) ranker->to(device);
  preset.apply(*ranker);

  // Optimizer, loss scaling, the loop.
  const auto optimizer = examples::make_placed_optimizer(
      o, *ranker, optim::split_by_decay(*ranker, o.weight_decay), world, device);
  std::optional<optim::Ema> ema;
  if (o.ema > 0) ema.emplace(*optimizer, o.ema, ranker->named_buffers());
  amp::GradScaler scaler(device, examples::scaler_options(o, preset));
  train::Task task{.model = ranker.get(),
                   .data = batches,
                   .loss = rank::ranking_loss(*ranker, train_set, made.loss),
                   .validate = {},
                   .data_fingerprint = train_set->fingerprint()};
  if (valid_set)
    task.validate = [&] {
      return rank::validate(*ranker, *valid_set, made.loss, preset, judging, parallel.get());
    };
  world.require_same("data", task.data_fingerprint);
  train::TrainerOptions loop = examples::trainer_options(o, parallel.get());
  loop.unit = "documents";
  loop.patience = valid_set ? o.patience : 0;
  loop.validate_first = !o.init.empty();  // so that nothing worse takes its place unsaid
  train::Trainer trainer(task, *optimizer, scaler, preset, folder, loop, ema ? &*ema : nullptr);
  examples::resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  if (!o.save.empty() && world.is_first()) create_folder(o.save);
  for (const std::string& note : notes) examples::say("{}\n", note);
  examples::say(
      "{} ranker, {} parameters, loss {}; {} of {} lists, {} documents of {} features; "
      "{} on {}\n",
      rank::name_of(ranker->config().kind), ranker->parameter_count(), made.loss.text(),
      batches.usable_lists(), train_set->lists(), train_set->host().documents(),
      ranker->config().features, preset.name, concat(device));
  folder.set_config(config);
  folder.write_manifest(examples::manifest(device));
  const train::Trainer::Outcome outcome = trainer.run();
  folder.write_manifest(examples::manifest(device));  // now with the algorithms that were chosen
  examples::say("{}; everything is in {}\n", examples::summary(outcome, finished, "documents"),
                o.run_dir);
  if (outcome.stopped || !world.is_first()) return;  // the rest is for one rank

  // The best by validation is what is tested and saved.
  const bool best = valid_set && trainer.load_best();
  if (ema) ema->swap();
  ranker->eval();
  if (best && outcome.best)
    examples::say(
        "best validation: {} {:.4f} ({}){}\n", outcome.best->name, outcome.best->shown,
        judging.convention.name,
        outcome.best->step == 0 ? ": the ranker of --init, which training did not improve" : "");
  if (files.test) judge(o, *ranker, *resident(*files.test), made.loss, preset, judging);
  if (o.save.empty()) return;
  rank::save_ranker(o.save, *ranker, made.loss, made.scaling, made.first_feature);
  rank::load_ranker(o.save);  // what was written can be read back
  examples::say("saved {}\n", o.save);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::TrainRankerOptions>(
      "Trains a neural ranker on lists of documents with graded labels", argc, argv, train_ranker);
}
