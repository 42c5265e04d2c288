#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/decoding/draft_tree.h>

#include <algorithm>
#include <set>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;
using Path = DraftTree::Path;
using Paths = std::vector<Path>;

namespace {

// Random prefix-closed sets, in random order.
Paths random_choices(uint64_t seed, int64_t count, int64_t heads, int64_t width) {
  uint64_t draw = 0;
  const auto below = [&](size_t n) {
    return static_cast<size_t>(philox(seed, 0, 0, draw++).word[0] % n);
  };
  std::set<Path> chosen = {{}};
  while (static_cast<int64_t>(chosen.size()) <= count) {
    Path path = *std::next(chosen.begin(), static_cast<int64_t>(below(chosen.size())));
    if (static_cast<int64_t>(path.size()) == heads) continue;
    path.push_back(static_cast<int32_t>(below(static_cast<size_t>(width))));
    chosen.insert(path);
  }
  chosen.erase(Path{});
  Paths choices(chosen.begin(), chosen.end());
  for (size_t i = choices.size(); i > 1; --i) std::swap(choices[i - 1], choices[below(i)]);
  return choices;
}

bool begins_with(const Path& path, const Path& prefix) {
  return path.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), path.begin());
}

}  // namespace

TEST_CASE("a draft tree of any choices has the nodes, candidates and visibility that they say",
          "[decoding]") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    const int64_t width = seed % 2 ? 10 : 3;
    const Paths choices = random_choices(seed, 1 + static_cast<int64_t>(seed) % 20 * 3, 5, width);
    const DraftTree tree = DraftTree::from_choices(choices, {.heads = 5, .width = width});
    REQUIRE(tree.size() == static_cast<int64_t>(choices.size()) + 1);
    Paths sorted = choices;
    sorted.emplace_back();
    std::sort(sorted.begin(), sorted.end(), [](const Path& a, const Path& b) {
      return std::make_pair(a.size(), a) < std::make_pair(b.size(), b);
    });
    size_t deepest = 0;
    for (size_t node = 0; node < sorted.size(); ++node) {
      const Path& path = sorted[node];
      CAPTURE(node);
      deepest = std::max(deepest, path.size());
      CHECK(tree.path(static_cast<int64_t>(node)) == path);
      CHECK(tree.depths()[node] == static_cast<int32_t>(path.size()));
      if (path.empty()) {
        CHECK(tree.parents()[node] == -1);
        CHECK(tree.candidates()[node] == 0);
      } else {
        CHECK(sorted[static_cast<size_t>(tree.parents()[node])] ==
              Path(path.begin(), path.end() - 1));
        CHECK(tree.ranks()[node] == path.back());
        CHECK(tree.candidates()[node] ==
              1 + width * (static_cast<int32_t>(path.size()) - 1) + path.back());
      }
      uint64_t visible = 0;
      std::vector<int32_t> children;
      for (size_t other = 0; other < sorted.size(); ++other) {
        const bool sees = begins_with(path, sorted[other]);
        visible |= uint64_t{sees} << other;
        CHECK(tree.sees(static_cast<int64_t>(node), static_cast<int64_t>(other)) == sees);
        if (sorted[other].size() == path.size() + 1 && begins_with(sorted[other], path))
          children.push_back(static_cast<int32_t>(other));
      }
      CHECK(static_cast<uint64_t>(tree.visible()[node]) == visible);
      CHECK(tree.children(static_cast<int64_t>(node)) == children);
    }
    CHECK(tree.depth() == static_cast<int64_t>(deepest));
  }
}

TEST_CASE("the rows of a draft tree lead from the root to each leaf and end in padding",
          "[decoding]") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    const DraftTree tree =
        DraftTree::from_choices(random_choices(seed, 1 + static_cast<int64_t>(seed) * 3, 4, 4));
    std::set<std::vector<int32_t>> expected;
    for (int64_t node = 0; node < tree.size(); ++node) {
      const Path path = tree.path(node);
      bool leaf = true;
      for (const Path& other : tree.choices())
        leaf = leaf && (other == path || !begins_with(other, path));
      if (!leaf) continue;
      std::vector<int32_t> row(static_cast<size_t>(tree.depth()) + 1, -1);
      for (int64_t above = 0; above < tree.size(); ++above)
        if (begins_with(path, tree.path(above)))
          row[tree.path(above).size()] = static_cast<int32_t>(above);
      expected.insert(row);
    }
    const DraftTree::LeafPaths paths = tree.leaf_paths();
    REQUIRE(paths.length == tree.depth() + 1);
    REQUIRE(paths.leaves == static_cast<int64_t>(expected.size()));
    std::set<std::vector<int32_t>> found;
    for (int64_t leaf = 0; leaf < paths.leaves; ++leaf) {
      const auto row = paths.nodes.begin() + leaf * paths.length;
      found.emplace(row, row + paths.length);
    }
    CHECK(found == expected);
  }
  const DraftTree::LeafPaths root = DraftTree().leaf_paths();
  CHECK(root.nodes == std::vector<int32_t>{0});
}

TEST_CASE("chains and full trees have the choices that their names say", "[decoding]") {
  CHECK(DraftTree::chain(0).size() == 1);
  CHECK(DraftTree::chain(3).choices() == Paths{{0}, {0, 0}, {0, 0, 0}});
  CHECK(DraftTree::chain(63).size() == 64);
  CHECK(static_cast<uint64_t>(DraftTree::chain(63).visible()[63]) == ~uint64_t{0});
  CHECK(DraftTree::full({2, 1, 2}).choices() ==
        Paths{{0}, {1}, {0, 0}, {1, 0}, {0, 0, 0}, {0, 0, 1}, {1, 0, 0}, {1, 0, 1}});
  CHECK_THROWS_WITH(DraftTree::chain(64), Contains("64 paths and the root"));
  CHECK_THROWS_WITH(DraftTree::chain(-1), Contains("-1"));
  CHECK_THROWS_WITH(DraftTree::chain(3, {.heads = 2}), Contains("[0, 0, 0] needs 3 heads"));
  CHECK_THROWS_WITH(DraftTree::full({8, 8}), Contains("at most 64 nodes"));
  CHECK_THROWS_WITH(DraftTree::full({2, 0}), Contains("1 or more children"));
  CHECK_THROWS_WITH(DraftTree::full({1000000000}), Contains("at most 64 nodes"));
}

TEST_CASE("a draft tree names the path that is wrong", "[decoding]") {
  const auto tree = [](Paths choices, TreeLimits limits = {}) {
    return DraftTree::from_choices(std::move(choices), limits);
  };
  CHECK_THROWS_WITH(tree({{0}, {1, 0}}), Contains("[1, 0] without its prefix [1]"));
  CHECK_THROWS_WITH(tree({{0, 0}}), Contains("[0, 0] without its prefix [0]"));
  CHECK_THROWS_WITH(tree({{0}, {0, 0, 0}, {1}}), Contains("[0, 0, 0] without its prefix [0, 0]"));
  CHECK_THROWS_WITH(tree({{0}, {9}, {10}}), Contains("[10] has rank 10") && Contains("[0, 10)"));
  CHECK_THROWS_WITH(tree({{0}, {0, -1}}), Contains("[0, -1] has rank -1"));
  CHECK_THROWS_WITH(tree({{0}, {4}}, {.width = 4}), Contains("[0, 4)"));
  CHECK_THROWS_WITH(tree({{1}, {0}, {1}}), Contains("[1] twice"));
  CHECK_THROWS_WITH(tree({{0}, {}}), Contains("empty path"));
  CHECK_THROWS_WITH(tree({{0}, {0, 0}, {0, 0, 0}}, {.heads = 2}),
                    Contains("[0, 0, 0] needs 3 heads, but there are 2"));
  CHECK_THROWS_WITH(tree({{0}, {1}, {2}}, {.nodes = 3}), Contains("at most 3 nodes"));
  CHECK_THROWS_WITH(tree({}, {.nodes = 65}), Contains("1 to 64 nodes"));
  CHECK(tree({{0}, {1}, {2}}, {.nodes = 4}).size() == 4);
}

TEST_CASE("draft trees are read from and written as lists of lists", "[decoding]") {
  const DraftTree tree = DraftTree::from_json(" [[1], [0, 2],\n [0]] ", "tree.json");
  CHECK(tree.json() == "[[0], [1], [0, 2]]");
  CHECK(DraftTree::from_json(tree.json(), "again").choices() == tree.choices());
  CHECK(DraftTree::from_json("[]", "tree.json").size() == 1);
  CHECK(DraftTree().json() == "[]");

  const auto read = [](const std::string& text, TreeLimits limits = {}) {
    return DraftTree::from_json(text, "tree.json", limits);
  };
  CHECK_THROWS_WITH(read("[[0], [1, 0]]"), Contains("tree.json") && Contains("prefix [1]"));
  CHECK_THROWS_WITH(read("[[0], [0, 10]]"), Contains("tree.json[1][1]") && Contains("10"));
  CHECK_THROWS_WITH(read("[[0], [0.5]]"), Contains("tree.json[1][0]") && Contains("integer"));
  CHECK_THROWS_WITH(read("[[0], 1]"), Contains("tree.json[1]") && Contains("array"));
  CHECK_THROWS_WITH(read("{\"choices\": []}"), Contains("tree.json") && Contains("array"));
  CHECK_THROWS_WITH(read("[[0]"), Contains("tree.json: not valid JSON"));
  CHECK_THROWS_WITH(read(std::string("[[0]]\0[", 7)), Contains("tree.json"));
  CHECK_THROWS_WITH(read("[[0, 0, 0]]", {.heads = 2}),
                    Contains("tree.json[0]") && Contains("heads"));
  std::string many = "[";
  for (int i = 0; i < 64; ++i) many += i == 0 ? "[0]" : ", [0]";
  CHECK_THROWS_WITH(read(many + "]"), Contains("64 paths and the root are more than 64 nodes"));
}

TEST_CASE("a draft tree of parents numbers siblings as they come", "[decoding]") {
  const std::vector<int32_t> parents = {-1, 0, 1, 0, 1, 3, 2};
  const DraftTree tree = DraftTree::from_parents(parents);
  CHECK(tree.parents() == parents);
  CHECK(tree.depths() == std::vector<int32_t>{0, 1, 2, 1, 2, 2, 3});
  CHECK(tree.ranks() == std::vector<int32_t>{0, 0, 0, 1, 1, 0, 0});
  CHECK(tree.candidates() == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6});
  CHECK(tree.visible() ==
        std::vector<int64_t>{1, 0b11, 0b111, 0b1001, 0b10011, 0b101001, 0b1000111});
  CHECK(tree.leaf_paths().nodes == std::vector<int32_t>{0, 1, 4, -1, 0, 3, 5, -1, 0, 1, 2, 6});
  CHECK(tree.siblings_without_gaps());

  const auto from = [](std::vector<int32_t> p) { return DraftTree::from_parents(p); };
  CHECK_THROWS_WITH(from({}), Contains("1 to 64 nodes"));
  CHECK_THROWS_WITH(from({0}), Contains("root"));
  CHECK_THROWS_WITH(from({-1, 1}), Contains("node 1"));
  CHECK_THROWS_WITH(from({-1, 0, -1}), Contains("node 2"));
  CHECK_THROWS_WITH(from(std::vector<int32_t>(65, 0)), Contains("1 to 64 nodes"));
}

TEST_CASE("a draft tree knows whether the ranks of siblings have gaps", "[decoding]") {
  CHECK(DraftTree::from_choices({{0}, {1}, {1, 0}}).siblings_without_gaps());
  CHECK_FALSE(DraftTree::from_choices({{0}, {2}}).siblings_without_gaps());
  CHECK_FALSE(DraftTree::from_choices({{0}, {0, 1}}).siblings_without_gaps());
}
