// Trains an EAGLE head for a language model: one layer that drafts from the model's features. The
// model stays as it is; its pass is part of each step, unless --hidden-cache keeps what it gives.
//
//   finetune_eagle --model DIR --chats replies.jsonl --draft-vocabulary 16384 --save eagle/
//   finetune_eagle --model DIR --text book.txt --kind eagle1 --save eagle/
//   finetune_eagle --run-dir runs/a --resume      goes on where a run stopped
//
// The model's own replies are the best data there are.
#include <binade/binade.h>

#include "finetune_eagle/options.h"
#include "training/head_run.h"

using namespace binade;
namespace eagle = binade::heads::eagle;

namespace {

std::shared_ptr<eagle::EagleHead> make_head(const examples::FinetuneEagleOptions& o,
                                            const examples::HeadRun& run) {
  if (!o.from.empty()) return eagle::load_eagle(o.from, run.model());
  const nn::CausalLmConfig& base = run.model()->config();
  if (o.kind == "eagle1")
    return std::make_shared<eagle::EagleHead>(run.model(), eagle::EagleConfig::eagle1());
  heads::decoding::DraftVocabulary vocabulary;
  if (o.draft_vocabulary > 0)
    vocabulary = heads::decoding::DraftVocabulary::most_frequent(
        eagle::label_counts(*run.documents(), base), o.draft_vocabulary);
  eagle::EagleConfig config = eagle::EagleConfig::eagle3(base, std::move(vocabulary));
  if (!o.feature_layers.empty()) config.layers = o.feature_layers;
  return std::make_shared<eagle::EagleHead>(run.model(), std::move(config));
}

void finetune_eagle(examples::FinetuneEagleOptions& o, const std::string& config,
                    dist::World& world) {
  check(o.kind == "eagle3" || o.feature_layers.empty(),
        "--feature-layers is for eagle3; eagle1 reads the model's last hidden states");
  examples::HeadRun run(o, config, world);
  const std::shared_ptr<nn::CausalLm>& model = run.model();
  const std::shared_ptr<eagle::EagleHead> head = make_head(o, run);
  if (o.recompute) head->set_recompute(Recompute::blocks);
  heads::decoding::TrunkWithHeads both(model, "eagle", head);
  // Only the head has masters, gradients and moments.
  model->set_trainable(false);
  model->eval();
  run.place(both);

  const eagle::Version version = head->config().version;
  eagle::EagleLossOptions loss = eagle::EagleLossOptions::of(version);
  loss.steps = o.draft_steps;
  loss.decay = o.step_decay;
  const double tokens = loss.soft;  // what they count beside EAGLE-1's regression
  loss.acceptance = tokens * o.acceptance;
  loss.hard = (tokens - loss.acceptance) * o.greedy;
  loss.soft = tokens - loss.acceptance - loss.hard;
  loss.feature = o.feature_weight;
  loss.noise = o.noise;
  const bool finished = run.train(
      {.what = concat("an ", eagle::name_of(version), " head over ", head->draft_size(), " tokens"),
       .module = head.get(),
       .groups = run.groups(*head),
       .data = heads::decoding::heads_data(
           run.documents(), eagle::head_set(version, loss), o.accumulation,
           run.hidden_cache(eagle::cached_states(*head, run.preset()))),
       .loss = eagle::eagle_loss(*head, o.pack, loss),
       .accuracy =
           [&](const heads::decoding::PackedDocuments& documents, train::DataParallel* ranks) {
             return eagle::head_accuracy(*head, documents, run.preset(), o.validation_batches, loss,
                                         ranks);
           },
       .coefficients = eagle::coefficients(loss)});
  if (!finished || o.save.empty()) return;
  eagle::save_eagle(*head, o.save,
                    {.layout = eagle::parse_layout(o.layout),
                     .base_name = o.model,
                     .dtype = run.save_dtype(),
                     .base_fingerprint = run.base_fingerprint()});
  eagle::load_eagle(o.save, model, /*check_base=*/false);  // what was written can be read back
  examples::say("saved {}\n", o.save);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::FinetuneEagleOptions>(
      "Trains an EAGLE head for a language model", argc, argv, finetune_eagle);
}
