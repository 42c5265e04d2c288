// Multi-token prediction as a proposer: its drafts are what whole texts would give.
#include <binade/heads/mtp/proposer.h>

#include <algorithm>
#include <random>

#include <catch2/catch.hpp>

#include "gpu.h"
#include "heads/mtp/heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace mtp = heads::mtp;

namespace {

using Text = std::vector<int32_t>;

Tensor batch_of(const Text& text, const mtp::MtpHeads& heads) {
  return Tensor::from(text, {1, static_cast<int64_t>(text.size())}, heads.base().device());
}

// A text without its newest token, as the target was fed it.
struct Fed {
  Tensor hidden, stream;  // (1, T, dim)
};
Fed feed(const mtp::MtpHeads& heads, const Text& text) {
  const Text fed(text.begin(), text.end() - 1);
  const auto states =
      heads.base().states(batch_of(fed, heads), {}, {heads.base().config().layers - 1});
  return {states.hidden, states.streams[0]};
}

// What the heads say at the last place of a text whose model pass ended before `known` tokens: the
// guess of rank `rank` at the token that follows `text`, among `part` of the tokens.
int32_t guess_on_whole_text(const mtp::MtpHeads& heads, const Text& text, size_t known,
                            int32_t rank, const decoding::DraftVocabulary& part) {
  const Tensor ids = batch_of(text, heads);
  const auto depth = static_cast<int64_t>(text.size() - known);  // tokens beyond the next, from 0
  const TensorList outputs = heads.outputs(heads.trunk(ids, {}), ids, {}, {});
  // Depth k = depth + 1 learnt all of `text` at position known − 2.
  const auto at = static_cast<int64_t>(known) - 2;
  const Tensor output = slice(outputs[static_cast<size_t>(depth)], 1, at, at + 1);
  const auto logits = heads.base().logits(output).to_vector<float>();
  std::vector<int32_t> order = part.ids();
  for (size_t i = 0; part.whole() && i < logits.size(); ++i)
    order.push_back(static_cast<int32_t>(i));
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  return order[static_cast<size_t>(rank)];
}

// Rows of differing lengths, padded, (B, M, dim).
Array padded(const std::vector<Tensor>& rows, int64_t length, Device device) {
  const int64_t dim = 32;
  const Array all =
      Array::full({static_cast<int64_t>(rows.size()), length, dim}, 7, DType::f32, device);
  for (size_t b = 0; b < rows.size(); ++b)
    if (rows[b].defined())
      all.select(0, static_cast<int64_t>(b))
          .slice(0, 0, rows[b].size(1))
          .copy_from(rows[b].array().select(0, 0));
  return all;
}

// Texts that grow by whatever is accepted; drafts are checked against whole texts at each pass.
class Game {
 public:
  Game(const mtp::MtpHeads& heads, const decoding::DraftTree& tree, int64_t slots,
       const decoding::DraftVocabulary& part = {})
      : heads_(heads),
        slots_(slots),
        part_(part),
        proposer_(mtp::make_proposer(heads, tree, {.slots = slots, .vocabulary = part})),
        texts_(static_cast<size_t>(slots)),
        known_(static_cast<size_t>(slots), 100) {}

  // Texts with their newest token.
  void begin(const std::vector<int32_t>& slots, const std::vector<Text>& texts) {
    size_t longest = 0;
    for (const Text& text : texts) longest = std::max(longest, text.size() - 1);
    decoding::Observation seen{.slots = slots, .prompts = true};
    std::vector<int32_t> tokens, counts, next;
    std::vector<Tensor> hidden, streams;
    for (size_t b = 0; b < texts.size(); ++b) {
      const Text& text = texts[b];
      texts_[static_cast<size_t>(slots[b])] = text;
      known_[static_cast<size_t>(slots[b])] = static_cast<int64_t>(text.size()) - 1;
      tokens.insert(tokens.end(), text.begin(), text.end() - 1);
      tokens.resize((b + 1) * longest, 0);
      counts.push_back(static_cast<int32_t>(text.size()) - 1);
      next.push_back(text.back());
      const Fed fed = feed(heads_, text);
      hidden.push_back(fed.hidden);
      streams.push_back(fed.stream);
    }
    finish(seen, tokens, counts, next, hidden, streams, static_cast<int64_t>(longest));
  }

  // Drafts, checks them, accepts up to `most` nodes of a random path and a random token behind.
  void pass(int64_t most) {
    const decoding::Drafts drafts = proposer_->propose({});
    const decoding::DraftTree& tree = *drafts.tree;
    const auto width = static_cast<size_t>(tree.size());
    const auto tokens = drafts.tokens.to_vector<int32_t>();
    REQUIRE(tokens.size() == static_cast<size_t>(slots_) * width);
    std::vector<int32_t> fed, counts, next;
    std::vector<std::vector<int32_t>> nodes;
    size_t longest = 0;
    for (int64_t slot = 0; slot < slots_; ++slot) {
      const auto s = static_cast<size_t>(slot);
      std::vector<int32_t>& path = nodes.emplace_back();
      if (texts_[s].empty()) continue;
      const auto token = [&](int32_t node) {
        return tokens[s * width + static_cast<size_t>(node)];
      };
      CHECK(token(0) == texts_[s].back());
      for (int32_t node = 1; node < tree.size(); ++node) {
        Text text = texts_[s];
        std::vector<int32_t> above;
        for (int32_t at = tree.parents()[static_cast<size_t>(node)]; at > 0;
             at = tree.parents()[static_cast<size_t>(at)])
          above.insert(above.begin(), token(at));
        text.insert(text.end(), above.begin(), above.end());
        if (token(node) == decoding::kNoToken) {
          // Some text may be shorter than the guess looks ahead.
          CHECK(*std::min_element(known_.begin(), known_.end()) <
                tree.depths()[static_cast<size_t>(node)]);
          continue;
        }
        drafted_ = std::max<int64_t>(drafted_, tree.depths()[static_cast<size_t>(node)]);
        INFO("slot " << slot << ", node " << node << " behind " << texts_[s].size());
        CHECK(token(node) == guess_on_whole_text(heads_, text, texts_[s].size(),
                                                 tree.ranks()[static_cast<size_t>(node)], part_));
      }
      path = {0};
      while (static_cast<int64_t>(path.size()) <= most && random_() % 4 != 0 &&
             !tree.children(path.back()).empty()) {
        const auto& children = tree.children(path.back());
        const int32_t child = children[random_() % children.size()];
        if (token(child) == decoding::kNoToken) break;
        path.push_back(child);
      }
      longest = std::max(longest, path.size());
    }
    // Accepted tokens are fed; the random one is the newest.
    decoding::Observation seen;
    std::vector<Tensor> hidden, streams;
    for (size_t s = 0; s < nodes.size(); ++s) {
      const std::vector<int32_t>& path = nodes[s];
      for (size_t j = 0; j < longest; ++j)
        fed.push_back(j < path.size() ? tokens[s * width + static_cast<size_t>(path[j])] : 0);
      counts.push_back(static_cast<int32_t>(path.size()));
      next.push_back(static_cast<int32_t>(random_() % 61));
      hidden.emplace_back();
      streams.emplace_back();
      if (path.empty()) continue;
      Text& text = texts_[s];
      const auto first = static_cast<int64_t>(text.size()) - 1;
      for (size_t j = 1; j < path.size(); ++j)
        text.push_back(tokens[s * width + static_cast<size_t>(path[j])]);
      text.push_back(next.back());
      const Fed states = feed(heads_, text);
      hidden.back() = slice(states.hidden, 1, first);
      streams.back() = slice(states.stream, 1, first);
    }
    for (int64_t& known : known_) ++known;
    finish(seen, fed, counts, next, hidden, streams, static_cast<int64_t>(longest));
  }

  int64_t deepest_drafted() const { return drafted_; }
  bool has_room() const {
    return std::all_of(texts_.begin(), texts_.end(),
                       [](const Text& text) { return text.size() < 34; });
  }

 private:
  void finish(decoding::Observation& seen, const std::vector<int32_t>& tokens,
              const std::vector<int32_t>& counts, const std::vector<int32_t>& next,
              const std::vector<Tensor>& hidden, const std::vector<Tensor>& streams,
              int64_t length) {
    const auto rows = static_cast<int64_t>(counts.size());
    const Device device = heads_.base().device();
    seen.tokens = Array::from(tokens, {rows, length}, device);
    seen.counts = Array::from(counts, {rows}, device);
    seen.next = Array::from(next, {rows}, device);
    seen.hidden = padded(hidden, length, device);
    seen.residuals = {padded(streams, length, device)};
    proposer_->observe(seen);
  }

  const mtp::MtpHeads& heads_;
  int64_t slots_;
  decoding::DraftVocabulary part_;
  std::unique_ptr<decoding::Proposer> proposer_;
  std::vector<Text> texts_;
  std::vector<int64_t> known_;  // tokens before the newest, at least: every pass brings one
  std::mt19937 random_{3};
  int64_t drafted_ = 0;
};

Text some_text(size_t length, size_t from) {
  const auto ids = random_ids(1, 64, 61).array().to_vector<int32_t>();
  return {ids.begin() + static_cast<int64_t>(from),
          ids.begin() + static_cast<int64_t>(from + length)};
}

const std::vector<decoding::DraftTree>& trees() {
  static const std::vector<decoding::DraftTree> all = {
      decoding::DraftTree::chain(2), decoding::DraftTree::full({2, 2}),
      decoding::DraftTree::from_choices({{0}, {2}, {0, 1}, {2, 0}})};
  return all;
}

}  // namespace

TEST_CASE("drafts of multi-token prediction are those of whole texts, guesses among them",
          "[heads][mtp][proposer]") {
  const NoGrad off;
  for (const nn::Family family : {nn::Family::llama, nn::Family::gpt2, nn::Family::mistral})
    for (const mtp::MtpConfig& config : kMtpConfigs) {
      const auto base = mtp_base(family);
      const auto heads = mtp_heads(base, config);
      std::vector<decoding::DraftTree> drafted = trees();
      if (config.depth == 3) {
        drafted.push_back(decoding::DraftTree::chain(3));
        drafted.push_back(decoding::DraftTree::full({2, 1, 2}));
      }
      for (const decoding::DraftTree& tree : drafted) {
        INFO(mtp::name_of(config.kind) << " " << tree.json());
        Game game(*heads, tree, 3);
        game.begin({0, 2}, {some_text(6, 0), some_text(9, 10)});
        for (int pass = 0; pass < 3; ++pass) game.pass(3);
        game.begin({1, 0}, {some_text(5, 20), some_text(8, 30)});  // another one joins
        for (int pass = 0; pass < 3 && game.has_room(); ++pass) game.pass(3);
        CHECK(game.deepest_drafted() == tree.depth());
      }
    }
}

TEST_CASE("multi-token prediction guesses among a part of the vocabulary",
          "[heads][mtp][proposer]") {
  const NoGrad off;
  std::vector<int32_t> ids;
  for (int32_t id = 1; id < 61; id += 3) ids.push_back(id);
  const decoding::DraftVocabulary part(ids, 61);
  std::vector<Device> devices = {Device::cpu()};
  if (cuda_device_count() > 0) devices.push_back(test_gpu());
  for (const Device device : devices) {
    for (const mtp::MtpConfig& config : kMtpConfigs) {
      const auto base = mtp_base();
      const auto heads = mtp_heads(base, config);
      base->to(device);
      heads->to(device);
      Game game(*heads, decoding::DraftTree::full({2, 2}), 3, part);
      game.begin({0, 1, 2}, {some_text(2, 0), some_text(6, 10), some_text(9, 20)});
      for (int pass = 0; pass < 4; ++pass) game.pass(2);
      CHECK(game.deepest_drafted() == 2);
    }
  }
  const auto heads = mtp_heads(mtp_base(), {.depth = 2});
  CHECK_THROWS_WITH(mtp::make_proposer(*heads, decoding::DraftTree::full({3, 1}),
                                       {.vocabulary = decoding::DraftVocabulary({4, 9}, 61)}),
                    Contains("takes 3 guesses of a vocabulary of 2"));
}

TEST_CASE("drafts of multi-token prediction on the GPU are those of whole texts",
          "[heads][mtp][proposer][cuda]") {
  const NoGrad off;
  const Device gpu = cuda_or_skip();
  for (const mtp::MtpConfig& config : kMtpConfigs) {
    const auto base = mtp_base();
    const auto heads = mtp_heads(base, config);
    base->to(gpu);
    heads->to(gpu);
    Game game(*heads, decoding::DraftTree::full({2, 2}), 3);
    game.begin({0, 1, 2}, {some_text(2, 0), some_text(6, 10), some_text(9, 20)});
    for (int pass = 0; pass < 4; ++pass) game.pass(2);
    CHECK(game.deepest_drafted() == 2);
  }
}

TEST_CASE("texts shorter than a module looks ahead are drafted less deeply, and exactly",
          "[heads][mtp][proposer]") {
  const NoGrad off;
  const auto base = mtp_base();
  for (const mtp::MtpConfig& config : kMtpConfigs)
    for (const int64_t most : {0, 3}) {
      if (config.depth < 3) continue;
      const auto heads = mtp_heads(base, config);
      Game game(*heads, decoding::DraftTree::full({2, 1, 1}), 3);
      game.begin({0, 1, 2}, {some_text(2, 0), some_text(3, 10), some_text(7, 20)});
      for (int pass = 0; pass < 5; ++pass) game.pass(most);
      CHECK(game.deepest_drafted() == 3);
    }
}

TEST_CASE("what a proposer of multi-token prediction cannot do is refused",
          "[heads][mtp][proposer][errors]") {
  const NoGrad off;
  const auto base = mtp_base();
  const auto heads = mtp_heads(base, {.depth = 2});
  CHECK_THROWS_WITH(mtp::make_proposer(*heads, decoding::DraftTree::chain(3), {}),
                    Contains("3 levels deep"));
  CHECK_THROWS_WITH(mtp::make_proposer(*heads, {}, {.slots = 0}), Contains("1 or more slots"));
  const auto proposer = mtp::make_proposer(*heads, decoding::DraftTree::chain(2), {});
  CHECK(proposer->needs().hidden);
  CHECK_THROWS_WITH(proposer->propose({}), Contains("nothing was observed"));
  CHECK_THROWS_WITH(proposer->observe({}), Contains("hidden states"));
  const auto parallel = mtp_heads(base, {.kind = mtp::Kind::parallel, .depth = 2});
  const auto other = mtp::make_proposer(*parallel, decoding::DraftTree::chain(2), {});
  CHECK(other->needs().residual_layers == std::vector<int64_t>{1});
  CHECK_THROWS_WITH(other->observe({}), Contains("residual streams"));
}
