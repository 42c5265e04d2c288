// Trains a decoder-only transformer (GPT-2 or Llama family) on text, in mixed precision.
//
//   train_gpt                                   a small GPT on this machine's C and C++ headers
//   train_gpt --text book.txt --precision fp16  FP16 with FP32 masters and dynamic loss scaling
//   train_gpt --init DIR --text notes/          fine-tunes a Hugging Face model
//   train_gpt --init DIR --chats chats.jsonl    fine-tunes it on conversations
//   train_gpt --run-dir runs/a --resume         goes on where a run stopped
#include <filesystem>

#include <binade/binade.h>

#include "train_gpt/data.h"
#include "train_gpt/mtp.h"
#include "train_gpt/options.h"
#include "train_gpt/setup.h"
#include "training/ranks.h"

using namespace binade;

namespace {

void train_gpt(const examples::TrainGptOptions& o, const std::string& config, dist::World& world) {
  const Device device = examples::choose_device(o, world);
  const auto parallel = examples::data_parallel(o, config, world, device);
  const amp::Preset preset = examples::preset_of(o, device);
  examples::set_gpu_switches(o, device);
  train::RunFolder folder(o.run_dir, o.resume, world.is_first());
  folder.check_config(config, examples::kMayChange);

  // Text → tokens → windows, or conversations → packed rows.
  const auto tokenizer = examples::prepare_tokenizer(o, folder.path());
  const auto data = examples::prepare_data(o, *tokenizer);

  // Model, in the preset's precision.
  const std::shared_ptr<nn::CausalLm> model =
      examples::make_model(o, *tokenizer, data->vocabulary());
  std::optional<nn::Lora> lora;
  if (o.lora_rank > 0)
    lora.emplace(*model, nn::LoraOptions{.rank = o.lora_rank,
                                         .alpha = o.lora_alpha,
                                         .dropout = o.lora_dropout,
                                         .target_modules = o.lora_targets});
  const Recompute recompute = examples::recompute_choice(o, model->config().family, device);
  model->set_recompute(recompute);
  std::optional<examples::MtpTraining> mtp;  // beside the next token
  if (!o.mtp.empty()) mtp.emplace(o, model, recompute);
  nn::Module& trained = mtp ? mtp->module() : *model;
  if (world.alone()) trained.to(device);
  if (!o.init.empty()) nn::warn_about_range(*model, preset.parameter_dtype);
  preset.apply(trained);

  // Optimizer, loss scaling, the loop.
  const auto optimizer = examples::make_placed_optimizer(
      o, trained, optim::split_by_decay(trained, o.weight_decay), world, device);
  std::optional<optim::Ema> ema;
  if (o.ema > 0) ema.emplace(*optimizer, o.ema);
  amp::GradScaler scaler(device, examples::scaler_options(o, preset));
  train::Task task{.model = &trained,
                   .data = data->batches(device),
                   .loss = data->loss(*model, preset),
                   .validate = data->validation(*model, preset, parallel.get()),
                   .data_fingerprint = data->fingerprint()};
  if (mtp) {
    task.data = mtp->data(task.data);
    task.loss = mtp->loss();
  }
  world.require_same("data", task.data_fingerprint);
  train::Trainer trainer(task, *optimizer, scaler, preset, folder,
                         examples::trainer_options(o, parallel.get()), ema ? &*ema : nullptr);
  examples::resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  examples::say("{} parameters ({} trained), {}; {} on {}\n", trained.parameter_count(),
                examples::trained_count(*optimizer), data->summary(), preset.name, concat(device));

  if (!o.save_hf.empty() && world.is_first())
    create_folder(o.save_hf);  // not only after hours of training
  // Bad input was refused by now: from here on the folder holds a run.
  if (folder.writes() && !folder.has_run()) {
    tokenizer->save(folder.path() / "tokenizer");
    folder.write_text("model.json", model->config().to_json(DType::f32));
    folder.write_text("generation_config.json", model->config().generation_json());
  }
  folder.set_config(config);
  folder.write_manifest(examples::manifest(device));
  const train::Trainer::Outcome outcome = trainer.run();

  folder.write_manifest(examples::manifest(device));  // now with the algorithms that were chosen
  examples::say("{}; everything is in {}\n", examples::summary(outcome, finished), o.run_dir);
  if (outcome.stopped || !world.is_first()) return;  // the rest is for one rank
  trained.eval();
  if (ema) ema->swap();  // what was validated is what writes the sample and is saved
  if (o.sample_tokens > 0) examples::write_sample(o, *model, *tokenizer, preset, folder);
  if (!o.save_hf.empty()) {
    if (lora) {
      lora->save(o.save_hf, o.init);
    } else {
      nn::save_hf(*model, o.save_hf);
    }
    tokenizer->save(o.save_hf);
    examples::say("saved {}\n", o.save_hf);
  }
  if (mtp && !o.save_mtp.empty()) mtp->save(o);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::TrainGptOptions>(
      "Trains a GPT-2 or Llama-family model on text, in mixed precision", argc, argv, train_gpt);
}
