#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/decoding/tree_search.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;
using Path = DraftTree::Path;
using Paths = std::vector<Path>;

namespace {

using Positions = std::vector<std::vector<int32_t>>;

// Ranks that are mostly small; `width` stands for a miss.
Positions random_positions(uint64_t seed, size_t count, size_t heads, int32_t width) {
  Positions positions(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t head = 0; head < heads; ++head) {
      const double u = uniform_of(philox(seed, i, 0, head).word[0]);
      positions[i].push_back(static_cast<int32_t>(u * u * (width + 1)));
    }
  }
  return positions;
}

// Every path of ranks as often as the product of its ranks' shares, so that counts fall with the
// rank; the last share is that of misses.
Positions falling_positions(const std::vector<std::vector<double>>& shares, double scale) {
  Positions positions;
  for (int32_t a = 0; a < 4; ++a) {
    for (int32_t b = 0; b < 4; ++b) {
      for (int32_t c = 0; c < 4; ++c) {
        const double share = shares[0][static_cast<size_t>(a)] * shares[1][static_cast<size_t>(b)] *
                             shares[2][static_cast<size_t>(c)];
        positions.insert(positions.end(), static_cast<size_t>(share * scale), {a, b, c});
      }
    }
  }
  return positions;
}

RankCounts count(const Positions& positions, int64_t heads, int64_t width) {
  RankCounts counts(heads, width);
  for (const std::vector<int32_t>& ranks : positions) counts.record(ranks);
  return counts;
}

// Accepted guesses of a greedy pass, on average, by following each position down the tree.
double walked(const DraftTree& tree, const Positions& positions) {
  double accepted = 0;
  for (const std::vector<int32_t>& ranks : positions) {
    int64_t node = 0;
    for (size_t head = 0; head < ranks.size(); ++head) {
      int64_t next = -1;
      for (const int32_t child : tree.children(node))
        if (tree.ranks()[static_cast<size_t>(child)] == ranks[head]) next = child;
      if (next < 0) break;
      node = next;
      ++accepted;
    }
  }
  return accepted / static_cast<double>(positions.size());
}

// All prefix-closed sets of `size` paths, in the order of `paths` (parents first).
void each_tree(const Paths& paths, size_t size, Paths& chosen, size_t from,
               const std::function<void(const Paths&)>& visit) {
  if (chosen.size() == size) return visit(chosen);
  for (size_t i = from; i < paths.size(); ++i) {
    const Path prefix(paths[i].begin(), paths[i].end() - 1);
    if (!prefix.empty() && std::find(chosen.begin(), chosen.end(), prefix) == chosen.end())
      continue;
    chosen.push_back(paths[i]);
    each_tree(paths, size, chosen, i + 1, visit);
    chosen.pop_back();
  }
}

}  // namespace

TEST_CASE("rank counts are those of a count by hand", "[decoding]") {
  const Positions positions = {{0, 1, 0}, {0, 1, -1}, {2, 0, 0}, {5, 1, 1}, {0, 3, 1}, {0}, {}};
  const RankCounts counts = count(positions, 3, 3);
  CHECK(counts.positions() == 7);
  CHECK(counts.joint({0}) == 4);
  CHECK(counts.joint({0, 1}) == 2);
  CHECK(counts.joint({0, 1, 0}) == 1);
  CHECK(counts.joint({2, 0, 0}) == 1);
  CHECK(counts.joint({1}) == 0);
  CHECK(counts.accuracy(0, 0) == Approx(4.0 / 6));
  CHECK(counts.accuracy(1, 1) == Approx(3.0 / 5));
  CHECK(counts.accuracy(2, 1) == Approx(2.0 / 5));
  CHECK(counts.top(0, 3) == Approx(5.0 / 6));
  CHECK(counts.top(1, 2) == Approx(4.0 / 5));
  CHECK(counts.top(2, 0) == 0);
  CHECK(RankCounts(1, 1).top(0, 1) == 0);

  CHECK_THROWS_WITH(RankCounts(0, 3), Contains("1 or more"));
  CHECK_THROWS_WITH(counts.top(3, 1), Contains("3 heads"));
  CHECK_THROWS_WITH(counts.accuracy(0, 3), Contains("3 guesses"));
  RankCounts other(1, 3);
  const std::vector<int32_t> two = {0, 0};
  CHECK_THROWS_WITH(other.record(two), Contains("2 heads"));
  CHECK_THROWS_WITH(other.merge(counts), Contains("cannot be merged"));
}

TEST_CASE("rank counts of parts merge into those of the whole", "[decoding]") {
  const Positions positions = random_positions(3, 400, 3, 4);
  const RankCounts whole = count(positions, 3, 4);
  RankCounts merged = count({positions.begin(), positions.begin() + 150}, 3, 4);
  merged.merge(count({positions.begin() + 150, positions.end()}, 3, 4));
  CHECK(merged.positions() == whole.positions());
  CHECK(rank_accuracies(merged) == rank_accuracies(whole));
  const DraftTree all = DraftTree::full({4, 3, 3});
  for (const Path& path : all.choices()) CHECK(merged.joint(path) == whole.joint(path));
}

TEST_CASE("passes of a text begin behind what was accepted", "[decoding]") {
  // Ranks behind each token; 9 is a miss.
  const Positions text = {{0, 1, 0}, {1, 0, 9}, {0, 0, 1}, {2, 9}, {0, 0}, {0}};
  const auto record = [&](const DraftTree& tree) {
    RankCounts counts(3, 3);
    record_passes(counts, tree, text);
    return counts;
  };
  const RankCounts everywhere = record(DraftTree());
  CHECK(everywhere.positions() == 6);
  CHECK(everywhere.joint({0}) == 4);
  const RankCounts narrow = record(DraftTree::chain(2));
  // Passes: 0 (one accepted), 2 (two accepted), 5 (one accepted).
  CHECK(narrow.positions() == 3);
  CHECK(narrow.joint({0}) == 3);
  CHECK(narrow.joint({0, 0}) == 1);
  CHECK(narrow.joint({0, 1, 0}) == 1);
  // Passes: 0 (two accepted), 3 (none: rank 2), 4 (one accepted, its text ends before [0, 1]).
  const RankCounts wide = record(DraftTree::from_choices({{0}, {0, 1}, {1}}));
  CHECK(wide.positions() == 3);
  CHECK(wide.joint({0, 1}) == 1);
  CHECK(wide.joint({2}) == 1);
  CHECK(wide.joint({0}) == 2);
}

TEST_CASE("no other tree of its size is accepted further than the one that was searched",
          "[decoding]") {
  const Paths paths = DraftTree::full({3, 3, 3}, {.width = 3}).choices();
  const std::vector<std::vector<double>> heads[] = {
      {{.5, .2, .1, .2}, {.45, .2, .15, .2}, {.4, .2, .1, .3}},
      {{.3, .25, .2, .25}, {.5, .25, .1, .15}, {.6, .2, .1, .1}},
      {{.9, .03, .02, .05}, {.4, .3, .2, .1}, {.35, .3, .3, .05}}};
  for (const auto& shares : heads) {
    const Positions positions = falling_positions(shares, 2000);
    const RankCounts counts = count(positions, 3, 3);
    // The promise holds for counts that fall with the rank.
    for (const Path& path : paths) {
      Path next = path;
      if (++next.back() < 3) REQUIRE(counts.joint(next) <= counts.joint(path));
    }
    for (const int64_t nodes : {1, 2, 3, 4, 5, 6}) {
      CAPTURE(shares, nodes);
      double best = 0;
      Paths chosen;
      each_tree(paths, static_cast<size_t>(nodes) - 1, chosen, 0, [&](const Paths& choices) {
        best = std::max(best, walked(DraftTree::from_choices(choices), positions));
      });
      const DraftTree tree = search_tree(counts, nodes);
      CHECK(tree.size() == nodes);
      CHECK(walked(tree, positions) == Approx(best).epsilon(1e-12));
      CHECK(tree.siblings_without_gaps());
    }
  }
}

TEST_CASE("the tokens to expect of a tree are those of walking it", "[decoding]") {
  const Positions positions = random_positions(9, 500, 4, 5);
  const RankCounts counts = count(positions, 4, 5);
  for (const DraftTree& tree :
       {DraftTree(), DraftTree::chain(4), DraftTree::full({3, 2, 2}),
        DraftTree::from_choices({{0}, {3}, {3, 2}}), search_tree(counts, 30)})
    CHECK(expected_tokens(tree, counts) == Approx(1 + walked(tree, positions)).epsilon(1e-12));
  CHECK_THROWS_WITH(expected_tokens(DraftTree(), RankCounts(2, 2)), Contains("positions"));
}

TEST_CASE("a tree stops growing where no guess ever hit", "[decoding]") {
  RankCounts counts(3, 4);
  for (const std::vector<int32_t>& ranks : Positions{{0, 0}, {1, -1}, {-1, 0, 0}})
    counts.record(ranks);
  CHECK(search_tree(counts, 64).choices() == Paths{{0}, {1}, {0, 0}});
  CHECK(search_tree(counts, 64, 1).choices() == Paths{{0}, {1}});
  CHECK(search_tree(RankCounts(3, 4), 64).size() == 1);
  CHECK_THROWS_WITH(search_tree(counts, 65), Contains("1 to 64"));
  CHECK_THROWS_WITH(search_tree(counts, 0), Contains("1 to 64"));
  CHECK_THROWS_WITH(search_tree(counts, 4, -1), Contains("depth"));
}

TEST_CASE("by accuracies the tree takes the guesses with the highest products", "[decoding]") {
  const RankAccuracies accuracies = {{.5, .2, .1}, {.4, .25, .05}, {.3, .1, .02}};
  // The products, sorted by hand: .5, .2 ([1] and [0, 0]), .125, .1, .08, .06 ([0, 0, 0]), …
  CHECK(search_tree(accuracies, 2).choices() == Paths{{0}});
  CHECK(search_tree(accuracies, 4).choices() == Paths{{0}, {1}, {0, 0}});
  CHECK(search_tree(accuracies, 8).choices() ==
        Paths{{0}, {1}, {2}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}});

  const auto search = [](const RankAccuracies& a) { return search_tree(a, 8); };
  CHECK_THROWS_WITH(search({}), Contains("some heads"));
  CHECK_THROWS_WITH(search({{}}), Contains("some heads"));
  CHECK_THROWS_WITH(search({{.5, .2}, {.4}}), Contains("2 and 1"));
  CHECK_THROWS_WITH(search({{1.5}}), Contains("[0, 1]"));
  CHECK_THROWS_WITH(search({{std::nan("")}}), Contains("[0, 1]"));
}

TEST_CASE("the published tree has the size that was asked for and favours early guesses",
          "[decoding]") {
  for (const int64_t nodes : {1, 2, 16, 64}) {
    const DraftTree tree = published_tree(4, nodes);
    CHECK(tree.size() == nodes);
    CHECK(tree.depth() <= 4);
    CHECK(tree.siblings_without_gaps());
  }
  CHECK(published_tree(4, 64).depth() == 4);
  CHECK(published_tree(1, 64).size() == 11);
  CHECK_THROWS_WITH(published_tree(0, 64), Contains("heads"));
}

TEST_CASE("the best tree for a machine is the fastest of all its trees", "[decoding]") {
  const Positions positions = random_positions(5, 800, 3, 4);
  const RankCounts counts = count(positions, 3, 4);
  // Verification is flat up to 8 nodes and dear beyond; each level of drafting costs something.
  const MachineCosts machine{.batch = 4,
                             .plain = 1e-3,
                             .verify = {{2, 1.05e-3}, {8, 1.1e-3}, {16, 1.6e-3}, {32, 2.6e-3}},
                             .draft = {1e-4, 2.2e-4, 4e-4}};
  double fastest = 4 / machine.plain;
  for (int64_t depth = 1; depth <= 3; ++depth) {
    for (int64_t nodes = 2; nodes <= 32; ++nodes) {
      const DraftTree tree = search_tree(counts, nodes, depth);
      const double verify = tree.size() <= 2    ? 1.05e-3
                            : tree.size() <= 8  ? 1.1e-3
                            : tree.size() <= 16 ? 1.6e-3
                                                : 2.6e-3;
      const double draft = tree.depth() == 1 ? 1e-4 : tree.depth() == 2 ? 2.2e-4 : 4e-4;
      fastest = std::max(fastest, 4 * (1 + walked(tree, positions)) / (verify + draft));
    }
  }
  const TreeChoice choice = best_tree_for(machine, counts);
  CHECK(choice.speculate());
  CHECK(choice.tokens_per_second == Approx(fastest).epsilon(1e-12));
  CHECK(choice.plain_tokens_per_second == Approx(4000));
  CHECK(choice.tokens == Approx(1 + walked(choice.tree, positions)));
  CHECK(choice.tokens_per_second == Approx(4 * choice.tokens / choice.seconds));
  CHECK(choice.tree.size() <= 8);
  CHECK_THAT(choice.advice(), Contains("speculate with"));
  CHECK(best_tree_for(machine, counts).tree.choices() == choice.tree.choices());
}

TEST_CASE("the advice is not to speculate where plain decoding is as fast", "[decoding]") {
  const RankCounts counts = count({{0}, {0}, {-1}, {-1}}, 1, 2);  // 1.5 tokens a pass
  const auto choose = [&](double verify) {
    return best_tree_for({.plain = 1, .verify = {{2, verify}}, .draft = {0}}, counts);
  };
  CHECK(choose(1.4).speculate());
  CHECK_FALSE(choose(1.5).speculate());
  const TreeChoice choice = choose(1.6);
  CHECK_FALSE(choice.speculate());
  CHECK(choice.tree.size() == 1);
  CHECK(choice.tokens_per_second == choice.plain_tokens_per_second);
  CHECK_THAT(choice.advice(), Contains("do not speculate"));
}

TEST_CASE("costs of a machine that cannot be are refused", "[decoding]") {
  const RankCounts counts = count({{0}}, 1, 2);
  const MachineCosts good{.plain = 1, .verify = {{2, 1}, {4, 2}}, .draft = {0}};
  CHECK_NOTHROW(best_tree_for(good, counts));
  const auto refuse = [&](const std::function<void(MachineCosts&)>& change, const char* word) {
    MachineCosts machine = good;
    change(machine);
    CHECK_THROWS_WITH(best_tree_for(machine, counts), Contains(word));
  };
  refuse([](MachineCosts& m) { m.batch = 0; }, "rows");
  refuse([](MachineCosts& m) { m.plain = 0; }, "plain step");
  refuse([](MachineCosts& m) { m.verify.clear(); }, "measured time");
  refuse([](MachineCosts& m) { m.draft.clear(); }, "measured time");
  refuse([](MachineCosts& m) { m.draft = {-1}; }, "drafting");
  refuse([](MachineCosts& m) { m.verify[1].seconds = std::nan(""); }, "4 nodes");
  refuse([](MachineCosts& m) { m.verify[1].nodes = 2; }, "ascending");
  CHECK_THROWS_WITH(best_tree_for(good, RankCounts(1, 2)), Contains("positions"));
}
