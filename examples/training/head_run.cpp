#include "head_run.h"

#include "documents.h"

#include <binade/heads/decoding/base_weights.h>
#include <binade/train/progress.h>

#include <algorithm>
#include <cmath>

namespace binade::examples {

namespace {

// `before`: the model's own loss before it was trained.
void print_accuracy(const heads::decoding::HeadAccuracy& accuracy, std::optional<double> before) {
  if (accuracy.main_loss)
    say("the model's own next token: loss {:.4f}, perplexity {:.3f}\n", *accuracy.main_loss,
        std::exp(*accuracy.main_loss));
  if (accuracy.main_loss && before)
    say("before training: loss {:.4f}, perplexity {:.3f}; it changed by {:+.2f} %\n", *before,
        std::exp(*before), 100 * std::expm1(*accuracy.main_loss - *before));
  say("{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n", "head", "loss", "top-1", "top-2", "top-3", "top-4",
      "top-5");
  for (size_t k = 0; k < accuracy.loss.size(); ++k)
    say("{:<8}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}\n", k + 1, accuracy.loss[k],
        accuracy.top[k][0], accuracy.top[k][1], accuracy.top[k][2], accuracy.top[k][3],
        accuracy.top[k][4]);
  say("a chain of their likeliest tokens would give {:.2f} tokens a pass\n",
      accuracy.tokens_per_pass);
}

}  // namespace

HeadRun::HeadRun(HeadTrainingOptions& options, std::string config, dist::World& world)
    : options_(options),
      config_(std::move(config)),
      world_(world),
      device_(choose_device(options, world)),
      parallel_(data_parallel(options, config_, world, device_)),
      preset_(preset_of(options, device_)),
      folder_((check(!options.model.empty(), "give the language model's folder as --model"),
               options.run_dir),
              options.resume, world.is_first()) {
  set_gpu_switches(options, device_);
  folder_.check_config(config_, kMayChange);
  tokenizer_ = data::load_tokenizer(options.tokenizer.empty() ? options.model : options.tokenizer);
  model_ = nn::load_hf(options.model, {.vocabulary_multiple = 64});
  base_fingerprint_ = heads::decoding::weights_fingerprint(*model_);
  world.require_same("model files", concat("weights with CRC-32C ", base_fingerprint_));
  nn::check_vocabulary(*model_, tokenizer_->vocab_size());
  check(options.seq_len <= model_->config().max_positions, "--seq-len ", options.seq_len,
        " is beyond the model's ", model_->config().max_positions, " positions");
  const Documents documents = make_documents(
      {.chats = options.chats,
       .template_folder = options.chat_template.empty() ? options.model : options.chat_template,
       .skip_bad = options.skip_bad,
       .text = options.text,
       .validation_fraction = options.validation_fraction,
       .packing = {.batch_size = options.batch_size,
                   .seq_len = options.seq_len,
                   .pack = options.pack,
                   .seed = options.seed}},
      *tokenizer_);
  documents_ = documents.train;
  held_out_ = documents.validation;
  RandomState::current().set_seed(options.seed);
}

DType HeadRun::save_dtype() const {
  if (options_.save_dtype == "fp32") return DType::f32;
  return options_.save_dtype == "bf16" ? DType::bf16 : DType::f16;
}

int64_t HeadRun::steps() const {
  if (options_.epochs == 0) return options_.steps;
  const double steps = options_.epochs * static_cast<double>(documents_->steps_per_epoch());
  return std::max<int64_t>(std::llround(steps), 1);
}

std::vector<optim::ParameterGroup> HeadRun::groups(const nn::Module& heads) const {
  std::vector<optim::ParameterGroup> all = optim::split_by_decay(heads, options_.weight_decay);
  if (!options_.joint) return all;
  for (optim::ParameterGroup& group : optim::split_by_decay(*model_, options_.weight_decay)) {
    group.lr_factor = options_.model_lr;
    all.push_back(std::move(group));
  }
  return all;
}

void HeadRun::save_model() const {
  if (options_.save_model.empty()) return;
  nn::save_hf(*model_, options_.save_model);
  tokenizer_->save(options_.save_model);
  say("saved {}\n", options_.save_model);
}

std::shared_ptr<const heads::decoding::HiddenCache> HeadRun::hidden_cache(
    const heads::decoding::CachedStates& states, int64_t ahead) const {
  const std::string& path = options_.hidden_cache;
  if (path.empty()) return nullptr;
  world_.first_alone([&] {
    if (std::filesystem::exists(path)) return;
    train::ProgressLine line;
    heads::decoding::write_hidden_cache(
        path, *model_, states, base_fingerprint_, *documents_, preset_,
        {.ahead = ahead,
         .announce =
             [&](uint64_t bytes) {
               say("writing {}: {:.3f} GiB of {}\n", path,
                   static_cast<double>(bytes) / 1073741824.0, states.what);
             },
         .progress =
             [&](int64_t row, int64_t rows) {
               if (!options_.quiet)
                 line.update(fmt::format("states of {}/{} rows", row, rows), row == rows);
             }});
  });
  auto cache = std::make_shared<const heads::decoding::HiddenCache>(path, states, base_fingerprint_,
                                                                    *documents_, ahead);
  say("{} positions of {} are in {}\n", cache->positions(), states.what, path);
  return cache;
}

void HeadRun::place(nn::Module& module) const {
  if (!parallel_) module.to(device_);
  preset_.apply(module);
  const auto trainable = [](const nn::NamedParameter& one) { return one.parameter->trainable(); };
  // Whole parts of which nothing is trained, as nobody else moves their buffers.
  for (const auto& [name, part] : module.named_modules()) {
    const std::vector<nn::NamedParameter> parameters = part->named_parameters();
    if (std::none_of(parameters.begin(), parameters.end(), trainable)) part->to(device_);
  }
  for (const nn::NamedParameter& one : module.named_parameters())
    if (!trainable(one)) one.parameter->to(device_);
}

bool HeadRun::train(const HeadTask& head_task) {
  HeadTrainingOptions& o = options_;
  const auto optimizer =
      make_placed_optimizer(o, *head_task.module, head_task.groups, world_, device_);
  amp::GradScaler scaler(device_, scaler_options(o, preset_));
  train::Task task{
      .model = head_task.module,
      .data = head_task.data,
      .loss = head_task.loss,
      .validate = {},
      .data_fingerprint = documents_->fingerprint() + (o.pack ? "" : ", each in a row")};
  if (held_out_)
    task.validate = [&] {
      return heads::decoding::validation_of(head_task.accuracy(*held_out_, parallel_.get()),
                                            head_task.coefficients);
    };
  // What training does to the model is told by the same documents.
  std::optional<double> before;
  if (o.joint && held_out_) {
    head_task.module->eval();
    before = head_task.accuracy(*held_out_, parallel_.get()).main_loss;
  }
  o.steps = steps();
  std::optional<optim::Ema> ema;
  if (o.ema > 0) ema.emplace(*optimizer, o.ema);
  world_.require_same("data", task.data_fingerprint);
  train::Trainer trainer(task, *optimizer, scaler, preset_, folder_,
                         trainer_options(o, parallel_.get()), ema ? &*ema : nullptr);
  resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  say("{}, {} parameters trained; {} documents in {} rows of {}, {} labels; {} on {}\n",
      head_task.what, trained_count(*optimizer), documents_->document_count(),
      documents_->row_count(), o.seq_len, documents_->reply_tokens(), preset_.name,
      concat(device_));
  if (documents_->cut_documents() > 0)
    say("{} documents were cut at {} tokens\n", documents_->cut_documents(), o.seq_len);

  if (!o.save.empty() && world_.is_first())
    create_folder(o.save);  // not only after hours of training
  folder_.set_config(config_);
  folder_.write_manifest(manifest(device_));
  const train::Trainer::Outcome outcome = trainer.run();
  folder_.write_manifest(manifest(device_));  // now with the algorithms that were chosen
  say("{}; everything is in {}\n", summary(outcome, finished), o.run_dir);
  if (outcome.stopped) return false;
  head_task.module->eval();
  if (ema) ema->swap();  // what was validated is what is saved
  if (held_out_) print_accuracy(head_task.accuracy(*held_out_, parallel_.get()), before);
  return world_.is_first();
}

}  // namespace binade::examples
