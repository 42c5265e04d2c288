#include <binade/heads/decoding/draft_tree.h>

#include <algorithm>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/json_view.h>

namespace binade::heads::decoding {
namespace {

using Path = DraftTree::Path;

bool before(const Path& a, const Path& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

void check_limits(const TreeLimits& limits) {
  check(limits.nodes >= 1 && limits.nodes <= kMostNodes, "a draft tree has 1 to ", kMostNodes,
        " nodes, got a limit of ", limits.nodes);
  check(limits.heads >= 0, "the number of heads must be 0 or more, got ", limits.heads);
  check(limits.width >= 1 && limits.width <= (1 << 20), "heads give 1 to ", 1 << 20,
        " guesses each, got ", limits.width);
}

void check_count(size_t paths, const TreeLimits& limits) {
  check(paths < static_cast<size_t>(limits.nodes), "the draft tree has ", paths,
        " paths and the root, but at most ", limits.nodes, " nodes are allowed");
}

void check_path(const Path& path, const TreeLimits& limits) {
  check(!path.empty(), "the draft tree has an empty path: the root is there without being named");
  check(path.size() <= static_cast<size_t>(limits.heads), "the draft tree's path ", text_of(path),
        " needs ", path.size(), " heads, but there are ", limits.heads);
  for (const int32_t rank : path) {
    check(rank >= 0 && rank < limits.width, "the draft tree's path ", text_of(path), " has rank ",
          rank, ", but ranks lie in [0, ", limits.width, ")");
  }
}

}  // namespace

std::string text_of(const Path& path) {
  std::string text = "[";
  for (size_t i = 0; i < path.size(); ++i) text += concat(i == 0 ? "" : ", ", path[i]);
  return text + "]";
}

DraftTree DraftTree::from_choices(std::vector<Path> choices, const TreeLimits& limits) {
  check_limits(limits);
  check_count(choices.size(), limits);
  for (const Path& path : choices) check_path(path, limits);
  std::sort(choices.begin(), choices.end(), before);

  DraftTree tree;
  for (size_t i = 0; i < choices.size(); ++i) {
    const Path& path = choices[i];
    check(i == 0 || path != choices[i - 1], "the draft tree names the path ", text_of(path),
          " twice");
    int32_t parent = 0;
    if (path.size() > 1) {
      const Path prefix(path.begin(), path.end() - 1);
      const auto found = std::lower_bound(choices.begin(), choices.end(), prefix, before);
      check(*found == prefix, "the draft tree has the path ", text_of(path), " without its prefix ",
            text_of(prefix));
      parent = static_cast<int32_t>(found - choices.begin()) + 1;
    }
    const auto level = static_cast<int32_t>(limits.width * static_cast<int64_t>(path.size() - 1));
    tree.add(parent, path.back(), 1 + level + path.back());
  }
  return tree;
}

DraftTree DraftTree::chain(int64_t length, const TreeLimits& limits) {
  check(length >= 0, "a chain has 0 or more guesses, got ", length);
  check_count(static_cast<size_t>(length), limits);
  std::vector<Path> choices;
  for (int64_t depth = 1; depth <= length; ++depth) choices.emplace_back(depth, 0);
  return from_choices(std::move(choices), limits);
}

DraftTree DraftTree::full(const std::vector<int64_t>& branching, const TreeLimits& limits) {
  std::vector<Path> choices, level = {{}};
  for (const int64_t children : branching) {
    check(children >= 1, "a full tree has 1 or more children a node, got ", children);
    std::vector<Path> next;
    for (const Path& path : level) {
      for (int64_t rank = 0; rank < children; ++rank) {
        check_count(choices.size() + 1, limits);
        next.push_back(path);
        next.back().push_back(static_cast<int32_t>(rank));
        choices.push_back(next.back());
      }
    }
    level = std::move(next);
  }
  return from_choices(std::move(choices), limits);
}

DraftTree DraftTree::from_parents(std::span<const int32_t> parents) {
  check(!parents.empty() && parents.size() <= static_cast<size_t>(kMostNodes),
        "a draft tree has 1 to ", kMostNodes, " nodes, got ", parents.size());
  DraftTree tree;
  check(parents[0] == -1, "node 0 of a draft tree is the root, whose parent is -1, got ",
        parents[0]);
  for (size_t node = 1; node < parents.size(); ++node) {
    const int32_t parent = parents[node];
    check(parent >= 0 && static_cast<size_t>(parent) < node, "the parent of node ", node,
          " of a draft tree comes before it, got ", parent);
    const auto rank = static_cast<int32_t>(tree.children(parent).size());
    tree.add(parent, rank, static_cast<int32_t>(node));
  }
  return tree;
}

DraftTree DraftTree::from_json(std::string_view text, std::string_view name,
                               const TreeLimits& limits) {
  check_limits(limits);
  const nlohmann::json json = parse_json(text, name);
  const JsonView list(json, std::string(name));
  list.expect_array();
  if (list.size() >= static_cast<size_t>(limits.nodes)) {
    list.refuse(list.size(), " paths and the root are more than ", limits.nodes, " nodes");
  }
  std::vector<Path> choices;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView entry = list[i];
    entry.expect_array();
    if (entry.size() > static_cast<size_t>(limits.heads)) {
      entry.refuse("a path of ", entry.size(), " ranks needs as many heads, but there are ",
                   limits.heads);
    }
    Path path;
    for (size_t j = 0; j < entry.size(); ++j)
      path.push_back(static_cast<int32_t>(entry[j].integer(0, limits.width - 1)));
    choices.push_back(std::move(path));
  }
  try {
    return from_choices(std::move(choices), limits);
  } catch (const Error& error) {
    list.refuse(error.what());
  }
}

std::string DraftTree::json() const {
  std::string text = "[";
  for (const Path& path : choices()) text += (text.size() > 1 ? ", " : "") + text_of(path);
  return text + "]";
}

Path DraftTree::path(int64_t node) const {
  Path path;
  for (auto at = static_cast<size_t>(node); at != 0; at = static_cast<size_t>(parents_[at]))
    path.push_back(ranks_[at]);
  std::reverse(path.begin(), path.end());
  return path;
}

std::vector<Path> DraftTree::choices() const {
  std::vector<Path> choices;
  for (int64_t node = 1; node < size(); ++node) choices.push_back(path(node));
  return choices;
}

DraftTree::LeafPaths DraftTree::leaf_paths() const {
  LeafPaths paths{.length = deepest_ + 1};
  for (int64_t leaf = 0; leaf < size(); ++leaf) {
    if (!children(leaf).empty()) continue;
    ++paths.leaves;
    paths.nodes.resize(static_cast<size_t>(paths.leaves * paths.length), kNoNode);
    const auto row = paths.nodes.end() - paths.length;
    for (auto node = static_cast<int32_t>(leaf); node >= 0;
         node = parents_[static_cast<size_t>(node)])
      row[depths_[static_cast<size_t>(node)]] = node;
  }
  return paths;
}

bool DraftTree::siblings_without_gaps() const {
  return std::all_of(children_.begin(), children_.end(), [&](const std::vector<int32_t>& siblings) {
    for (size_t i = 0; i < siblings.size(); ++i)
      if (ranks_[static_cast<size_t>(siblings[i])] != static_cast<int32_t>(i)) return false;
    return true;
  });
}

void DraftTree::add(int32_t parent, int32_t rank, int32_t candidate) {
  const auto node = static_cast<int32_t>(parents_.size());
  const auto above = static_cast<size_t>(parent);
  parents_.push_back(parent);
  ranks_.push_back(rank);
  candidates_.push_back(candidate);
  depths_.push_back(parent < 0 ? 0 : depths_[above] + 1);
  const uint64_t seen = parent < 0 ? 0 : static_cast<uint64_t>(visible_[above]);
  visible_.push_back(static_cast<int64_t>(seen | uint64_t{1} << node));
  children_.emplace_back();
  if (parent >= 0) children_[above].push_back(node);
  deepest_ = std::max(deepest_, static_cast<int64_t>(depths_.back()));
}

}  // namespace binade::heads::decoding
