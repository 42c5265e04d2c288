// EAGLE heads on a real model: trained on what the model writes, then drafting for it.
#include <catch2/catch.hpp>

#include <binade/heads/decoding/decode_texts.h>
#include <binade/heads/eagle/proposer.h>
#include <binade/heads/eagle/training.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>
#include <binade/optim/adamw.h>

#include "shared.h"

using namespace binade;
using namespace binade::test;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;

namespace {

using Text = std::vector<int32_t>;

// The model's own stories at temperature 0.3.
std::vector<decoding::Document> stories(const nn::CausalLm& model, int64_t count, int64_t length) {
  infer::GenerateOptions options{.max_new_tokens = length};
  options.sampling.temperature = 0.3;
  options.sampling.seed = 1;
  const auto bos = static_cast<int32_t>(model.config().bos_ids.at(0));
  std::vector<decoding::Document> documents;
  for (Text& text :
       infer::generate(model, std::vector<Text>(static_cast<size_t>(count), Text{bos}), options)) {
    text.insert(text.begin(), bos);
    documents.push_back(decoding::whole_document(std::move(text)));
  }
  return documents;
}

decoding::DecodedTexts draft(const eagle::EagleHead& head, const std::vector<Text>& prompts,
                             eagle::EagleProposerOptions options) {
  options.slots = std::ssize(prompts);
  eagle::EagleProposer proposer(head, options);
  const auto rule = decoding::greedy_acceptance();
  decoding::SpeculativeDecoder decoder(head.base(), proposer, *rule, {.slots = options.slots});
  return decoding::decode_texts(decoder, prompts, {.max_new_tokens = 160});
}

}  // namespace

TEST_CASE("an EAGLE-3 head that learns from stories260k drafts its stories better and better",
          "[heads][eagle][stories][long]") {
  const auto folder = shared_path("models/stories260k");
  if (!folder) return;
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(*folder);
  model->set_trainable(false);
  model->eval();
  const auto packed = std::make_shared<const decoding::PackedDocuments>(
      stories(*model, 64, 255),
      decoding::PackingOptions{.batch_size = 4, .seq_len = 256, .pack = false, .seed = 1});
  RandomState::current().set_seed(1);
  eagle::EagleHead head(
      model, eagle::EagleConfig::eagle3(model->config(),
                                        decoding::DraftVocabulary::most_frequent(
                                            eagle::label_counts(*packed, model->config()), 400)));
  const auto bos = static_cast<int32_t>(model->config().bos_ids.at(0));
  std::vector<Text> prompts, plain;
  for (const int32_t second : {403, 296, 291, 306}) prompts.push_back({bos, second});
  for (const Text& prompt : prompts)
    plain.push_back(infer::generate(*model, {prompt}, {.max_new_tokens = 160})[0]);

  optim::AdamW optimizer(optim::split_by_decay(head, 0));
  amp::GradScaler scaler(Device::cpu(), {});
  train::TrainStep step(eagle::eagle_loss(head, false, {}), optimizer, scaler,
                        amp::Preset::parse("fp32"), {});
  const auto data = decoding::heads_data(packed, eagle::head_set(eagle::Version::eagle3, {}), 1);
  std::vector<double> tau;
  for (int64_t i = 0; i <= 200; ++i) {
    if (i == 0 || i == 100 || i == 200) {
      head.eval();
      const decoding::DecodedTexts decoded = draft(head, prompts, {.depth = 5});
      CHECK(decoded.texts == plain);  // whatever is drafted
      tau.push_back(decoded.stats.tau());
      head.train();
    }
    const train::StepData now = data(i);
    const double rate = 3e-3 * std::min(1.0, static_cast<double>(201 - i) / 100);
    step.run(i, now.micro_batches, now.normalisers, rate);
  }
  INFO("tokens a pass of a chain: " << tau[0] << ", " << tau[1] << ", " << tau[2]);
  CHECK(tau[0] < 1.1);  // by chance
  CHECK(tau[1] > tau[0] + 0.1);
  CHECK(tau[2] > tau[1] + 0.1);
  head.eval();
  const decoding::DecodedTexts tree = draft(head, prompts, {.depth = 5, .width = 4, .nodes = 24});
  CHECK(tree.texts == plain);
  CHECK(tree.stats.tau() > tau[2]);
}
