// INTERNAL. Which leaves a function reads whose ops are not recorded.
#pragma once

#include <memory>
#include <vector>

#include <binade/autograd/graph.h>

namespace binade {

// While it lives, notes the leaves that ops of this thread take and that require a gradient,
// recorded or not. The innermost one notes them.
class LeafCollector {
 public:
  LeafCollector();
  ~LeafCollector();
  LeafCollector(const LeafCollector&) = delete;
  LeafCollector& operator=(const LeafCollector&) = delete;

  // Each once, in the order they were met in.
  std::vector<std::shared_ptr<TensorState>> take();

  // What record() tells.
  static void note(const Tensor& input);

 private:
  std::vector<std::shared_ptr<TensorState>> leaves_;
  LeafCollector* previous_;
};

}  // namespace binade
