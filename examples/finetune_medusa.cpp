// Trains Medusa heads for a language model that is left as it is (Medusa-1).
//
//   finetune_medusa --model DIR --chats replies.jsonl --save heads/
//   finetune_medusa --model DIR --text book.txt --save heads/ --layout vllm
//   finetune_medusa --run-dir runs/a --resume      goes on where a run stopped
//
// The model's own replies are the best data there are.
#include <binade/binade.h>
#include <binade/heads/decoding/dialogue.h>
#include <binade/heads/decoding/hidden_cache.h>
#include <binade/train/progress.h>

#include "finetune_medusa/options.h"
#include "model_folder.h"
#include "training/setup.h"

using namespace binade;

namespace {

// What the heads are trained on, and the part that is kept for validation.
struct Documents {
  std::shared_ptr<const heads::decoding::PackedDocuments> train,
      validation;  // the latter may be null
};

std::vector<heads::decoding::Document> read_documents(const examples::FinetuneMedusaOptions& o,
                                                      const data::Tokenizer& tokenizer) {
  std::vector<heads::decoding::Document> documents;
  heads::decoding::ConversationEncoder chats(tokenizer,
                                             o.chat_template.empty() ? o.model : o.chat_template);
  for (const std::string& file : o.chats)
    data::for_each_conversation(file, {.skip_bad = o.skip_bad}, [&](const auto& conversation) {
      documents.push_back(chats.encode(conversation));
    });
  if (chats.foreign() > 0)
    examples::say("{} conversations hold tokens of another vocabulary; their text is encoded\n",
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
Documents make_documents(const examples::FinetuneMedusaOptions& o,
                         const data::Tokenizer& tokenizer) {
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

// The file of --hidden-cache, which is made if it is not there; null without the option.
std::shared_ptr<const heads::decoding::HiddenCache> hidden_cache(
    const examples::FinetuneMedusaOptions& o, const heads::medusa::MedusaHeads& heads,
    const heads::decoding::PackedDocuments& documents, const amp::Preset& preset) {
  if (o.hidden_cache.empty()) return nullptr;
  const nn::CausalLm& model = heads.base();
  const uint32_t fingerprint = heads::medusa::weights_fingerprint(model);
  const int64_t ahead = heads.config().heads;
  if (!std::filesystem::exists(o.hidden_cache)) {
    train::ProgressLine line;
    heads::decoding::write_hidden_cache(
        o.hidden_cache, model, fingerprint, documents, preset,
        {.ahead = ahead, .progress = [&](int64_t row, int64_t rows) {
           if (!o.quiet)
             line.update(fmt::format("hidden states of {}/{} rows", row, rows), row == rows);
         }});
  }
  auto cache = std::make_shared<const heads::decoding::HiddenCache>(
      o.hidden_cache, fingerprint, model.config().dim, documents, ahead);
  examples::say("{} positions of hidden states are in {}\n", cache->positions(), o.hidden_cache);
  return cache;
}

void print_accuracy(const heads::medusa::HeadAccuracy& accuracy) {
  examples::say("{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n", "head", "loss", "top-1", "top-2", "top-3",
                "top-4", "top-5");
  for (size_t k = 0; k < accuracy.loss.size(); ++k)
    examples::say("{:<8}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}{:>8.3f}\n", k + 1,
                  accuracy.loss[k], accuracy.top[k][0], accuracy.top[k][1], accuracy.top[k][2],
                  accuracy.top[k][3], accuracy.top[k][4]);
  examples::say("a chain of their likeliest tokens would give {:.2f} tokens a pass\n",
                accuracy.tokens_per_pass);
}

void finetune_medusa(examples::FinetuneMedusaOptions& o, const std::string& config) {
  check(!o.model.empty(), "give the language model's folder as --model");
  const Device device = examples::choose_device(o.device);
  const amp::Preset preset = examples::preset_of(o, device);
  examples::set_gpu_switches(o, device);
  train::RunFolder folder(o.run_dir, o.resume);
  folder.check_config(config, examples::kMayChange);

  const auto tokenizer = data::load_tokenizer(o.tokenizer.empty() ? o.model : o.tokenizer);
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(o.model, {.vocabulary_multiple = 64});
  nn::check_vocabulary(*model, tokenizer->vocab_size());
  check(o.seq_len <= model->config().max_positions, "--seq-len ", o.seq_len,
        " is beyond the model's ", model->config().max_positions, " positions");
  const auto [documents, held_out] = make_documents(o, *tokenizer);

  // The model stays as it is; only the heads have masters, gradients and moments.
  RandomState::current().set_seed(o.seed);
  model->set_trainable(false);
  model->eval();
  const std::shared_ptr<heads::medusa::MedusaHeads> heads =
      o.init_heads.empty() ? std::make_shared<heads::medusa::MedusaHeads>(
                                 model, heads::medusa::MedusaConfig{.heads = o.heads,
                                                                    .layers = o.head_layers,
                                                                    .own_output = !o.shared_output})
                           : heads::medusa::load_medusa(o.init_heads, model);
  for (nn::Module* module :
       {static_cast<nn::Module*>(model.get()), static_cast<nn::Module*>(heads.get())}) {
    module->to(device);
    preset.apply(*module);
  }

  const auto optimizer = examples::make_optimizer(o, optim::split_by_decay(*heads, o.weight_decay));
  amp::GradScaler scaler(device, examples::scaler_options(o, preset));
  const heads::medusa::MedusaLossOptions loss{.decay = o.decay_of_heads};
  train::Task task{
      .model = heads.get(),
      .data = heads::medusa::medusa_data(documents, heads->config().heads, o.accumulation,
                                         hidden_cache(o, *heads, *documents, preset)),
      .loss = heads::medusa::medusa_loss(*heads, documents->options(), loss),
      .validate = {},
      .data_fingerprint = documents->fingerprint()};
  if (held_out)
    task.validate = [&, &held_out = *held_out] {
      return heads::medusa::validation_of(
          heads::medusa::head_accuracy(*heads, held_out, preset, o.validation_batches), loss);
    };
  if (o.epochs > 0)
    o.steps = std::max<int64_t>(
        std::llround(o.epochs * static_cast<double>(documents->steps_per_epoch())), 1);
  train::Trainer trainer(task, *optimizer, scaler, preset, folder, examples::trainer_options(o));
  examples::resume_if_asked(o, trainer);
  const bool finished = o.resume && trainer.steps_done() == o.steps;
  examples::say(
      "{} Medusa heads of {} parameters; {} documents in {} rows of {}, {} labels; {} on {}\n",
      heads->config().heads, examples::trained_count(*optimizer), documents->document_count(),
      documents->row_count(), o.seq_len, documents->reply_tokens(), preset.name, concat(device));
  if (documents->cut_documents() > 0)
    examples::say("{} documents were cut at {} tokens\n", documents->cut_documents(), o.seq_len);

  if (!o.save.empty()) create_folder(o.save);  // not only after hours of training
  folder.set_config(config);
  folder.write_manifest(examples::manifest(device));
  const train::Trainer::Outcome outcome = trainer.run();
  folder.write_manifest(examples::manifest(device));
  examples::say("{}; everything is in {}\n", examples::summary(outcome, finished), o.run_dir);
  if (outcome.stopped) return;
  heads->eval();
  if (held_out)
    print_accuracy(heads::medusa::head_accuracy(*heads, *held_out, preset, o.validation_batches));
  if (!o.save.empty()) {
    heads::medusa::save_medusa(*heads, o.save,
                               {.layout = heads::medusa::parse_layout(o.layout),
                                .base_name = o.model,
                                .dtype = o.save_dtype == "fp32"   ? DType::f32
                                         : o.save_dtype == "bf16" ? DType::bf16
                                                                  : DType::f16});
    heads::medusa::load_medusa(o.save, model);  // what was written can be read back
    examples::say("saved {}\n", o.save);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains Medusa heads for a language model that is left as it is");
  examples::FinetuneMedusaOptions options;
  examples::add_options(app, options);
  return examples::run_program(
      app, argv[0],
      examples::with_saved_config<examples::FinetuneMedusaOptions>({argv + 1, argv + argc}),
      [&] { finetune_medusa(options, app.config_to_str(true)); }, examples::Output::narration);
}
