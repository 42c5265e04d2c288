// Trains a small model that reads and draws: text by cross-entropy, pictures by flow matching, in
// one packed sequence (docs/unified.md).
//
//   train_bagel                                     mixture of transformers on Fashion-MNIST
//   train_bagel --architecture dense --precision fp16
//   train_bagel --preset tiny --batch-size 2 --steps 300 --ema 0.99     on two cores
//   train_bagel --data sea.jsonl                    texts and pictures of one's own
//   train_bagel --run-dir runs/a --resume           goes on where a run stopped
#include <optional>

#include <binade/binade.h>

#include "bagel/prompts.h"
#include "train_bagel/data.h"
#include "train_bagel/options.h"
#include "training/ranks.h"

using namespace binade;

namespace {

namespace flow = heads::flow;

// A contact sheet of the first prompts, and where it goes.
void draw_sheet(const flow::Artist& artist, const std::vector<data::Sample>& prompts,
                const std::filesystem::path& path) {
  create_folder(path.parent_path());
  data::write_png(path,
                  data::contact_sheet(examples::draw_pictures(artist, prompts, examples::kItemSize,
                                                              examples::kItemSize, {}),
                                      8));
}

void train_bagel(const examples::TrainBagelOptions& o, const std::string& config,
                 dist::World& ranks) {
  const Device device = examples::choose_device(o, ranks);
  const auto parallel = examples::data_parallel(o, config, ranks, device);
  const amp::Preset preset =
      examples::preset_of(static_cast<const examples::TrainingOptions&>(o), device);
  examples::set_gpu_switches(o, device);
  train::check_accumulation(o.batch_size, o.accumulation);
  train::RunFolder folder(o.run_dir, o.resume, ranks.is_first());
  folder.check_config(config, examples::may_change());

  // Pictures and texts → samples → packed rows.
  auto [model_config, layout] = examples::preset_of(o);
  const examples::Texts texts = examples::texts_of(o);
  texts.mark(layout);
  const examples::TrainBagelData learned = examples::read_data(o, layout, texts);
  model_config.vocab_size = texts.vocabulary();
  const std::vector<data::PackedSlots> validation =
      examples::validation_packs(learned.held_out, layout, o.validation_packs);

  RandomState::current().set_seed(o.seed);
  nn::MotModel model(model_config);
  if (ranks.alone()) model.to(device);
  preset.apply(model);

  // Optimizer, loss scaling, the loop.
  const auto optimizer = examples::make_placed_optimizer(
      o, model, optim::split_by_decay(model, o.weight_decay), ranks, device);
  std::optional<optim::Ema> ema;
  if (o.ema > 0)
    ema.emplace(*optimizer, optim::EmaDecay{.decay = o.ema, .kind = optim::EmaDecay::Kind::ratio});
  amp::GradScaler scaler(device, examples::scaler_options(o, preset));
  const flow::LossOptions loss{.shift = o.shift, .ce_share = o.ce_share};
  const flow::Artist artist{model, layout, device, preset};
  const train::Trainer* running = nullptr;
  train::Task task{
      .model = &model,
      .data = train::prefetched(
          [&](int64_t step) {
            return flow::step_data(data::pack_step(layout, {.rows = o.batch_size, .seed = o.seed},
                                                   step, learned.sample),
                                   o.accumulation);
          },
          {.workers = static_cast<int>(o.workers)}),
      .loss = flow::training_loss(model, loss),
      .validate =
          [&] {
            if (!learned.prompts.empty() && ranks.is_first())
              draw_sheet(
                  artist, learned.prompts,
                  folder.path() / "drawings" / concat("step-", running->steps_done(), ".png"));
            return flow::validate(model, validation, loss, device, preset);
          },
      .data_fingerprint = learned.fingerprint};
  train::TrainerOptions loop = examples::trainer_options(o, parallel.get());
  loop.unit = "slots";
  train::Trainer trainer(task, *optimizer, scaler, preset, folder, loop, ema ? &*ema : nullptr);
  running = &trainer;
  examples::resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  examples::say("{}, {} parameters; {}; rows of {} + {} slots; {} on {}\n",
                nn::name_of(model_config.block.experts), model.parameter_count(),
                learned.fingerprint, layout.understanding, layout.generation, preset.name,
                concat(device));
  if (!o.save.empty() && ranks.is_first()) create_folder(o.save);
  folder.set_config(config);
  folder.write_manifest(examples::manifest(device));
  const train::Trainer::Outcome outcome = trainer.run();
  folder.write_manifest(examples::manifest(device));
  examples::say("{}; everything is in {}\n", examples::summary(outcome, finished, "slots"),
                o.run_dir);
  if (outcome.stopped || !ranks.is_first() || o.save.empty()) return;
  if (ema) ema->swap();
  nn::save_mot(model, o.save);
  texts.save(o.save);
  examples::say("saved {}\n", o.save);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::TrainBagelOptions>(
      "Trains a small model that reads and draws, on Fashion-MNIST in eight colours", argc, argv,
      train_bagel);
}
