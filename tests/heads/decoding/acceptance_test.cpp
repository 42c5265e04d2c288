#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/decoding/acceptance.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;

namespace {

struct Case {
  DraftTree tree;
  int64_t vocabulary = 0;
  std::vector<int32_t> tokens;
  std::vector<float> logits;

  Proposal proposal() const { return {.tree = tree, .tokens = tokens}; }
  TargetRows target() const { return {logits, vocabulary}; }
  std::vector<double> softmax(int32_t node, double temperature) const {
    std::vector<double> p(static_cast<size_t>(vocabulary));
    double sum = 0;
    for (size_t x = 0; x < p.size(); ++x) {
      const float logit = logits[static_cast<size_t>(node) * p.size() + x];
      sum += p[x] = std::exp(static_cast<double>(logit) / temperature);
    }
    for (double& x : p) x /= sum;
    return p;
  }
  int32_t argmax(int32_t node) const {
    const auto row = logits.begin() + node * vocabulary;
    return static_cast<int32_t>(std::max_element(row, row + vocabulary) - row);
  }
};

// A small vocabulary, so that long paths are accepted and siblings may be equal; some nodes have no
// guess. Every third root has the token that padding would have if it were read as a node.
Case random_case(uint64_t seed) {
  uint64_t draw = 0;
  const auto uniform = [&] { return uniform_of(philox(seed, 0, 1, draw++).word[0]); };
  Case c;
  const DraftTree trees[] = {
      DraftTree::full({3, 2, 2}), DraftTree::chain(4),
      DraftTree::from_choices({{0}, {1}, {0, 0}, {0, 1}, {0, 0, 0}, {1, 0}, {1, 0, 0}}),
      DraftTree()};
  c.tree = trees[seed % 4];
  c.vocabulary = 3;
  for (int64_t node = 0; node < c.tree.size(); ++node) {
    const auto token = static_cast<int32_t>(uniform() * 3);
    c.tokens.push_back(node > 0 && uniform() < 0.1F ? kNoToken : token);
    for (int i = 0; i < 3; ++i) c.logits.push_back(4 * uniform());
  }
  return c;
}

// By the rows of leaf_paths(): the longest accepted beginning of any row; among equals the one with
// the best score, then the smallest last node.
template <class Accepts, class Score>
std::vector<int32_t> best_beginning(const Case& c, const Accepts& accepts, const Score& score) {
  const DraftTree::LeafPaths paths = c.tree.leaf_paths();
  std::vector<int32_t> best = {0};
  double best_score = 0;
  for (int64_t leaf = 0; leaf < paths.leaves; ++leaf) {
    std::vector<int32_t> path = {0};
    double total = 0;
    const auto better = [&] {
      if (path.size() != best.size()) return path.size() > best.size();
      if (total != best_score) return total > best_score;
      return path.back() < best.back();
    };
    for (int64_t i = 1; i < paths.length; ++i) {
      const int32_t node = paths.nodes[static_cast<size_t>(leaf * paths.length + i)];
      if (node < 0 || c.tokens[static_cast<size_t>(node)] == kNoToken) break;
      if (!accepts(path.back(), c.tokens[static_cast<size_t>(node)])) break;
      total += score(path.back(), c.tokens[static_cast<size_t>(node)]);
      path.push_back(node);
      if (better()) best = path, best_score = total;
    }
  }
  return best;
}

}  // namespace

TEST_CASE("greedy acceptance takes the longest path of most probable tokens", "[decoding]") {
  const auto rule = greedy_acceptance();
  size_t deepest = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Case c = random_case(seed);
    const Accepted accepted = rule->accept(c.proposal(), c.target(), {});
    const std::vector<int32_t> expected = best_beginning(
        c, [&](int32_t parent, int32_t token) { return token == c.argmax(parent); },
        [](int32_t, int32_t) { return 0.0; });
    CAPTURE(seed);
    REQUIRE(accepted.nodes == expected);
    REQUIRE(accepted.next == c.argmax(expected.back()));
    deepest = std::max(deepest, expected.size());
  }
  CHECK(deepest == 5);
}

TEST_CASE("typical acceptance takes the longest path above the threshold, then the likeliest",
          "[decoding]") {
  const TypicalOptions options{.temperature = 1.5, .epsilon = 0.3, .delta = 0.7};
  const auto rule = typical_acceptance(options);
  size_t deepest = 0, ties = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Case c = random_case(seed);
    const auto accepts = [&](int32_t parent, int32_t token) {
      const std::vector<double> p = c.softmax(parent, options.temperature);
      double entropy = 0;
      for (const double x : p) entropy -= x * std::log(x);
      return p[static_cast<size_t>(token)] >
             std::min(options.epsilon, options.delta * std::exp(-entropy));
    };
    const auto log_p = [&](int32_t parent, int32_t token) {
      return std::log(c.softmax(parent, options.temperature)[static_cast<size_t>(token)]);
    };
    const std::vector<int32_t> expected = best_beginning(c, accepts, log_p);
    const std::vector<int32_t> first =
        best_beginning(c, accepts, [](int32_t, int32_t) { return 0.0; });
    const Accepted accepted = rule->accept(c.proposal(), c.target(), {});
    CAPTURE(seed);
    REQUIRE(accepted.nodes == expected);
    REQUIRE(accepted.next == c.argmax(expected.back()));
    deepest = std::max(deepest, expected.size());
    ties += expected != first ? 1 : 0;
  }
  CHECK(deepest == 5);
  CHECK(ties > 50);
}

TEST_CASE("typical acceptance follows the thresholds of the paper", "[decoding]") {
  // p = (.5, .3, .12, .08): H = 1.167 nats, δ·exp(−H) = .0934 with δ = .3; min(.09, …) = .09.
  Case c{DraftTree::full({4}), 4, {0, 0, 1, 2, 3}, {}};
  for (int node = 0; node < 5; ++node)
    for (const double p : {.5, .3, .12, .08}) c.logits.push_back(static_cast<float>(std::log(p)));
  const auto nodes = [&](int32_t first_token, const TypicalOptions& options) {
    for (size_t i = 1; i < 5; ++i) c.tokens[i] = first_token;
    return typical_acceptance(options)->accept(c.proposal(), c.target(), {}).nodes.size();
  };
  const TypicalOptions paper{.temperature = 1};
  CHECK(nodes(1, paper) == 2);
  CHECK(nodes(2, paper) == 2);
  CHECK(nodes(3, paper) == 1);
  // A flat distribution lowers the bar: at temperature 3 token 3 has 0.166 > .3·exp(−1.32).
  CHECK(nodes(3, {.temperature = 3}) == 2);
  CHECK(nodes(2, {.temperature = 1, .epsilon = .2, .delta = 1}) == 1);

  CHECK_THROWS_WITH(typical_acceptance({.temperature = 0}), Contains("greedy"));
  CHECK_THROWS_WITH(typical_acceptance({.epsilon = 0}), Contains("epsilon"));
  CHECK_THROWS_WITH(typical_acceptance({.delta = 1.1}), Contains("delta"));
}

TEST_CASE("padding and nodes without a guess are never accepted", "[decoding]") {
  // The target always wants token 2, which is also what the last node says; the row of leaf 1 ends
  // in padding that −1 as an index would turn into that node.
  Case c{DraftTree::from_choices({{0}, {1}, {1, 0}}), 3, {2, 2, 1, 2}, {}};
  for (int node = 0; node < 4; ++node) c.logits.insert(c.logits.end(), {0.F, 1.F, 9.F});
  const auto greedy = greedy_acceptance();
  const auto sampling = speculative_sampling({});
  for (const AcceptanceRule* rule : {greedy.get(), sampling.get()}) {
    c.tokens = {2, 2, 1, 2};
    CHECK(rule->accept(c.proposal(), c.target(), {}).nodes == std::vector<int32_t>{0, 1});
    c.tokens = {2, kNoToken, kNoToken, 2};
    const Accepted accepted = rule->accept(c.proposal(), c.target(), {});
    CHECK(accepted.nodes == std::vector<int32_t>{0});
    CHECK(accepted.next == 2);
  }
}

TEST_CASE("sampling at temperature 0 is greedy decoding", "[decoding]") {
  const auto greedy = greedy_acceptance();
  const auto sampling = speculative_sampling({});
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Case c = random_case(seed);
    // Of equal siblings only the first is ever taken by sampling.
    bool equal = false;
    for (int64_t node = 0; node < c.tree.size(); ++node) {
      std::vector<int32_t> tokens;
      for (const int32_t child : c.tree.children(node))
        tokens.push_back(c.tokens[static_cast<size_t>(child)]);
      std::sort(tokens.begin(), tokens.end());
      equal = equal || std::adjacent_find(tokens.begin(), tokens.end()) != tokens.end();
    }
    if (equal) continue;
    const Accepted a = greedy->accept(c.proposal(), c.target(), {});
    const Accepted b = sampling->accept(c.proposal(), c.target(), {.seed = seed});
    CAPTURE(seed);
    CHECK(a.nodes == b.nodes);
    CHECK(a.next == b.next);
  }
}

TEST_CASE("rules choose the token behind a prompt as they choose those behind drafts",
          "[decoding]") {
  const std::vector<float> logits = {0.5F, 2, 1, 2};
  CHECK(greedy_acceptance()->choose(logits, {}) == 1);
  CHECK(typical_acceptance({})->choose(logits, {}) == 1);
  const auto sampling = speculative_sampling({.temperature = 1});
  const DraftTree root;
  const std::vector<int32_t> token = {0};
  for (uint64_t pass = 0; pass < 50; ++pass) {
    const Draws draws{.seed = 4, .pass = pass};
    CHECK(sampling->choose(logits, draws) ==
          sampling->accept({.tree = root, .tokens = token}, {logits, 4}, draws).next);
  }
}

TEST_CASE("acceptance rules refuse what does not fit", "[decoding]") {
  const DraftTree tree = DraftTree::full({2, 1});
  const std::vector<int32_t> tokens = {0, 1, 2, 1, 0};
  const std::vector<float> logits(15, 0.F), q = {.5F, .25F, .25F, .2F, .3F, .5F};
  const std::vector<int32_t> rows = {0, 1, 1, -1, -1};
  const auto greedy = greedy_acceptance();
  const auto typical = typical_acceptance({});
  const auto sampling = speculative_sampling({.temperature = 1});
  const Proposal good{.tree = tree,
                      .tokens = tokens,
                      .drawn = Drawn::with_replacement,
                      .q = {.rows = q, .row_of = rows}};
  const TargetRows target{logits, 3};
  for (const AcceptanceRule* rule : {greedy.get(), typical.get(), sampling.get()}) {
    CAPTURE(rule->name());
    CHECK_NOTHROW(rule->accept(good, target, {}));
    CHECK_THROWS_WITH(rule->accept(good, {std::span(logits).first(12), 3}, {}),
                      Contains("5 rows of 3 logits"));
    const auto with_tokens = [&](const std::vector<int32_t>& other) {
      return rule->accept({.tree = tree, .tokens = other}, target, {});
    };
    CHECK_THROWS_WITH(with_tokens({0, 1, 2}), Contains("as many tokens"));
    CHECK_THROWS_WITH(with_tokens({0, 1, 3, 1, 0}), Contains("node 2") && Contains("vocabulary"));
    CHECK_THROWS_WITH(with_tokens({0, -2, 1, 1, 0}), Contains("node 1"));
    CHECK_THROWS_WITH(with_tokens({-1, 0, 1, 1, 0}), Contains("node 0"));
    std::vector<float> bad = logits;
    bad[1] = std::nanf("");
    CHECK_THROWS_WITH(rule->accept(good, {bad, 3}, {}), Contains("node 0 have a NaN"));
    CHECK_THROWS_WITH(rule->choose(std::span(bad).first(3), {}), Contains("NaN"));
    std::fill(bad.begin(), bad.begin() + 3, -std::numeric_limits<float>::infinity());
    CHECK_THROWS_WITH(rule->accept(good, {bad, 3}, {}), Contains("minus infinity"));
  }

  const auto with_q = [&](const std::vector<float>& other, const std::vector<int32_t>& row_of) {
    return sampling->accept({.tree = tree,
                             .tokens = tokens,
                             .drawn = Drawn::without_replacement,
                             .q = {.rows = other, .row_of = row_of}},
                            target, {});
  };
  CHECK_NOTHROW(with_q(q, rows));
  CHECK_THROWS_WITH(with_q({}, {}), Contains("q") && Contains("missing"));
  CHECK_THROWS_WITH(with_q(q, {-1, 1, 1, -1, -1}), Contains("below node 0") && Contains("missing"));
  CHECK_THROWS_WITH(with_q(q, {2, 1, 1, -1, -1}), Contains("row 2"));
  CHECK_THROWS_WITH(with_q(q, {0, 1}), Contains("as many rows"));
  CHECK_THROWS_WITH(with_q({.5F, .5F}, rows), Contains("rows of 3 tokens"));
  CHECK_THROWS_WITH(with_q({.5F, .2F, .2F}, {0, 0, 0, 0, 0}), Contains("add up to"));
  CHECK_THROWS_WITH(with_q({.5F, 1.F, -.5F}, {0, 0, 0, 0, 0}), Contains("negative"));
  CHECK_THROWS_WITH(with_q({.5F, .5F, std::nanf("")}, {0, 0, 0, 0, 0}), Contains("NaN"));
  CHECK_THROWS_WITH(with_q({1, 0, 0}, {0, 0, 0, 0, 0}), Contains("node 1") && Contains("token 1"));
  const DraftTree gap = DraftTree::from_choices({{0}, {2}});
  const std::vector<int32_t> three = {0, 1, 2}, one_row = {0, 0, 0};
  CHECK_THROWS_WITH(sampling->accept({.tree = gap,
                                      .tokens = three,
                                      .drawn = Drawn::without_replacement,
                                      .q = {.rows = std::span(q).first(3), .row_of = one_row}},
                                     {std::span(logits).first(9), 3}, {}),
                    Contains("[[0], [2]]") && Contains("gap"));
  CHECK_THROWS_WITH(speculative_sampling({.temperature = -1}), Contains("temperature"));
}

TEST_CASE("siblings without chance in them are the most probable ones", "[decoding]") {
  const std::vector<float> q = {.125F, .25F, 0, .25F, .375F};
  CHECK(draw_siblings(q, 6, Drawn::best, {}, 0) ==
        std::vector<int32_t>{4, 1, 3, 0, kNoToken, kNoToken});
  CHECK_THROWS_WITH(draw_siblings({}, 1, Drawn::best, {}, 0), Contains("add up to 0"));
  CHECK_THROWS_WITH(draw_siblings(q, -1, Drawn::best, {}, 0), Contains("-1"));
}

TEST_CASE("siblings drawn without replacement differ and end with the tokens that can be drawn",
          "[decoding]") {
  const std::vector<float> q = {.1F, 0, .6F, .3F};
  for (uint64_t pass = 0; pass < 200; ++pass) {
    std::vector<int32_t> tokens =
        draw_siblings(q, 4, Drawn::without_replacement, {.seed = 1, .pass = pass}, 0);
    CHECK(tokens[3] == kNoToken);
    std::sort(tokens.begin(), tokens.end());
    CHECK(tokens == std::vector<int32_t>{kNoToken, 0, 2, 3});
  }
}

TEST_CASE("draws for different uses, passes, places and elements are different", "[decoding]") {
  std::vector<double> seen;
  for (const DrawUse use : {DrawUse::draft, DrawUse::acceptance, DrawUse::next})
    for (uint64_t pass = 0; pass < 4; ++pass)
      for (uint64_t place = 0; place < 4; ++place)
        for (int64_t element = 0; element < 8; ++element)
          seen.push_back(Draws{.seed = 3, .pass = pass, .place = place}.uniform(use, element));
  std::sort(seen.begin(), seen.end());
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
  CHECK(seen.front() >= 0);
  CHECK(seen.back() < 1);
  CHECK(std::accumulate(seen.begin(), seen.end(), 0.0) / static_cast<double>(seen.size()) ==
        Approx(0.5).margin(0.06));
}
