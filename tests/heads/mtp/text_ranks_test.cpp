// Ranks of known texts are those that decoding itself finds.
#include <binade/heads/mtp/text_ranks.h>

#include <catch2/catch.hpp>

#include <binade/heads/decoding/decode_texts.h>
#include <binade/heads/decoding/tree_search.h>
#include <binade/heads/mtp/proposer.h>

#include "heads/mtp/heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace mtp = heads::mtp;

namespace {

using Rows = std::vector<std::vector<int32_t>>;

const Rows kPrompts = {{5, 6, 7}, {11, 12, 13, 14, 15}, {40, 3, 22, 9}, {1, 2, 3, 1, 2, 3}};
constexpr int64_t kNew = 24;

decoding::DecodedTexts decode(const mtp::MtpHeads& heads, const decoding::DraftTree& tree) {
  const auto proposer = mtp::make_proposer(heads, tree, {.slots = 1});
  const auto rule = decoding::greedy_acceptance();
  decoding::SpeculativeDecoder decoder(heads.base(), *proposer, *rule, {.slots = 1});
  return decoding::decode_texts(decoder, kPrompts, {.max_new_tokens = kNew});
}

// Of passes with `tree`, without decoding.
decoding::RankCounts count(const mtp::MtpHeads& heads, const Rows& texts,
                           const decoding::DraftTree& tree) {
  decoding::RankCounts counts(heads.config().depth, decoding::TreeLimits{}.width);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int32_t> text = kPrompts[i];
    text.insert(text.end(), texts[i].begin(), texts[i].end());
    decoding::record_passes(counts, tree,
                            mtp::text_ranks(heads, text, static_cast<int64_t>(kPrompts[i].size())));
  }
  return counts;
}

}  // namespace

TEST_CASE("ranks in a text are those of drafts that were decoded", "[heads][mtp]") {
  const auto base = mtp_base();
  for (const mtp::MtpConfig& config : kMtpConfigs) {
    const auto heads = mtp_heads(base, config);
    const Rows texts = decode(*heads, decoding::DraftTree()).texts;
    int64_t hits = 0;
    std::vector<decoding::DraftTree> trees = {decoding::DraftTree::chain(config.depth),
                                              decoding::DraftTree::full({8, 3})};
    // The tree that a search finds, among them.
    trees.push_back(
        decoding::search_tree(count(*heads, texts, decoding::DraftTree()), /*nodes=*/24));
    for (const decoding::DraftTree& tree : trees) {
      INFO(mtp::name_of(config.kind) << ", tree " << tree.json());
      const decoding::DecodedTexts decoded = decode(*heads, tree);
      REQUIRE(decoded.texts == texts);
      if (tree.size() == 1) continue;  // no first guess was ever right
      const decoding::RankCounts counts = count(*heads, texts, tree);
      CHECK(counts.positions() == decoded.ranks->positions());
      for (const decoding::DraftTree::Path& path : tree.choices()) {
        INFO(decoding::text_of(path));
        CHECK(counts.joint(path) == decoded.ranks->joint(path));
        hits += counts.joint(path);
      }
    }
    CHECK(hits > 0);
  }
}

TEST_CASE("ranks end with the text and begin where a module can guess", "[heads][mtp]") {
  const auto base = mtp_base();
  const std::vector<int32_t> text = {4, 9, 17, 3, 3, 8};
  const auto modules = mtp_heads(base, {.kind = mtp::Kind::sequential, .depth = 3});
  // All 61 tokens do not fit 16 guesses, so that a rank may be -1; with one token before the root
  // the second depth has nothing to begin from.
  const auto ranks = mtp::text_ranks(*modules, text, 1, 16);
  REQUIRE(ranks.size() == 4);
  CHECK(ranks[0].size() == 3);
  CHECK(ranks[0][1] == -1);
  CHECK(ranks[0][2] == -1);
  CHECK(ranks[1][2] == -1);
  CHECK(ranks[1].size() == 3);
  CHECK(ranks[2].size() == 2);
  CHECK(ranks[3].size() == 1);
  CHECK(mtp::text_ranks(*modules, text, 6).empty());
  CHECK(mtp::text_ranks(*modules, text, 5).empty());
  // Among a part of the tokens, the others are none, and the ranks of the rest fall together.
  std::vector<int32_t> part;
  for (int32_t id = 0; id < 61; id += 2) part.push_back(id);
  const auto of_all = mtp::text_ranks(*modules, text, 1, 61);
  const auto of_part = mtp::text_ranks(*modules, text, 1, 61, decoding::DraftVocabulary(part, 61));
  REQUIRE(of_part.size() == of_all.size());
  for (size_t i = 0; i < of_all.size(); ++i)
    for (size_t k = 0; k < of_all[i].size(); ++k) {
      const bool known = text[1 + i + k + 1] % 2 == 0;
      CHECK((known ? of_part[i][k] <= of_all[i][k] : of_part[i][k] == -1));
      CHECK((of_all[i][k] < 0 || !known || of_part[i][k] >= 0));
    }
  CHECK_THROWS_WITH(mtp::text_ranks(*modules, text, 0), Contains("1 or more"));
  CHECK_THROWS_WITH(mtp::text_ranks(*modules, text, 7), Contains("6 tokens"));
  CHECK_THROWS_WITH(mtp::text_ranks(*modules, text, 1, 0), Contains("1 or more guesses"));
}
