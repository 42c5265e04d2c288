// EAGLE heads on a real model: trained on what the model writes, then drafting for it.
#include <catch2/catch.hpp>

#include <binade/heads/decoding/decode_texts.h>
#include <binade/heads/eagle/proposer.h>
#include <binade/heads/eagle/training.h>

#include "heads/stories.h"

using namespace binade;
using namespace binade::test;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;

namespace {

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
  const std::shared_ptr<nn::CausalLm> model = stories_model();
  if (!model) return;
  const auto packed = stories(*model, 64, 4);
  RandomState::current().set_seed(1);
  eagle::EagleHead head(
      model, eagle::EagleConfig::eagle3(model->config(),
                                        decoding::DraftVocabulary::most_frequent(
                                            eagle::label_counts(*packed, model->config()), 400)));
  std::vector<Text> prompts, plain;
  for (const int32_t second : {403, 296, 291, 306}) prompts.push_back({bos_of(*model), second});
  for (const Text& prompt : prompts)
    plain.push_back(infer::generate(*model, {prompt}, {.max_new_tokens = 160})[0]);
  std::vector<double> tau;
  train_on(packed, head, eagle::head_set(eagle::Version::eagle3, {}),
           eagle::eagle_loss(head, false, {}), 200, 3e-3, amp::Preset::parse("fp32"),
           [&](int64_t i) {
             if (i % 100 != 0) return;
             head.eval();
             const decoding::DecodedTexts decoded = draft(head, prompts, {.depth = 5});
             CHECK(decoded.texts == plain);  // whatever is drafted
             tau.push_back(decoded.stats.tau());
             head.train();
           });
  INFO("tokens a pass of a chain: " << tau[0] << ", " << tau[1] << ", " << tau[2]);
  CHECK(tau[0] < 1.1);  // by chance
  CHECK(tau[1] > tau[0] + 0.1);
  CHECK(tau[2] > tau[1] + 0.1);
  head.eval();
  const decoding::DecodedTexts tree = draft(head, prompts, {.depth = 5, .width = 4, .nodes = 24});
  CHECK(tree.texts == plain);
  CHECK(tree.stats.tau() > tau[2]);
}
