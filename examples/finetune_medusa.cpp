// Trains Medusa heads for a language model: behind the model as it is (Medusa-1), or together with
// it (Medusa-2).
//
//   finetune_medusa --model DIR --chats replies.jsonl --save heads/
//   finetune_medusa --model DIR --text book.txt --save heads/ --layout vllm
//   finetune_medusa --model DIR --chats replies.jsonl --init-heads heads/ --joint --lora-rank 32
//       --self-distill --save heads2/ --save-model model2/
//   finetune_medusa --run-dir runs/a --resume      goes on where a run stopped
//
// The model's own replies are the best data there are.
#include <binade/binade.h>

#include <optional>

#include "finetune_medusa/options.h"
#include "training/head_run.h"

using namespace binade;

namespace {

namespace medusa = heads::medusa;

void check_together(const examples::FinetuneMedusaOptions& o) {
  check(o.joint || (!o.ramp && !o.self_distill && o.lora_rank == 0 && o.save_model.empty()),
        "--ramp, --self-distill, --lora-rank and --save-model are for --joint; without it the "
        "model stays as it is");
  check(!o.joint || o.hidden_cache.empty(),
        "--hidden-cache is for a model that stays as it is; leave it out with --joint");
  check(!o.joint || o.save.empty() || !o.save_model.empty(),
        "--joint trains the model as well: heads of --save need it, so give --save-model, too");
}

// The model as it was before training, for --self-distill: with its adapters off, or a copy.
void add_teacher(const examples::FinetuneMedusaOptions& o, const examples::HeadRun& run,
                 const nn::Lora* lora, medusa::JointOptions& joint) {
  std::shared_ptr<nn::CausalLm> model = run.model();
  if (!lora) {
    model = nn::load_hf(o.model, {.vocabulary_multiple = 64});
    model->set_trainable(false);
    model->eval();
    run.place(*model);
  }
  joint.teacher_weight = model->head_weight();
  joint.teacher = [model, lora](const Tensor& ids, const nn::Sequence& sequence) {
    std::optional<nn::Lora::Off> off;
    if (lora) off.emplace(*lora);
    return model->hidden_states(ids, sequence);
  };
}

void finetune_medusa(examples::FinetuneMedusaOptions& o, const std::string& config,
                     dist::World& world) {
  check_together(o);
  examples::HeadRun run(o, config, world);
  const std::shared_ptr<nn::CausalLm>& model = run.model();
  const std::shared_ptr<medusa::MedusaHeads> heads =
      o.init_heads.empty() ? std::make_shared<medusa::MedusaHeads>(
                                 model, medusa::MedusaConfig{.heads = o.heads,
                                                             .layers = o.head_layers,
                                                             .own_output = !o.shared_output})
                           : medusa::load_medusa(o.init_heads, model);

  std::optional<nn::Lora> lora;
  if (o.lora_rank > 0) {
    lora.emplace(*model,
                 nn::LoraOptions{.rank = o.lora_rank,
                                 .alpha = o.lora_alpha,
                                 .dropout = o.lora_dropout,
                                 .target_modules = o.lora_targets,
                                 .target_pattern = o.lora_targets.empty() ? "all-linear" : ""});
  } else if (!o.joint) {
    model->set_trainable(false);  // only the heads have masters, gradients and moments
    model->eval();
  }
  heads::decoding::TrunkWithHeads both(model, "medusa", heads);
  run.place(both);

  medusa::MedusaLossOptions loss{
      .decay = o.decay_of_heads, .acceptance = o.acceptance, .joint = {}};
  if (o.joint) {
    loss.joint = medusa::JointOptions{
        .weight = o.joint_weight, .ramp = 0, .teacher = {}, .teacher_weight = {}};
    if (o.self_distill) add_teacher(o, run, lora ? &*lora : nullptr, *loss.joint);
    if (o.ramp) loss.joint->ramp = run.steps();
  }
  const int64_t count = heads->config().heads;
  const bool finished = run.train(
      {.what = concat(count, " Medusa heads", o.joint ? " and their model" : ""),
       .module = o.joint ? static_cast<nn::Module*>(&both) : heads.get(),
       .groups = run.groups(*heads),
       .data = medusa::medusa_data(
           run.documents(), count, o.accumulation, loss,
           run.hidden_cache(heads::decoding::last_hidden_states(*model), count)),
       .loss = medusa::medusa_loss(*heads, run.documents()->options(), loss),
       .accuracy =
           [&](const heads::decoding::PackedDocuments& documents, train::DataParallel* ranks) {
             return medusa::head_accuracy(*heads, documents, run.preset(), o.validation_batches,
                                          loss, ranks);
           },
       .coefficients = medusa::coefficients(count, loss)});
  if (!finished) return;
  if (lora) lora->merge();
  run.save_model();
  if (o.save.empty()) return;
  medusa::save_medusa(*heads, o.save,
                      {.layout = medusa::parse_layout(o.layout),
                       .base_name = o.joint ? o.save_model : o.model,
                       .dtype = run.save_dtype(),
                       .base_fingerprint = o.joint ? 0 : run.base_fingerprint()});
  medusa::load_medusa(o.save, model, /*check_base=*/false);  // what was written can be read back
  examples::say("saved {}\n", o.save);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::FinetuneMedusaOptions>(
      "Trains Medusa heads for a language model", argc, argv, finetune_medusa);
}
