// Trains multi-token prediction for a language model: modules or heads that guess tokens beyond the
// next, behind the model as it is or together with it.
//
//   finetune_mtp --model DIR --chats replies.jsonl --kind recursive --depth 3 --save mtp/
//   finetune_mtp --model DIR --text book.txt --kind sequential --format mimo --save mtp/
//   finetune_mtp --model DIR --text book.txt --joint --save mtp/ --save-model trained/
//   finetune_mtp --run-dir runs/a --resume      goes on where a run stopped
//
// The model's own replies are the best data there are.
#include <binade/binade.h>

#include "finetune_mtp/options.h"
#include "training/head_run.h"

using namespace binade;
namespace mtp = binade::heads::mtp;

namespace {

void finetune_mtp(examples::FinetuneMtpOptions& o, const std::string& config, dist::World& world) {
  check(!o.joint || o.save.empty() || !o.save_model.empty(),
        "--joint trains the model as well: heads of --save need it, so give --save-model, too");
  check(o.joint || o.save_model.empty(), "--save-model is for --joint; the model stays as it is");
  examples::HeadRun run(o, config, world);
  const std::shared_ptr<nn::CausalLm>& model = run.model();
  const mtp::Format format = o.format == "auto"
                                 ? mtp::default_format(mtp::parse_kind(o.kind), model->config())
                                 : mtp::parse_format(o.format);

  std::shared_ptr<mtp::MtpHeads> heads;
  if (o.from.empty()) {
    const mtp::MtpConfig wanted{.kind = mtp::parse_kind(o.kind),
                                .depth = o.depth,
                                .conventions = mtp::conventions_of(format)};
    mtp::check_fits(format, wanted, model->config());
    heads = std::make_shared<mtp::MtpHeads>(model, wanted);
  } else {
    heads = mtp::load_mtp(o.from, model);
    mtp::check_fits(format, heads->config(), model->config());
  }
  heads::decoding::TrunkWithHeads both(model, "mtp", heads);
  if (!o.joint) {
    // Only the heads have masters, gradients and moments.
    model->set_trainable(false);
    model->eval();
  }
  run.place(both);

  const mtp::MtpLossOptions loss{
      .weight = o.weight, .beta = o.beta, .acceptance = o.acceptance, .joint = o.joint};
  const bool finished = run.train(
      {.what = concat(mtp::name_of(heads->config().kind), " prediction of ", heads->config().depth,
                      " more tokens"),
       .module = o.joint ? static_cast<nn::Module*>(&both) : heads.get(),
       .groups = run.groups(*heads),
       .data = heads::decoding::heads_data(run.documents(), mtp::head_set(heads->config(), loss),
                                           o.accumulation),
       .loss = mtp::mtp_loss(*heads, o.pack, loss),
       .accuracy =
           [&](const heads::decoding::PackedDocuments& documents, train::DataParallel* ranks) {
             return mtp::head_accuracy(*heads, documents, run.preset(), o.validation_batches, loss,
                                       ranks);
           },
       .coefficients = mtp::coefficients(heads->config(), loss)});
  if (!finished) return;
  run.save_model();
  if (o.save.empty()) return;
  mtp::save_mtp(*heads, o.save,
                {.format = format,
                 .base_name = o.joint ? o.save_model : o.model,
                 .dtype = run.save_dtype(),
                 .base_fingerprint = o.joint ? 0 : run.base_fingerprint()});
  mtp::load_mtp(o.save, model, /*check_base=*/false);  // what was written can be read back
  examples::say("saved {}\n", o.save);
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run_training<examples::FinetuneMtpOptions>(
      "Trains multi-token prediction for a language model", argc, argv, finetune_mtp);
}
