// Speculative decoding from end to end: its greedy texts are those of plain decoding, whatever is
// drafted; its samples have the target's distribution.
#include <binade/heads/decoding/decode_texts.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/data/tokenizer.h>
#include <binade/heads/decoding/compare_texts.h>
#include <binade/heads/decoding/lookup_proposer.h>
#include <binade/heads/decoding/measure.h>
#include <binade/heads/decoding/model_proposer.h>
#include <binade/heads/decoding/tree_search.h>
#include <binade/heads/medusa/proposer.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>

#include "heads/decoding/guided_proposer.h"
#include "heads/decoding/sample_fit.h"
#include "nn/tiny_models.h"
#include "shared.h"

using namespace binade;
using namespace binade::heads::decoding;
using namespace binade::test;
using Catch::Matchers::Contains;
using heads::medusa::MedusaHeads;
using heads::medusa::MedusaProposer;
using nn::Family;
using Rows = std::vector<std::vector<int32_t>>;

namespace {

constexpr int64_t kPositions = 48;
const Rows kPrompts = {{1, 2, 3, 4, 5}, {7}, {8, 9, 10}, {11, 12, 13, 14, 15, 16, 17}, {18, 19},
                       {20, 21, 22, 23}};
// The longest prompt fills the context.
constexpr int64_t kNew = kPositions - 7 + 1;

std::shared_ptr<MedusaHeads> random_heads(const std::shared_ptr<nn::CausalLm>& base,
                                          int64_t count) {
  auto heads =
      std::make_shared<MedusaHeads>(base, heads::medusa::MedusaConfig{.heads = count, .layers = 1});
  for (const nn::NamedParameter& named : heads->named_parameters())
    named.parameter->assign(nn::init::normal(0.3)(named.parameter->shape(), Device::cpu()));
  heads->to(base->device());
  heads->eval();
  return heads;
}

// Each prompt alone, by the plain engine.
Rows plain_texts(const nn::CausalLm& model, const std::vector<int32_t>& stop_ids) {
  Rows texts;
  for (const std::vector<int32_t>& prompt : kPrompts)
    texts.push_back(
        infer::generate(model, {prompt}, {.max_new_tokens = kNew, .stop_ids = stop_ids})[0]);
  return texts;
}

// A token that stands in the middle of some texts.
std::vector<int32_t> some_stop_ids(const nn::CausalLm& model) {
  const Rows texts = plain_texts(model, {});
  return {texts[0][9], texts[2][14], texts[3][20]};
}

DecodedTexts run(const nn::CausalLm& model, Proposer& proposer, const AcceptanceRule& rule,
                 int64_t slots, const std::vector<int32_t>& stop_ids) {
  SpeculativeDecoder decoder(model, proposer, rule, {.slots = slots, .stop_ids = stop_ids});
  return decode_texts(decoder, kPrompts, {.max_new_tokens = kNew, .stop_ids = stop_ids});
}

std::vector<DraftTree> some_trees() {
  return {DraftTree(), DraftTree::chain(3), DraftTree::full({2, 2, 1}),
          DraftTree::from_choices({{0}, {1}, {2}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}, {0, 0, 1}})};
}

Rows whole_texts(const Rows& texts) {
  Rows whole = kPrompts;
  for (size_t i = 0; i < whole.size(); ++i)
    whole[i].insert(whole[i].end(), texts[i].begin(), texts[i].end());
  return whole;
}

void check_greedy(Device device) {
  const auto rule = greedy_acceptance();
  for (const Family family : kFamilies) {
    INFO(nn::name_of(family));
    const auto model = small_model(small_config(family));
    model->to(device);
    const auto heads = random_heads(model, 3);
    for (const bool stops : {false, true}) {
      const std::vector<int32_t> stop_ids = stops ? some_stop_ids(*model) : std::vector<int32_t>();
      const Rows plain = plain_texts(*model, stop_ids);
      const Rows known = whole_texts(plain_texts(*model, {}));
      const bool all = family == Family::gpt2 || family == Family::llama;
      if (!all && !stops) continue;  // the parts that families have of their own know no slots
      for (const DraftTree& tree : all ? some_trees() : std::vector{some_trees().back()})
        for (const int64_t slots : all ? std::vector<int64_t>{1, 4} : std::vector<int64_t>{4}) {
          INFO(tree.json() << ", " << slots << " slots, stops " << stops);
          GuidedProposer guided(slots, tree, known, /*own_trees=*/false, device);
          const DecodedTexts by_guide = run(*model, guided, *rule, slots, stop_ids);
          CHECK(by_guide.texts == plain);
          if (tree.size() > 1) CHECK(by_guide.stats.tau() > 1.2);
          if (!stops) continue;
          GuidedProposer own(slots, tree, known, /*own_trees=*/true, device);
          const DecodedTexts by_own = run(*model, own, *rule, slots, stop_ids);
          CHECK(by_own.texts == plain);
          CHECK(by_own.stats.emitted() == by_guide.stats.emitted());
          CHECK(by_own.stats.passes() == by_guide.stats.passes());
          MedusaProposer medusa(*heads, tree, {.slots = slots});
          CHECK(run(*model, medusa, *rule, slots, stop_ids).texts == plain);
        }
    }
  }
}

// A draft model that is the target itself is right about everything.
void check_model_proposers(Device device) {
  const auto rule = greedy_acceptance();
  const auto model = small_model(small_config(Family::llama));
  nn::CausalLmConfig smaller = small_config(Family::llama);
  smaller.layers = 1;
  const auto other = small_model(smaller);
  model->to(device);
  other->to(device);
  const std::vector<int32_t> stop_ids = some_stop_ids(*model);
  const Rows plain = plain_texts(*model, stop_ids);
  for (const int64_t slots : {1, 4}) {
    ModelProposer same(*model, *model, {.slots = slots, .guesses = 3});
    const DecodedTexts by_same = run(*model, same, *rule, slots, stop_ids);
    CHECK(by_same.texts == plain);
    for (int64_t depth = 1; depth <= 3; ++depth) CHECK(by_same.stats.acceptance(depth) == 1);
    ModelProposer draft(*other, *model, {.slots = slots, .guesses = 4});
    CHECK(run(*model, draft, *rule, slots, stop_ids).texts == plain);
    ModelProposer exit(*model, *model, {.slots = slots, .guesses = 2, .layers = 1});
    const DecodedTexts by_exit = run(*model, exit, *rule, slots, stop_ids);
    CHECK(by_exit.texts == plain);
    CHECK(by_exit.stats.acceptance(1) < 1);
    LookupProposer lookup(slots, {.guesses = 5}, device);
    CHECK(run(*model, lookup, *rule, slots, stop_ids).texts == plain);
  }
}

void check_samples(Device device) {
  const auto model = small_model(few_words());
  model->to(device);
  nn::CausalLmConfig other = few_words();
  other.layers = 1;
  const auto draft_model = small_model(other);
  draft_model->to(device);
  const auto heads = random_heads(model, 2);
  const auto z = [&](Proposer& proposer, double said = kSampleTemperature) {
    return z_of_samples(*model, proposer, kSampleTemperature, said);
  };
  MedusaProposer chain(*heads, DraftTree::chain(2), {.slots = 50});
  CHECK(std::abs(z(chain)) < 4);
  MedusaProposer tree(*heads, DraftTree::full({3, 2}), {.slots = 50});
  CHECK(std::abs(z(tree)) < 4);
  ModelProposer likeliest(*draft_model, *model, {.slots = 50, .guesses = 2});
  CHECK(std::abs(z(likeliest)) < 4);
  ModelProposer drawn(*draft_model, *model,
                      {.slots = 50, .guesses = 2, .sampling = {.temperature = 1.2}});
  CHECK(std::abs(z(drawn)) < 4);
  // The test sees a bias: another temperature is another distribution.
  MedusaProposer again(*heads, DraftTree::chain(2), {.slots = 50});
  CHECK(z(again, 1.0) > 8);
}

}  // namespace

TEST_CASE("speculative greedy texts are those of plain decoding, whatever is drafted",
          "[decoding][speculative]") {
  check_greedy(Device::cpu());
}
TEST_CASE("speculative greedy texts are those of plain decoding on the GPU",
          "[decoding][speculative][cuda]") {
  check_greedy(cuda_or_skip());
}

TEST_CASE("draft models, early exit and lookup leave the text as it is",
          "[decoding][speculative]") {
  check_model_proposers(Device::cpu());
}
TEST_CASE("draft models, early exit and lookup leave the text as it is on the GPU",
          "[decoding][speculative][cuda]") {
  check_model_proposers(cuda_or_skip());
}

TEST_CASE("speculative samples have the target's distribution through the whole loop",
          "[decoding][speculative]") {
  check_samples(Device::cpu());
}
TEST_CASE("speculative samples have the target's distribution on the GPU",
          "[decoding][speculative][cuda]") {
  check_samples(cuda_or_skip());
}

TEST_CASE("samples at one seed are the same in any number of slots", "[decoding][speculative]") {
  const auto model = small_model(small_config(Family::llama));
  const auto heads = random_heads(model, 2);
  const auto rule = speculative_sampling({.temperature = 1, .top_k = 20, .top_p = 0.9});
  Rows texts;
  for (const int64_t slots : {1, 3, 6}) {
    MedusaProposer proposer(*heads, DraftTree::full({2, 2}), {.slots = slots});
    const Rows now = run(*model, proposer, *rule, slots, {}).texts;
    if (texts.empty()) texts = now;
    CHECK(now == texts);
  }
}

TEST_CASE("typical acceptance writes whole texts, and more of the guesses than greedy",
          "[decoding][speculative]") {
  const auto model = small_model(small_config(Family::llama));
  const auto heads = random_heads(model, 3);
  const auto tau = [&](const AcceptanceRule& rule) {
    MedusaProposer proposer(*heads, DraftTree::full({4, 3, 2}), {.slots = 2});
    const DecodedTexts result = run(*model, proposer, rule, 2, {});
    for (const std::vector<int32_t>& text : result.texts) CHECK(text.size() == kNew);
    return result.stats.tau();
  };
  const auto typical = typical_acceptance({.temperature = 2, .epsilon = 0.02, .delta = 0.1});
  CHECK(tau(*typical) > tau(*greedy_acceptance()));
}

TEST_CASE("ranks of the heads are counted whatever the tree takes of them",
          "[decoding][speculative]") {
  const auto model = small_model(small_config(Family::llama));
  // Fresh heads are copies of the model's own prediction: head k guesses the token that is next to
  // the root, so that what is known of it follows from the text.
  const auto heads = std::make_shared<MedusaHeads>(model, heads::medusa::MedusaConfig{.heads = 2});
  heads->eval();
  const auto rule = greedy_acceptance();
  MedusaProposer proposer(*heads, DraftTree(), {.slots = 2, .heads = 2});
  const DecodedTexts result = run(*model, proposer, *rule, 2, {});
  REQUIRE(result.ranks.has_value());
  CHECK(result.stats.tau() == 1);
  int64_t same = 0, pairs = 0;
  for (const std::vector<int32_t>& text : result.texts)
    for (size_t i = 1; i < text.size(); ++i) {
      ++pairs;
      same += text[i] == text[i - 1];
    }
  // The hidden state behind which the root was chosen predicts the root.
  CHECK(result.ranks->labels(0) == pairs);
  CHECK(result.ranks->accuracy(0, 0) ==
        Approx(static_cast<double>(same) / static_cast<double>(pairs)));
  CHECK(result.ranks->labels(1) == pairs - static_cast<int64_t>(result.texts.size()));
}

TEST_CASE("passes are timed for the choice of a tree", "[decoding][speculative]") {
  const auto model = small_model(small_config(Family::llama));
  const auto heads = random_heads(model, 2);
  RankCounts counts(2, 10);
  for (int i = 0; i < 4; ++i) counts.record(std::vector<int32_t>{i % 3, i % 2});
  const auto rule = greedy_acceptance();
  std::vector<int64_t> depths;
  const MachineCosts costs = measure_costs(
      *model,
      [&](const DraftTree& tree) {
        depths.push_back(tree.depth());
        return std::make_unique<MedusaProposer>(*heads, tree,
                                                heads::medusa::MedusaProposerOptions{.slots = 3});
      },
      *rule, counts, {.batch = 3, .prompt_length = 8, .steps = 3, .nodes = {2, 4, 6, 40}});
  CHECK(costs.batch == 3);
  CHECK(costs.plain > 0);
  CHECK(costs.draft.size() == 2);
  CHECK(costs.draft[0] == 0);
  // There is no tree of 40 nodes in these counts.
  REQUIRE(costs.verify.size() == 3);
  CHECK(costs.verify[1].nodes == 4);
  CHECK(costs.verify[0].seconds >= costs.plain);
  CHECK(depths == std::vector<int64_t>{1, 2, 1, 1, 2});
  CHECK_NOTHROW(best_tree_for(costs, counts).advice());
  CHECK_THROWS_WITH(measure_costs(*model,
                                  [&](const DraftTree& tree) {
                                    return std::make_unique<MedusaProposer>(
                                        *heads, tree, heads::medusa::MedusaProposerOptions{});
                                  },
                                  *rule, counts, {.prompt_length = 44}),
                    Contains("no room to time steps"));
}

TEST_CASE("texts that differ are told near ties from faults", "[decoding][speculative]") {
  const auto model = small_model(small_config(Family::llama));
  const Rows plain = plain_texts(*model, {});
  CHECK(compare_texts(*model, kPrompts, plain, plain, {}).equal() == 6);
  Rows other = plain;
  other[1][4] = (other[1][4] + 1) % 61;
  other[4].resize(7);
  const TextComparison comparison = compare_texts(*model, kPrompts, plain, other, {other[1][4]});
  REQUIRE(comparison.differences.size() == 2);
  CHECK_FALSE(comparison.faultless());
  const TextDifference& first = comparison.differences[0];
  CHECK(first.text == 1);
  CHECK(first.place == 4);
  CHECK(first.plain_below == 0);
  CHECK(first.speculative_below > first.tolerance);
  CHECK(comparison.differences[1].place == 7);
  CHECK(comparison.differences[1].speculative == other[1][4]);
  // A model whose logits are all equal has nothing but ties.
  for (const nn::NamedParameter& named : model->named_parameters())
    if (named.name == "model.norm.weight")
      named.parameter->assign(Array::zeros(named.parameter->shape(), DType::f32));
  CHECK(compare_texts(*model, kPrompts, plain, other, {}).near_ties() >= 1);
}

TEST_CASE("exact sampling refuses drawn guesses without the distributions they were drawn from",
          "[decoding][speculative][bad-input]") {
  class WithoutQ : public Proposer {
   public:
    ProposerNeeds needs() const override { return {}; }
    void observe(const Observation& seen) override { next_ = seen.next; }
    Drafts propose(const BatchDraws& /*draws*/) override {
      Drafts drafts;
      drafts.tree = DraftTree::chain(1);
      drafts.tokens = Array::full({1, 2}, 3, DType::i32);
      drafts.drawn = Drawn::with_replacement;
      return drafts;
    }

   private:
    Array next_;
  };
  const auto model = small_model(small_config(Family::llama));
  const auto exact = speculative_sampling({.temperature = 1});
  WithoutQ proposer;
  SpeculativeDecoder decoder(*model, proposer, *exact, {});
  decoder.begin({0}, {{1, 2}});
  CHECK_THROWS_AS(decoder.step(), Error);
  // The other rules do not ask where guesses come from.
  const auto greedy = greedy_acceptance();
  SpeculativeDecoder greedily(*model, proposer, *greedy, {});
  greedily.begin({0}, {{1, 2}});
  CHECK_NOTHROW(greedily.step());
}

TEST_CASE("speculation refuses what does not go together", "[decoding][speculative][bad-input]") {
  const auto model = small_model(small_config(Family::llama));
  const auto heads = random_heads(model, 2);
  const auto rule = greedy_acceptance();
  CHECK_THROWS_WITH(MedusaProposer(*heads, DraftTree::chain(3), {}), Contains("3 deep"));
  nn::CausalLmConfig words = small_config(Family::llama);
  words.vocab_size = 60;
  const auto other = small_model(words);
  CHECK_THROWS_WITH(ModelProposer(*other, *model, {}), Contains("vocabulary of 60"));
  CHECK_THROWS_WITH(ModelProposer(*model, *model, {.layers = 3}), Contains("2 layers"));
  nn::CausalLmConfig shorter = small_config(Family::llama);
  shorter.max_positions = 20;
  const auto short_model = small_model(shorter);
  CHECK_THROWS_WITH(ModelProposer(*short_model, *model, {.capacity = 30}),
                    Contains("20 positions"));
  MedusaProposer proposer(*heads, DraftTree::chain(2), {});
  SpeculativeDecoder decoder(*model, proposer, *rule, {.capacity = 10});
  CHECK_THROWS_WITH(decode_texts(decoder, {{1, 2, 3}}, {.max_new_tokens = 9}),
                    Contains("prompt 1 of 3 tokens and 9 new ones"));
  CHECK_THROWS_WITH(decoder.step(), Contains("none was observed"));
  MedusaProposer of_two(*heads, DraftTree::chain(2), {.slots = 2});
  SpeculativeDecoder of_one(*model, of_two, *rule, {.slots = 1});
  of_one.begin({0}, {{1}});
  CHECK_THROWS_WITH(of_one.step(), Contains("drafts for 2"));
}

namespace {

void check_stories(Device device) {
  const auto folder = shared_path("models/stories260k");
  if (!folder) return;
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(*folder);
  model->to(device);
  model->eval();
  const auto heads = random_heads(model, 4);
  // The text so far is what lookup drafts from; early exit and Medusa draft what they do.
  const auto tokenizer = data::load_tokenizer(*folder);
  Rows prompts;
  for (const char* text : {"Once upon a time", "Tim had a red ball. Tim had a red", "The dog"})
    prompts.push_back(tokenizer->encode(text, {.add_special_tokens = true}));
  const DecodeTextsOptions options{.max_new_tokens = 40};
  for (const int64_t slots : {1, 3}) {
    infer::Decoder plain(*model, {.slots = slots, .capacity = 128});
    const Rows texts = decode_texts(plain, prompts, options).texts;
    const auto check_texts = [&](Proposer& proposer) {
      const auto rule = greedy_acceptance();
      SpeculativeDecoder decoder(*model, proposer, *rule, {.slots = slots, .capacity = 128});
      const DecodedTexts result = decode_texts(decoder, prompts, options);
      if (device.is_cpu()) CHECK(result.texts == texts);
      CHECK(compare_texts(*model, prompts, texts, result.texts, {}).faultless());
      return result.stats.tau();
    };
    MedusaProposer medusa(*heads, published_tree(4, 24), {.slots = slots});
    check_texts(medusa);
    ModelProposer exit(*model, *model, {.slots = slots, .capacity = 128, .layers = 3});
    CHECK(check_texts(exit) > 1.2);
    LookupProposer lookup(slots, {}, device);
    CHECK(check_texts(lookup) > 1);
  }
}

}  // namespace

TEST_CASE("stories260k tells its story speculatively, too", "[decoding][speculative][stories]") {
  check_stories(Device::cpu());
}
TEST_CASE("stories260k tells its story speculatively, too, on the GPU",
          "[decoding][speculative][stories][cuda]") {
  check_stories(cuda_or_skip());
}
