// An EAGLE head as a proposer: its drafts are those of the paper's steps in double, and texts keep
// what the target would write.
#include <binade/heads/eagle/proposer.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/create.h>
#include <binade/autograd/observer.h>
#include <binade/autograd/ops.h>
#include <binade/heads/decoding/decode_texts.h>
#include <binade/infer/generate.h>

#include "heads/decoding/sample_fit.h"
#include "heads/eagle/eagle_oracle.h"
#include "heads/eagle/engine_cases.h"
#include "heads/eagle/heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;

namespace {

using Text = std::vector<int32_t>;
using Row = EagleOracle::Row;

const std::vector<Text> kPrompts = {
    {1, 2, 3, 4, 5}, {7}, {8, 9, 10}, {11, 12, 13, 14, 15, 16}, {18, 19}};
constexpr int64_t kNew = 30;

// A node of a tree that is drafted by the book.
struct Node {
  int32_t token = 0, parent = -1;
  double score = 0;  // log-probability along the path
  EagleOracle::Known known;
};

Row log_softmax(const Row& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const double x : logits) total += std::exp(x - largest);
  Row result;
  for (const double x : logits) result.push_back(x - largest - std::log(total));
  return result;
}

// EAGLE-2 (section 4): expansion by levels, then the best of all nodes. Gives tokens and parents,
// the root first.
std::pair<Text, Text> drafted_tree(const EagleOracle& oracle, const eagle::EagleHead& head,
                                   const Text& text, const eagle::EagleProposerOptions& options) {
  const Text fed(text.begin(), text.end() - 1);
  const auto features = rows_in_double(
      head.trunk(Tensor::from(fed, {1, std::ssize(fed)}, head.base().device()), {}).features);
  const std::vector<int32_t>& names = head.config().vocabulary.ids();
  std::vector<Node> all(1);
  all[0].token = text.back();
  all[0].known = oracle.read(text, features);
  std::vector<size_t> beams = {0};
  const auto better = [&](size_t a, size_t b) { return all[a].score > all[b].score; };
  for (int64_t level = 1; level <= options.depth; ++level) {
    std::vector<size_t> made;
    for (const size_t beam : beams) {
      const Row q = log_softmax(all[beam].known.newest.logits);
      std::vector<size_t> order(q.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return q[a] > q[b]; });
      for (size_t w = 0; w < static_cast<size_t>(options.width); ++w) {
        Node node;
        node.token = names.empty() ? static_cast<int32_t>(order[w]) : names[order[w]];
        node.parent = static_cast<int32_t>(beam);
        node.score = all[beam].score + q[order[w]];
        made.push_back(all.size());
        all.push_back(std::move(node));
      }
    }
    std::stable_sort(made.begin(), made.end(), better);
    made.resize(static_cast<size_t>(options.width));
    for (const size_t node : made)
      all[node].known =
          oracle.guess(all[static_cast<size_t>(all[node].parent)].known, all[node].token);
    beams = made;
  }
  std::vector<size_t> order(all.size() - 1);
  std::iota(order.begin(), order.end(), size_t{1});
  std::stable_sort(order.begin(), order.end(), better);
  order.resize(static_cast<size_t>(options.nodes - 1));
  order.push_back(0);
  std::sort(order.begin(), order.end());
  Text tokens, parents;
  for (const size_t node : order) {
    tokens.push_back(all[node].token);
    const auto parent =
        std::find(order.begin(), order.end(), static_cast<size_t>(all[node].parent));
    parents.push_back(node == 0 ? -1 : static_cast<int32_t>(parent - order.begin()));
  }
  return {tokens, parents};
}

// Observations of texts as the target's passes make them.
decoding::Observation observation_of(const eagle::EagleHead& head, const std::vector<Text>& texts,
                                     const std::vector<size_t>& known, bool prompts) {
  const Device device = head.base().device();
  const auto rows = std::ssize(texts);
  const int64_t length = 8, dim = head.base().config().dim;
  const bool own = head.own_output();
  decoding::Observation seen{.prompts = prompts};
  Text tokens, counts, next;
  const size_t streams = own ? 3 : 1;
  std::vector<Array> states;
  for (size_t i = 0; i < streams; ++i)
    states.push_back(Array::full({rows, length, dim}, 7, DType::f32, device));
  for (size_t b = 0; b < texts.size(); ++b) {
    const Text& text = texts[b];
    const auto fed = std::ssize(text) - 1, first = static_cast<int64_t>(known[b]);
    for (int64_t i = first; i < first + length; ++i)
      tokens.push_back(i < fed ? text[static_cast<size_t>(i)] : 0);
    counts.push_back(static_cast<int32_t>(fed - first));
    next.push_back(text.back());
    const Tensor ids = Tensor::from(Text(text.begin(), text.end() - 1), {1, fed}, device);
    const auto made = head.base().states(ids, {}, head.config().layers);
    for (size_t i = 0; i < streams && fed > first; ++i) {
      const Tensor& from = own ? made.streams[i] : made.hidden;
      states[i]
          .select(0, static_cast<int64_t>(b))
          .slice(0, 0, fed - first)
          .copy_from(from.array().select(0, 0).slice(0, first, fed));
    }
  }
  if (prompts)
    for (size_t b = 0; b < texts.size(); ++b) seen.slots.push_back(static_cast<int32_t>(b));
  seen.tokens = Array::from(tokens, {rows, length}, device);
  seen.counts = Array::from(counts, {rows}, device);
  seen.next = Array::from(next, {rows}, device);
  if (own)
    seen.residuals = states;
  else
    seen.hidden = states[0];
  return seen;
}

void check_drafts(Device device) {
  const NoGrad off;
  const auto base = eagle_base();
  const std::vector<eagle::EagleProposerOptions> shapes = {{.depth = 3},
                                                           {.depth = 3, .width = 2, .nodes = 8},
                                                           {.depth = 4, .width = 3, .nodes = 20},
                                                           {.depth = 1, .width = 4, .nodes = 4}};
  for (const eagle::EagleConfig& config : eagle_configs(base->config()))
    for (eagle::EagleProposerOptions shape : shapes) {
      INFO(eagle::name_of(config.version)
           << ", depth " << shape.depth << ", width " << shape.width);
      const auto head = eagle_head(base, config);
      const EagleOracle oracle(*head);
      std::vector<Text> texts = {{3, 9, 27, 4}, {5, 8}, {60, 1, 2, 3, 4, 5}};
      shape.slots = std::ssize(texts);
      base->to(device);
      head->to(device);
      eagle::EagleProposer proposer(*head, shape);
      std::vector<size_t> known(texts.size(), 0);
      if (shape.nodes == 0) shape.nodes = shape.depth + 1;
      for (int pass = 0; pass < 4; ++pass) {
        proposer.observe(observation_of(*head, texts, known, pass == 0));
        const decoding::Drafts drafts = proposer.propose({});
        const auto tokens = drafts.tokens.to_vector<int32_t>();
        const auto parents = drafts.tree ? Text() : drafts.parents.to_vector<int32_t>();
        for (size_t b = 0; b < texts.size(); ++b) {
          const auto [wanted, wanted_parents] = drafted_tree(oracle, *head, texts[b], shape);
          const auto at = static_cast<int64_t>(b) * shape.nodes;
          CHECK(Text(tokens.begin() + at, tokens.begin() + at + shape.nodes) == wanted);
          const Text own = drafts.tree
                               ? drafts.tree->parents()
                               : Text(parents.begin() + at, parents.begin() + at + shape.nodes);
          CHECK(own == wanted_parents);
          // Some of it becomes text, and a token of the target's; one slot stands still at times.
          known[b] = texts[b].size() - 1;
          if (pass == 1 && b == 1) continue;
          for (size_t i = 0; i < (static_cast<size_t>(pass) + b) % 3; ++i)
            texts[b].push_back(wanted[i + 1]);
          texts[b].push_back(static_cast<int32_t>(11 * b + 5));
        }
      }
      base->to(Device::cpu());
    }
}

void check_greedy(Device device) {
  const auto base = eagle_base();
  base->to(device);
  std::vector<Text> plain;
  for (const Text& prompt : kPrompts)
    plain.push_back(infer::generate(*base, {prompt}, {.max_new_tokens = kNew})[0]);
  const auto rule = decoding::greedy_acceptance();
  for (const eagle::EagleConfig& config : eagle_configs(base->config())) {
    const auto head = eagle_head(base, config);
    head->to(device);
    for (const int64_t slots : {1, 3})
      for (eagle::EagleProposerOptions shape :
           {eagle::EagleProposerOptions{.depth = 4},
            eagle::EagleProposerOptions{.depth = 3, .width = 3, .nodes = 12},
            eagle::EagleProposerOptions{.depth = 7, .width = 10, .nodes = 60}}) {
        shape.slots = slots;
        eagle::EagleProposer proposer(*head, shape);
        decoding::SpeculativeDecoder decoder(*base, proposer, *rule, {.slots = slots});
        const auto result = decoding::decode_texts(decoder, kPrompts, {.max_new_tokens = kNew});
        CHECK(result.texts == plain);
      }
  }
}

void check_samples(Device device) {
  nn::CausalLmConfig config = few_words();
  config.layers = 3;
  const auto base = small_model(config);
  base->set_trainable(false);
  base->to(device);
  for (const eagle::EagleConfig& version :
       {eagle::EagleConfig::eagle1(), eagle::EagleConfig::eagle3(config),
        eagle::EagleConfig::eagle3(config, {{0, 2, 3}, config.vocab_size})}) {
    const auto head = eagle_head(base, version);
    head->to(device);
    for (eagle::EagleProposerOptions shape :
         {eagle::EagleProposerOptions{.depth = 2},
          eagle::EagleProposerOptions{.depth = 2, .temperature = 1.2},
          eagle::EagleProposerOptions{.depth = 2, .width = 2, .nodes = 5}}) {
      INFO(eagle::name_of(version.version)
           << ", width " << shape.width << ", temperature " << shape.temperature);
      shape.slots = kSampleSlots;
      shape.capacity = 8;
      eagle::EagleProposer proposer(*head, shape);
      CHECK(std::abs(z_of_samples(*base, proposer, kSampleTemperature, kSampleTemperature)) < 4);
    }
  }
  // The test sees a bias.
  const auto head = eagle_head(base, eagle::EagleConfig::eagle3(config));
  head->to(device);
  eagle::EagleProposer proposer(*head, {.slots = kSampleSlots, .capacity = 8, .depth = 2});
  CHECK(z_of_samples(*base, proposer, kSampleTemperature, 1.0) > 8);
}

}  // namespace

TEST_CASE("EAGLE drafts chains and trees as its papers have them", "[heads][eagle]") {
  check_drafts(Device::cpu());
}

TEST_CASE("EAGLE drafts on the GPU as its papers have them", "[heads][eagle][cuda]") {
  check_drafts(cuda_or_skip());
}

TEST_CASE("greedy texts with an EAGLE head are those of plain decoding", "[heads][eagle]") {
  check_greedy(Device::cpu());
}

TEST_CASE("greedy texts with an EAGLE head on the GPU are those of plain decoding",
          "[heads][eagle][cuda]") {
  check_greedy(cuda_or_skip());
}

TEST_CASE("samples with an EAGLE head have the target's distribution", "[heads][eagle]") {
  check_samples(Device::cpu());
}

TEST_CASE("samples with an EAGLE head on the GPU have the target's distribution",
          "[heads][eagle][cuda]") {
  check_samples(cuda_or_skip());
}

TEST_CASE("what an EAGLE proposer cannot do is refused", "[heads][eagle][errors]") {
  const auto base = eagle_base();
  const auto head = eagle_head(base, eagle::EagleConfig::eagle3(base->config()));
  const auto make = [&](const eagle::EagleProposerOptions& options) {
    eagle::EagleProposer proposer(*head, options);
  };
  CHECK_THROWS_WITH(make({.depth = 0}), Contains("levels deep"));
  CHECK_THROWS_WITH(make({.depth = 8, .width = 10}), Contains("make it less deep or wide"));
  CHECK_THROWS_WITH(make({.depth = 2, .width = 17}), Contains("up to 16 guesses of a node"));
  const auto small = eagle_head(
      base, eagle::EagleConfig::eagle3(base->config(), {{0, 1, 2, 3}, base->config().vocab_size}));
  CHECK_THROWS_WITH(eagle::EagleProposer(*small, {.depth = 2, .width = 5}),
                    Contains("wider than the draft vocabulary of 4"));
  CHECK_THROWS_WITH(make({.depth = 2, .width = 2, .nodes = 8}), Contains("2 to 7 nodes"));
  CHECK_THROWS_WITH(make({.depth = 3, .nodes = 3}), Contains("a chain of 3 guesses has 4 nodes"));
  CHECK_THROWS_WITH(make({.width = 2, .temperature = 1}), Contains("drawn for chains alone"));
  eagle::EagleProposer proposer(*head, {.depth = 2});
  CHECK_THROWS_WITH(proposer.propose({}), Contains("nothing was observed"));
  decoding::Observation seen = observation_of(*head, {{1, 2, 3}}, {0}, true);
  seen.residuals.pop_back();
  CHECK_THROWS_WITH(proposer.observe(seen), Contains("streams of 3 layers, got 2"));
}

// A pass over few rows takes the kernels of nn/decode.h; with somebody watching, it goes op by op.
TEST_CASE("an EAGLE head's pass by the kernels for few rows is the one op by op on the GPU",
          "[heads][eagle][cuda]") {
  struct Watching : OpObserver {
    void on_forward(const char*, const TensorList&, const std::vector<Array>&) override {}
    void on_backward(const char*, const std::vector<Array>&, const std::vector<Array>&) override {}
  };
  const Device device = cuda_or_skip();
  const NoGrad off;
  for (const char* preset_name : {"fp16", "bf16"}) {
    const amp::Preset preset = amp::Preset::parse(preset_name);
    const auto base = engine_base();
    for (const EngineCase& one : engine_cases(base->config())) {
      const auto head = eagle_head(base, one.config);
      base->to(device);
      head->to(device);
      preset.apply(*base);
      preset.apply(*head);
      const DType dtype = head->output_weight().dtype();
      const int64_t dim = base->config().dim;
      for (const int64_t slots : {1, 3})
        for (const int64_t width : {1, 5, 10}) {
          INFO(preset_name << ", " << one.name << ", " << slots << " slots of " << width);
          std::vector<eagle::EagleHead::States> made[2];
          for (const bool watched : {false, true}) {
            Watching observer;
            OpObserver* const before = exchange_op_observer(watched ? &observer : nullptr);
            infer::KvCache cache(1, slots, 40, device);
            RandomState::current().set_seed(5);
            for (int pass = 0; pass < 3; ++pass) {
              const Tensor ids = random_ids(slots, width, base->config().vocab_size, device);
              const Tensor hidden = to(randn({slots, width, dim}, device), dtype);
              const nn::Sequence sequence = cache.decode(width);
              made[watched ? 1 : 0].push_back(head->forward(base->embed(ids), hidden, sequence));
              cache.advance(Array::full({slots}, static_cast<double>(width), DType::i32, device));
            }
            exchange_op_observer(before);
          }
          const double tolerance = dtype == DType::bf16 ? 4e-2 : 5e-3;  // a few roundings
          for (size_t pass = 0; pass < made[0].size(); ++pass) {
            const auto& few = made[0][pass];
            const auto& all = made[1][pass];
            CHECK(relative_difference(few.output.array(), all.output.array()) < tolerance);
            CHECK(relative_difference(few.recurring.array(), all.recurring.array()) < tolerance);
          }
        }
      base->to(Device::cpu());
    }
  }
}
