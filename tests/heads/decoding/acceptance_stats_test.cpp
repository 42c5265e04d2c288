#include <binade/core/error.h>
#include <binade/heads/decoding/acceptance_stats.h>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;
using Catch::Matchers::Contains;

namespace {

const DraftTree kTree = DraftTree::from_choices({{0}, {1}, {0, 0}, {1, 0}, {0, 0, 0}});
const std::vector<int32_t> kTokens = {10, 11, 12, 13, 14, 15};
const Proposal kProposal{.tree = kTree, .tokens = kTokens};
constexpr int32_t kNext = 20;

Accepted path(std::vector<int32_t> nodes) {
  return {std::move(nodes), kNext};
}

}  // namespace

TEST_CASE("a pass emits its accepted guesses and the token behind them, up to the end",
          "[decoding]") {
  const auto emitted = [](std::vector<int32_t> nodes, std::vector<int32_t> stops,
                          int64_t room = INT64_MAX) {
    return emitted_tokens(kProposal, path(std::move(nodes)), {stops, room});
  };
  CHECK(emitted({0}, {}) == 1);
  CHECK(emitted({0, 1, 3, 5}, {}) == 4);
  CHECK(emitted({0, 1, 3, 5}, {kNext}) == 4);
  CHECK(emitted({0, 1, 3, 5}, {15}) == 3);
  CHECK(emitted({0, 1, 3, 5}, {13, 11}) == 1);
  CHECK(emitted({0, 1, 3, 5}, {10, 12, 14}) == 4);  // the root was emitted before; others are not
  CHECK(emitted({0, 1, 3, 5}, {}, 2) == 2);
  CHECK(emitted({0, 1, 3, 5}, {11}, 2) == 1);
  CHECK(emitted({0}, {}, 1) == 1);
  CHECK_THROWS_WITH(emitted({0}, {}, 0), Contains("room"));
  CHECK_THROWS_WITH(emitted({}, {}), Contains("root"));
}

TEST_CASE("acceptance by depth counts the passes that came so far", "[decoding]") {
  AcceptanceStats stats;
  CHECK(stats.tau() == 0);
  CHECK(stats.record(kProposal, path({0})) == 1);           // refused at depth 1
  CHECK(stats.record(kProposal, path({0, 1})) == 2);        // refused at depth 2
  CHECK(stats.record(kProposal, path({0, 1, 3})) == 3);     // refused at depth 3
  CHECK(stats.record(kProposal, path({0, 1, 3, 5})) == 4);  // all accepted
  CHECK(stats.record(kProposal, path({0, 2, 4})) == 3);     // no guess at depth 3
  CHECK(stats.passes() == 5);
  CHECK(stats.emitted() == 13);
  CHECK(stats.tau() == Approx(13.0 / 5));
  REQUIRE(stats.depth() == 3);
  CHECK(stats.offered(1) == 5);
  CHECK(stats.accepted(1) == 4);
  CHECK(stats.offered(2) == 4);
  CHECK(stats.accepted(2) == 3);
  CHECK(stats.offered(3) == 2);
  CHECK(stats.accepted(3) == 1);
  CHECK(stats.acceptance(2) == Approx(0.75));
  CHECK(stats.acceptance(4) == 0);
}

TEST_CASE("what is accepted beyond the end of the text does not count", "[decoding]") {
  AcceptanceStats stats;
  const std::vector<int32_t> stop = {13};  // the token of node 3
  CHECK(stats.record(kProposal, path({0, 1, 3, 5}), {stop}) == 2);
  CHECK(stats.depth() == 2);
  CHECK(stats.accepted(2) == 1);
  CHECK(stats.record(kProposal, path({0, 1, 3, 5}), {{}, 1}) == 1);
  CHECK(stats.emitted() == 3);
  CHECK(stats.offered(1) == 2);
  CHECK(stats.offered(2) == 1);
}

TEST_CASE("where no guess was made none is offered, and plain decoding has a tau of 1",
          "[decoding]") {
  const DraftTree root;
  const std::vector<int32_t> token = {1}, gap = {10, 11, kNoToken, kNoToken, 14, 15};
  AcceptanceStats stats;
  stats.record({.tree = root, .tokens = token}, path({0}));
  CHECK(stats.tau() == 1);
  CHECK(stats.depth() == 0);
  stats.record({.tree = kTree, .tokens = gap}, path({0, 1}));
  CHECK(stats.depth() == 1);
  CHECK(stats.acceptance(1) == 1);
}

TEST_CASE("acceptance of several rows merges into that of all", "[decoding]") {
  const std::vector<std::vector<int32_t>> paths = {{0}, {0, 1, 3, 5}, {0, 2}, {0, 1}, {0, 1, 3}};
  AcceptanceStats all;
  AcceptanceStats merged;
  for (const auto& nodes : paths) {
    all.record(kProposal, path(nodes));
    AcceptanceStats one;
    one.record(kProposal, path(nodes));
    merged.merge(one);
  }
  CHECK(merged.passes() == all.passes());
  CHECK(merged.emitted() == all.emitted());
  REQUIRE(merged.depth() == all.depth());
  for (int64_t depth = 1; depth <= all.depth(); ++depth) {
    CHECK(merged.offered(depth) == all.offered(depth));
    CHECK(merged.accepted(depth) == all.accepted(depth));
  }
}
