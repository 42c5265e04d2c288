#include "head_run.h"

#include <binade/heads/decoding/base_weights.h>
#include <binade/heads/decoding/dialogue.h>

#include <algorithm>
#include <cmath>

namespace binade::examples {

namespace {

// What the heads are trained on, and the part that is kept for validation.
struct Documents {
  std::shared_ptr<const heads::decoding::PackedDocuments> train,
      validation;  // the latter may be null
};

std::vector<heads::decoding::Document> read_documents(const HeadTrainingOptions& o,
                                                      const data::Tokenizer& tokenizer) {
  std::vector<heads::decoding::Document> documents;
  heads::decoding::ConversationEncoder chats(tokenizer,
                                             o.chat_template.empty() ? o.model : o.chat_template);
  for (const std::string& file : o.chats)
    data::for_each_conversation(file, {.skip_bad = o.skip_bad}, [&](const auto& conversation) {
      documents.push_back(chats.encode(conversation));
    });
  if (chats.foreign() > 0)
    say("{} conversations hold tokens of another vocabulary; their text is encoded\n",
        chats.foreign());
  // Long texts are cut into windows, each a document.
  const std::vector<int32_t> ids =
      o.text.empty()
          ? std::vector<int32_t>()
          : data::encode_files(tokenizer, data::list_text_files({o.text.begin(), o.text.end()}, {}),
                               {.end_with_eos = true});
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(o.seq_len)) {
    const size_t end = std::min(ids.size(), first + static_cast<size_t>(o.seq_len));
    documents.push_back(heads::decoding::whole_document(
        {ids.begin() + static_cast<int64_t>(first), ids.begin() + static_cast<int64_t>(end)}));
  }
  check(!documents.empty(), "there is nothing to train on; give --chats or --text");
  return documents;
}

// The last documents of a shuffled order are for validation.
Documents make_documents(const HeadTrainingOptions& o, const data::Tokenizer& tokenizer) {
  std::vector<heads::decoding::Document> all = read_documents(o, tokenizer), train, validation;
  const auto count = static_cast<int64_t>(all.size());
  auto kept = static_cast<int64_t>(std::lround(o.validation_fraction * static_cast<double>(count)));
  if (o.validation_fraction > 0) kept = std::clamp<int64_t>(kept, 1, count - 1);
  const data::Permutation order(count, o.seed, /*stream=*/1);
  for (int64_t i = 0; i < count; ++i)
    (i < count - kept ? train : validation)
        .push_back(std::move(all[static_cast<size_t>(order(i))]));
  const heads::decoding::PackingOptions packing{
      .batch_size = o.batch_size, .seq_len = o.seq_len, .pack = o.pack, .seed = o.seed};
  const auto packed = [&](std::vector<heads::decoding::Document> documents) {
    return std::make_shared<const heads::decoding::PackedDocuments>(std::move(documents), packing);
  };
  return {packed(std::move(train)), validation.empty() ? nullptr : packed(std::move(validation))};
}

void print_accuracy(const heads::decoding::HeadAccuracy& accuracy) {
  if (accuracy.main_loss) say("the model's own next token: loss {:.3f}\n", *accuracy.main_loss);
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

HeadRun::HeadRun(HeadTrainingOptions& options, std::string config)
    : options_(options),
      config_(std::move(config)),
      device_(choose_device(options.device)),
      preset_(preset_of(options, device_)),
      folder_((check(!options.model.empty(), "give the language model's folder as --model"),
               options.run_dir),
              options.resume) {
  set_gpu_switches(options, device_);
  folder_.check_config(config_, kMayChange);
  tokenizer_ = data::load_tokenizer(options.tokenizer.empty() ? options.model : options.tokenizer);
  model_ = nn::load_hf(options.model, {.vocabulary_multiple = 64});
  base_fingerprint_ = heads::decoding::weights_fingerprint(*model_);
  nn::check_vocabulary(*model_, tokenizer_->vocab_size());
  check(options.seq_len <= model_->config().max_positions, "--seq-len ", options.seq_len,
        " is beyond the model's ", model_->config().max_positions, " positions");
  const Documents documents = make_documents(options, *tokenizer_);
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

void HeadRun::place(nn::Module& module) const {
  module.to(device_);
  preset_.apply(module);
}

bool HeadRun::train(const HeadTask& head_task) {
  HeadTrainingOptions& o = options_;
  const auto optimizer = make_optimizer(o, head_task.groups);
  amp::GradScaler scaler(device_, scaler_options(o, preset_));
  train::Task task{.model = head_task.module,
                   .data = head_task.data,
                   .loss = head_task.loss,
                   .validate = {},
                   .data_fingerprint = documents_->fingerprint()};
  if (held_out_)
    task.validate = [&] {
      return heads::decoding::validation_of(head_task.accuracy(*held_out_), head_task.coefficients);
    };
  o.steps = steps();
  train::Trainer trainer(task, *optimizer, scaler, preset_, folder_, trainer_options(o));
  resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  say("{}, {} parameters trained; {} documents in {} rows of {}, {} labels; {} on {}\n",
      head_task.what, trained_count(*optimizer), documents_->document_count(),
      documents_->row_count(), o.seq_len, documents_->reply_tokens(), preset_.name,
      concat(device_));
  if (documents_->cut_documents() > 0)
    say("{} documents were cut at {} tokens\n", documents_->cut_documents(), o.seq_len);

  if (!o.save.empty()) create_folder(o.save);  // not only after hours of training
  folder_.set_config(config_);
  folder_.write_manifest(manifest(device_));
  const train::Trainer::Outcome outcome = trainer.run();
  folder_.write_manifest(manifest(device_));  // now with the algorithms that were chosen
  say("{}; everything is in {}\n", summary(outcome, finished), o.run_dir);
  if (outcome.stopped) return false;
  head_task.module->eval();
  if (held_out_) print_accuracy(head_task.accuracy(*held_out_));
  return true;
}

}  // namespace binade::examples
