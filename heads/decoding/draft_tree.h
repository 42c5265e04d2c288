// DraftTree: the shape of what is drafted in one pass. Its nodes are tokens; each is a guess at
// what follows its parent. Node 0, the root, is no guess: it is the token that the target model
// gave last and has not been fed. A chain is a tree, and so is the root alone (plain decoding).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace binade::heads::decoding {

// The root included: what a node sees is one 64-bit word.
inline constexpr int64_t kMostNodes = 64;

struct TreeLimits {
  int64_t heads = kMostNodes - 1;  // the longest path
  int64_t width = 10;              // guesses that each head gives: ranks are below it
  int64_t nodes = kMostNodes;      // the root included
};

class DraftTree {
 public:
  // Ranks under head 1, 2, …: {0, 2} is the third guess of head 2 behind the first of head 1.
  using Path = std::vector<int32_t>;
  // The root alone.
  DraftTree() { add(-1, 0, 0); }
  // One node a path, in any order; the nodes are sorted by length, then by ranks. Throws Error that
  // names the path which is empty, comes twice, lacks its prefix, has a rank outside of [0, width)
  // or is longer than there are heads; and for more nodes than `limits` allows.
  static DraftTree from_choices(std::vector<Path> choices, const TreeLimits& limits = {});
  // {0}, {0, 0}, …: `length` guesses in a row.
  static DraftTree chain(int64_t length, const TreeLimits& limits = {});
  // Every node at depth d has the first branching[d] guesses as its children.
  static DraftTree full(const std::vector<int64_t>& branching, const TreeLimits& limits = {});
  // A tree that was drafted node by node (EAGLE-2): parents[n] < n, and −1 for the root. A node's
  // rank is its place among its siblings, and its candidate is its own token. Throws Error that
  // names the node whose parent is wrong.
  static DraftTree from_parents(std::span<const int32_t> parents);
  // The list of lists that FasterDecoding, TGI and TensorRT-LLM read: [[0], [0, 0], [1]]. `name`
  // stands in errors.
  static DraftTree from_json(std::string_view text, std::string_view name,
                             const TreeLimits& limits = {});
  std::string json() const;  // on one line

  int64_t size() const { return static_cast<int64_t>(parents_.size()); }
  // Of the deepest node; 0 for the root alone.
  int64_t depth() const { return deepest_; }

  // A number a node, (N). The parent comes before its children; −1 for the root.
  const std::vector<int32_t>& parents() const { return parents_; }
  // Edges from the root: a node stands at the position of the root plus this.
  const std::vector<int32_t>& depths() const { return depths_; }
  // Its rank under the head of its depth; 0 for the root.
  const std::vector<int32_t>& ranks() const { return ranks_; }
  // Where its token stands in [root, guesses of head 1, guesses of head 2, …]: the root at 0,
  // others at 1 + width · (depth − 1) + rank.
  const std::vector<int32_t>& candidates() const { return candidates_; }
  // Bit j says whether the node sees node j: itself and its ancestors, the root among them. (All
  // see the whole text before the root.) The words are those that infer's token trees take.
  const std::vector<int64_t>& visible() const { return visible_; }
  bool sees(int64_t node, int64_t other) const {
    return (static_cast<uint64_t>(visible_[static_cast<size_t>(node)]) >> other & 1) != 0;
  }
  // In the order of their ranks.
  const std::vector<int32_t>& children(int64_t node) const {
    return children_[static_cast<size_t>(node)];
  }
  // The ranks on the way from the root; empty for the root.
  Path path(int64_t node) const;
  // The paths of all nodes but the root.
  std::vector<Path> choices() const;

  // From the root to each leaf, a row of nodes; leaves in the order of their nodes.
  struct LeafPaths {
    int64_t leaves = 0, length = 0;
    std::vector<int32_t> nodes;  // (leaves, length); short rows end in kNoNode
  };
  static constexpr int32_t kNoNode = -1;  // no node: never to be read as the last one
  LeafPaths leaf_paths() const;

  // Whether siblings have ranks 0, 1, 2, … without a gap: then they can be drawn one after the
  // other, without replacement (acceptance.h).
  bool siblings_without_gaps() const;

 private:
  void add(int32_t parent, int32_t rank, int32_t candidate);

  std::vector<int32_t> parents_, depths_, ranks_, candidates_;
  std::vector<int64_t> visible_;
  std::vector<std::vector<int32_t>> children_;
  int64_t deepest_ = 0;
};

// For errors and tables: "[0, 2]".
std::string text_of(const DraftTree::Path& path);

}  // namespace binade::heads::decoding
