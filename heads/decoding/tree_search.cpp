#include <binade/heads/decoding/tree_search.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include <fmt/core.h>

#include <binade/core/error.h>

namespace binade::heads::decoding {
namespace {

using Path = DraftTree::Path;

struct Guess {
  double score;
  Path path;
  // The best first.
  bool operator<(const Guess& other) const {
    if (score != other.score) return score > other.score;
    if (path.size() != other.path.size()) return path.size() < other.path.size();
    return path < other.path;
  }
};

// The guesses in the order in which the tree grows: its first n are the tree of n + 1 nodes.
std::vector<Path> growth(const TreeLimits& limits,
                         const std::function<double(const Path&)>& score) {
  std::set<Guess> frontier;
  const auto offer = [&](Path path) {
    const double value = score(path);
    if (value > 0) frontier.insert({value, std::move(path)});
  };
  std::vector<Path> grown;
  if (limits.heads > 0) offer({0});
  while (!frontier.empty() && static_cast<int64_t>(grown.size()) + 1 < limits.nodes) {
    Path path = frontier.extract(frontier.begin()).value().path;
    grown.push_back(path);
    if (path.back() + 1 < limits.width) {
      Path sibling = path;
      ++sibling.back();
      offer(std::move(sibling));
    }
    if (static_cast<int64_t>(path.size()) < limits.heads) {
      path.push_back(0);
      offer(std::move(path));
    }
  }
  return grown;
}

TreeLimits limits_of(const RankCounts& counts, int64_t nodes, int64_t depth) {
  check(nodes >= 1 && nodes <= kMostNodes, "a draft tree has 1 to ", kMostNodes,
        " nodes, asked for ", nodes);
  check(depth >= 0, "the depth of a draft tree must be 0 or more, got ", depth);
  return {.heads = depth == 0 ? counts.heads() : std::min(depth, counts.heads()),
          .width = counts.width(),
          .nodes = nodes};
}

std::vector<Path> growth(const TreeLimits& limits, const RankCounts& counts) {
  return growth(limits, [&](const Path& path) { return static_cast<double>(counts.joint(path)); });
}

// ρ with first · (1 + ρ + … + ρ⁴) = five, by bisection.
double falling_share(double first, double five) {
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    const double sum = first * (1 - std::pow(middle, 5)) / (1 - middle);
    (sum < five ? low : high) = middle;
  }
  return low;
}

double verify_seconds(const MachineCosts& machine, int64_t nodes) {
  const auto pass = std::find_if(machine.verify.begin(), machine.verify.end(),
                                 [&](const MachineCosts::Pass& p) { return p.nodes >= nodes; });
  return pass->seconds;
}

void check_costs(const MachineCosts& machine) {
  const auto positive = [](double seconds) { return seconds > 0 && std::isfinite(seconds); };
  check(machine.batch >= 1, "a batch has 1 or more rows, got ", machine.batch);
  check(positive(machine.plain), "a plain step takes some time, got ", machine.plain, " s");
  check(!machine.verify.empty() && !machine.draft.empty(),
        "choosing a tree needs the measured time of verification and of drafting");
  int64_t before = 0;
  for (const MachineCosts::Pass& pass : machine.verify) {
    check(positive(pass.seconds), "verifying ", pass.nodes, " nodes takes some time, got ",
          pass.seconds, " s");
    check(pass.nodes > before, "the measured passes come by ascending nodes, got ", pass.nodes,
          " behind ", before);
    before = pass.nodes;
  }
  for (const double seconds : machine.draft)
    check(seconds == 0 || positive(seconds), "drafting takes 0 s or more, got ", seconds, " s");
}

}  // namespace

DraftTree search_tree(const RankCounts& counts, int64_t nodes, int64_t depth) {
  const TreeLimits limits = limits_of(counts, nodes, depth);
  return DraftTree::from_choices(growth(limits, counts), limits);
}

DraftTree search_tree(const RankAccuracies& accuracies, int64_t nodes) {
  check(!accuracies.empty() && !accuracies[0].empty(),
        "choosing a tree needs the accuracies of some heads and ranks");
  for (const std::vector<double>& head : accuracies) {
    check(head.size() == accuracies[0].size(), "all heads need accuracies of as many ranks, got ",
          accuracies[0].size(), " and ", head.size());
    for (const double accuracy : head)
      check(accuracy >= 0 && accuracy <= 1, "an accuracy lies in [0, 1], got ", accuracy);
  }
  const TreeLimits limits{.heads = static_cast<int64_t>(accuracies.size()),
                          .width = static_cast<int64_t>(accuracies[0].size()),
                          .nodes = nodes};
  const auto chance = [&](const Path& path) {
    double chance = 1;
    for (size_t head = 0; head < path.size(); ++head)
      chance *= accuracies[head][static_cast<size_t>(path[head])];
    return chance;
  };
  return DraftTree::from_choices(growth(limits, chance), limits);
}

RankAccuracies rank_accuracies(const RankCounts& counts) {
  RankAccuracies accuracies(static_cast<size_t>(counts.heads()));
  for (int64_t head = 0; head < counts.heads(); ++head)
    for (int64_t rank = 0; rank < counts.width(); ++rank)
      accuracies[static_cast<size_t>(head)].push_back(counts.accuracy(head, rank));
  return accuracies;
}

DraftTree published_tree(int64_t heads, int64_t nodes) {
  check(heads >= 1, "a tree of guesses needs 1 or more heads, got ", heads);
  constexpr double kFirst[] = {.56, .32, .20, .15, .12};
  constexpr double kFive[] = {.78, .56, .42, .34, .30};
  RankAccuracies accuracies;
  for (int64_t head = 0; head < heads; ++head) {
    const auto row = static_cast<size_t>(std::min<int64_t>(head, 4));
    const double share = falling_share(kFirst[row], kFive[row]);
    std::vector<double> ranks;
    for (int64_t rank = 0; rank < TreeLimits{}.width; ++rank)
      ranks.push_back(kFirst[row] * std::pow(share, static_cast<double>(rank)));
    accuracies.push_back(std::move(ranks));
  }
  return search_tree(accuracies, nodes);
}

double expected_tokens(const DraftTree& tree, const RankCounts& counts) {
  check(counts.positions() > 0, "the tokens to expect need measured positions, there are none");
  // A position whose true ranks begin with n of the tree's paths is accepted n guesses far.
  int64_t accepted = 0;
  for (const Path& path : tree.choices()) accepted += counts.joint(path);
  return 1 + static_cast<double>(accepted) / static_cast<double>(counts.positions());
}

TreeChoice best_tree_for(const MachineCosts& machine, const RankCounts& counts) {
  check_costs(machine);
  check(counts.positions() > 0, "choosing a tree needs measured positions, there are none");
  const auto rows = static_cast<double>(machine.batch);
  TreeChoice best;
  best.seconds = machine.plain;
  best.plain_tokens_per_second = best.tokens_per_second = rows / machine.plain;
  const int64_t most = std::min(machine.verify.back().nodes, kMostNodes);
  const int64_t deepest = std::min(counts.heads(), kMostNodes - 1);
  for (int64_t depth = 1; depth <= deepest; ++depth) {
    const TreeLimits limits = limits_of(counts, most, depth);
    const std::vector<Path> grown = growth(limits, counts);
    const auto levels = static_cast<size_t>(depth);
    const double draft = machine.draft[std::min(levels, machine.draft.size()) - 1];
    int64_t accepted = 0;
    for (size_t guesses = 1; guesses <= grown.size(); ++guesses) {
      accepted += counts.joint(grown[guesses - 1]);
      const double tokens =
          1 + static_cast<double>(accepted) / static_cast<double>(counts.positions());
      const double seconds = draft + verify_seconds(machine, static_cast<int64_t>(guesses) + 1);
      const double rate = rows * tokens / seconds;
      const bool smaller = static_cast<int64_t>(guesses) + 1 < best.tree.size();
      if (rate < best.tokens_per_second || (rate == best.tokens_per_second && !smaller)) continue;
      best.tree = DraftTree::from_choices(
          {grown.begin(), grown.begin() + static_cast<int64_t>(guesses)}, limits);
      best.tokens = tokens;
      best.seconds = seconds;
      best.tokens_per_second = rate;
    }
  }
  return best;
}

std::string TreeChoice::advice() const {
  if (!speculate()) {
    return fmt::format("do not speculate: plain decoding, {:.1f} tokens/s, is faster than any tree",
                       plain_tokens_per_second);
  }
  return fmt::format(
      "speculate with {} nodes, {} deep: {:.2f} tokens a pass, {:.1f} tokens/s against {:.1f} "
      "without ({:.2f} x)",
      tree.size(), tree.depth(), tokens, tokens_per_second, plain_tokens_per_second,
      tokens_per_second / plain_tokens_per_second);
}

}  // namespace binade::heads::decoding
