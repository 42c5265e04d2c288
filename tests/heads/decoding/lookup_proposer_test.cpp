#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/decoding/acceptance_stats.h>
#include <binade/heads/decoding/lookup_proposer.h>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;
using Tokens = std::vector<int32_t>;

TEST_CASE("lookup continues the latest earlier place of the longest n-gram", "[decoding]") {
  const LookupOptions options{.longest = 3, .shortest = 1, .guesses = 3};
  //                    0  1  2  3  4  5  6  7  8  9
  CHECK(lookup(Tokens{1, 2, 3, 7, 8, 2, 3, 9, 8, 1, 2, 3}, options) == Tokens{7, 8, 2});
  CHECK(lookup(Tokens{5, 2, 3, 7, 8, 2, 3, 9, 8, 4, 2, 3}, options) == Tokens{9, 8, 4});
  CHECK(lookup(Tokens{5, 3, 7, 8, 6, 3, 9, 8, 4, 2, 3}, options) == Tokens{9, 8, 4});
  CHECK(lookup(Tokens{5, 3, 7, 3}, {.longest = 3, .shortest = 2}).empty());
  CHECK(lookup(Tokens{1, 2, 3}, options).empty());
  CHECK(lookup(Tokens{1}, options).empty());
  CHECK(lookup(Tokens{}, options).empty());
}

TEST_CASE("lookup continues texts that repeat themselves in their period", "[decoding]") {
  const LookupOptions options{.guesses = 7};
  CHECK(lookup(Tokens{4, 4}, options) == Tokens{4, 4, 4, 4, 4, 4, 4});
  CHECK(lookup(Tokens{9, 1, 2, 3, 1, 2, 3, 1}, options) == Tokens{2, 3, 1, 2, 3, 1, 2});
}

TEST_CASE("lookup finds what a search by definition finds", "[decoding]") {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Tokens text;
    for (uint64_t i = 0; i < 2 + seed % 30; ++i)
      text.push_back(static_cast<int32_t>(philox(seed, 0, 0, i).word[0] % 3));
    const LookupOptions options{.longest = 4, .shortest = 2, .guesses = 5};
    Tokens expected;
    for (int64_t n = 4; n >= 2 && expected.empty(); --n) {
      for (auto start = static_cast<int64_t>(text.size()) - n - 1; start >= 0; --start) {
        bool equal = true;
        for (int64_t i = 0; i < n; ++i)
          equal = equal && text[static_cast<size_t>(start + i)] == text[text.size() - n + i];
        if (!equal) continue;
        Tokens longer = text;
        for (int64_t i = 0; i < 5; ++i) {
          expected.push_back(longer[static_cast<size_t>(start + n + i)]);
          longer.push_back(expected.back());
        }
        break;
      }
    }
    CAPTURE(seed);
    REQUIRE(lookup(text, options) == expected);
  }
}

TEST_CASE("lookup refuses options out of range", "[decoding]") {
  CHECK_THROWS_WITH(lookup(Tokens{1, 1}, {.shortest = 0}), Contains("0 to 3"));
  CHECK_THROWS_WITH(lookup(Tokens{1, 1}, {.longest = 2, .shortest = 3}), Contains("3 to 2"));
  CHECK_THROWS_WITH(lookup(Tokens{1, 1}, {.guesses = 64}), Contains("1 to 63"));
  CHECK_THROWS_WITH(LookupProposer(0, {}), Contains("slots"));
}

TEST_CASE("the lookup proposer drafts a chain for each slot, as long as the longest match",
          "[decoding]") {
  LookupProposer proposer(3, {.guesses = 3});
  CHECK(proposer.needs().text);
  CHECK(proposer.propose({}).tokens.shape() == Shape({3, 1}));
  proposer.observe({.slots = {2, 0}, .prompts = true, .text = {{5, 6, 5}, {1, 2, 3}}});
  Drafts drafts = proposer.propose({});
  REQUIRE(drafts.tokens.shape() == Shape({3, 4}));
  const HostProposal last(drafts, 2);
  CHECK(Tokens(last.view().tokens.begin(), last.view().tokens.end()) == Tokens{5, 6, 5, 6});
  CHECK(last.view().tree.choices() == DraftTree::chain(3).choices());
  CHECK(last.view().drawn == Drawn::best);
  const HostProposal first(drafts, 0);
  CHECK(Tokens(first.view().tokens.begin(), first.view().tokens.end()) ==
        Tokens{3, kNoToken, kNoToken, kNoToken});

  // Slot 2 ends; slot 0 goes on with 1 behind its root, which makes a match.
  proposer.observe({.text = {{3, 1}, {}, {}}});
  drafts = proposer.propose({});
  const HostProposal grown(drafts, 0);
  CHECK(Tokens(grown.view().tokens.begin(), grown.view().tokens.end()) == Tokens{1, 2, 3, 1});
  CHECK(HostProposal(drafts, 2).view().tokens[1] == kNoToken);
  // A new prompt begins a new text.
  proposer.observe({.slots = {0}, .prompts = true, .text = {{7, 8}}});
  CHECK(proposer.propose({}).tokens.shape() == Shape({3, 1}));

  CHECK_THROWS_WITH(proposer.observe({.text = {{3, 1}}}), Contains("text of each row"));
  CHECK_THROWS_WITH(proposer.observe({.slots = {3}, .prompts = true, .text = {{3, 1}}}),
                    Contains("slot 3"));
  CHECK_THROWS_WITH(proposer.observe({.slots = {1}, .text = {{3, 1}}}), Contains("not observed"));
}

TEST_CASE("decoding with lookup gives the text of plain greedy decoding", "[decoding]") {
  // A target whose texts repeat themselves, and now and then do not.
  constexpr int64_t kVocabulary = 6;
  const auto logits_behind = [](const Tokens& text) {
    std::vector<float> logits(kVocabulary);
    const size_t n = text.size();
    logits[n % 37 == 0 ? n % 5 : static_cast<size_t>(text[n - 5] + (n % 60 == 0 ? 1 : 0)) % 6] = 1;
    return logits;
  };
  const auto rule = greedy_acceptance();
  const Tokens prompt = {0, 3, 1, 2, 4};
  Tokens plain = prompt;
  while (plain.size() < 200) plain.push_back(rule->choose(logits_behind(plain), {}));

  LookupProposer proposer(1, {.guesses = 5});
  AcceptanceStats stats;
  Tokens text = prompt;
  text.push_back(rule->choose(logits_behind(text), {}));
  proposer.observe({.prompts = true, .text = {text}});
  while (text.size() < 200) {
    const HostProposal drafts(proposer.propose({}), 0);
    const Proposal proposal = drafts.view();
    std::vector<float> logits;
    for (size_t node = 0; node < proposal.tokens.size(); ++node) {
      Tokens behind = text;  // node 0 is its last token; the tree is a chain
      behind.insert(behind.end(), proposal.tokens.begin() + 1,
                    proposal.tokens.begin() + 1 + static_cast<int64_t>(node));
      const std::vector<float> row = logits_behind(behind);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    const Accepted accepted = rule->accept(proposal, {logits, kVocabulary}, {});
    stats.record(proposal, accepted);
    Tokens seen;
    for (const int32_t node : accepted.nodes)
      seen.push_back(proposal.tokens[static_cast<size_t>(node)]);
    seen.push_back(accepted.next);
    text.insert(text.end(), seen.begin() + 1, seen.end());
    proposer.observe({.text = {seen}});
  }
  text.resize(200);
  CHECK(text == plain);
  CHECK(stats.tau() > 1.5);
}

TEST_CASE("drafts of a batch are seen slot by slot on the host", "[decoding]") {
  Drafts drafts;
  drafts.tokens = Array::from(Tokens{1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK_THROWS_WITH(HostProposal(drafts, 0), Contains("either a tree"));
  drafts.parents = Array::from(Tokens{-1, 0, 0, -1, 0, 1}, {2, 3});
  drafts.drawn = Drawn::without_replacement;
  drafts.q = Array::from(std::vector<float>{0, 1, 1, 0}, {2, 1, 2});
  CHECK_THROWS_WITH(HostProposal(drafts, 0), Contains("its rows"));
  drafts.q_row_of = Array::from(Tokens{0, -1, -1}, {3});
  const HostProposal host(drafts, 1);
  const Proposal view = host.view();
  CHECK(view.tree.parents() == Tokens{-1, 0, 1});
  CHECK(Tokens(view.tokens.begin(), view.tokens.end()) == Tokens{4, 5, 6});
  CHECK(view.drawn == Drawn::without_replacement);
  CHECK(std::vector<float>(view.q.rows.begin(), view.q.rows.end()) == std::vector<float>{1, 0});
  CHECK(Tokens(view.q.row_of.begin(), view.q.row_of.end()) == Tokens{0, -1, -1});
  CHECK_THROWS_WITH(HostProposal(drafts, 2), Contains("slot 2"));
  drafts.parents = Array::from(Tokens{-1, 0}, {1, 2});
  CHECK_THROWS_WITH(HostProposal(drafts, 0), Contains("do not fit"));
}
