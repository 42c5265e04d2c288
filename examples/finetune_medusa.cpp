// Trains Medusa heads for a language model that is left as it is (Medusa-1).
//
//   finetune_medusa --model DIR --chats replies.jsonl --save heads/
//   finetune_medusa --model DIR --text book.txt --save heads/ --layout vllm
//   finetune_medusa --run-dir runs/a --resume      goes on where a run stopped
//
// The model's own replies are the best data there are.
#include <binade/binade.h>

#include "finetune_medusa/options.h"
#include "training/head_run.h"

using namespace binade;

namespace {

void finetune_medusa(examples::FinetuneMedusaOptions& o, const std::string& config) {
  examples::HeadRun run(o, config);
  const std::shared_ptr<nn::CausalLm>& model = run.model();

  // The model stays as it is; only the heads have masters, gradients and moments.
  model->set_trainable(false);
  model->eval();
  const std::shared_ptr<heads::medusa::MedusaHeads> heads =
      o.init_heads.empty() ? std::make_shared<heads::medusa::MedusaHeads>(
                                 model, heads::medusa::MedusaConfig{.heads = o.heads,
                                                                    .layers = o.head_layers,
                                                                    .own_output = !o.shared_output})
                           : heads::medusa::load_medusa(o.init_heads, model);
  run.place(*model);
  run.place(*heads);

  const int64_t count = heads->config().heads;
  const heads::medusa::MedusaLossOptions loss{.decay = o.decay_of_heads};
  const bool finished =
      run.train({.what = concat(count, " Medusa heads"),
                 .module = heads.get(),
                 .groups = optim::split_by_decay(*heads, o.weight_decay),
                 .data = heads::medusa::medusa_data(run.documents(), count, o.accumulation),
                 .loss = heads::medusa::medusa_loss(*heads, run.documents()->options(), loss),
                 .accuracy =
                     [&](const heads::decoding::PackedDocuments& documents) {
                       return heads::medusa::head_accuracy(*heads, documents, run.preset(),
                                                           o.validation_batches);
                     },
                 .coefficients = heads::medusa::coefficients(count, loss)});
  if (!finished || o.save.empty()) return;
  heads::medusa::save_medusa(*heads, o.save,
                             {.layout = heads::medusa::parse_layout(o.layout),
                              .base_name = o.model,
                              .dtype = run.save_dtype()});
  heads::medusa::load_medusa(o.save, model);  // what was written can be read back
  examples::say("saved {}\n", o.save);
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
