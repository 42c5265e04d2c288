#include <binade/autograd/watched_leaves.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace binade {

namespace {

thread_local GradientWatch* current = nullptr;

}  // namespace

bool is_hooked(const TensorState& leaf) {
  return leaf.hooks && !leaf.hooks->entries.empty();
}

GradientWatch::Scope::Scope(GradientWatch* watch) : previous_(std::exchange(current, watch)) {}

GradientWatch::Scope::~Scope() {
  current = previous_;
}

GradientWatch* current_gradient_watch() {
  return current;
}

WatchedLeaves::WatchedLeaves(GradientWatch& watch, const std::vector<const Node*>& nodes,
                             const std::vector<std::shared_ptr<TensorState>>& leaves)
    : watch_(watch) {
  std::unordered_map<const TensorState*, size_t> places;
  const auto meet = [&](const std::shared_ptr<TensorState>& leaf, uint64_t sequence) {
    if (!leaf || !leaf->requires_grad || leaf->value.numel() == 0) return;
    const auto [found, inserted] = places.try_emplace(leaf.get(), coming_.size());
    if (inserted) coming_.push_back({sequence, leaf});
    uint64_t& last = coming_[found->second].last;
    last = std::min(last, sequence);
  };
  for (const auto& leaf : leaves) meet(leaf, UINT64_MAX);
  std::unordered_set<const Node*> seen(nodes.begin(), nodes.end());
  for (std::vector<const Node*> found = nodes; !found.empty();) {
    const Node& node = *found.back();
    found.pop_back();
    for (const Edge& edge : node.inputs) {
      meet(edge.leaf, node.sequence);
      if (edge.node && seen.insert(edge.node.get()).second) found.push_back(edge.node.get());
    }
    for (const auto& leaf : node.hidden_leaves) meet(leaf, node.sequence);
  }
  std::stable_sort(coming_.begin(), coming_.end(), [](const Coming& a, const Coming& b) {
    const bool a_waits = is_hooked(*a.leaf), b_waits = is_hooked(*b.leaf);
    return a_waits == b_waits ? a.last > b.last : b_waits;
  });
  TensorList all;
  for (const Coming& one : coming_) all.emplace_back(one.leaf);
  watch_.begin(all);
}

void WatchedLeaves::come_to(uint64_t sequence) {
  for (; complete_ < coming_.size(); ++complete_) {
    const Coming& next = coming_[complete_];
    if (next.last <= sequence || is_hooked(*next.leaf)) return;
    watch_.complete(Tensor(next.leaf));
  }
}

void WatchedLeaves::finish() {
  for (; complete_ < coming_.size(); ++complete_) watch_.complete(Tensor(coming_[complete_].leaf));
}

}  // namespace binade
