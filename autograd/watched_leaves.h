// INTERNAL. What a backward pass tells its GradientWatch.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/autograd/gradient_watch.h>
#include <binade/autograd/graph.h>

namespace binade {

// Whether hooks wait for the leaf's gradient: they are called when the pass is over.
bool is_hooked(const TensorState& leaf);

// That of the thread; or null.
GradientWatch* current_gradient_watch();

// The leaves that a pass may reach. Nodes are visited in the reverse order of recording, so that a
// leaf is complete when the pass has come to what was recorded before all that lead to it.
class WatchedLeaves {
 public:
  // `nodes` and `leaves`: where the pass starts. Tells watch.begin().
  WatchedLeaves(GradientWatch& watch, const std::vector<const Node*>& nodes,
                const std::vector<std::shared_ptr<TensorState>>& leaves);

  // Nothing recorded later than this is left to be visited.
  void come_to(uint64_t sequence);
  // All was visited, and hooks were called.
  void finish();

 private:
  struct Coming {
    uint64_t last;  // the earliest recorded node that leads to the leaf
    std::shared_ptr<TensorState> leaf;
  };

  GradientWatch& watch_;
  std::vector<Coming> coming_;  // in the order in which they are complete
  size_t complete_ = 0;         // how many are
};

}  // namespace binade
