// Sequential: layers and functions, one behind the other.
//
//   nn::Sequential net;
//   net.append<nn::Linear>(784, 128).append(relu).append<nn::Linear>(128, 10);
//   const Tensor logits = net.forward(x);
//
// The parts are numbered as in PyTorch, functions included: the state above has 0.weight, 0.bias,
// 2.weight and 2.bias.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <binade/autograd/tensor.h>
#include <binade/nn/module.h>

namespace binade::nn {

class Sequential : public Module {
 public:
  // A new layer of type M, whose forward() takes one tensor and gives one.
  template <class M, class... Args>
  requires std::derived_from<M, Module> Sequential& append(Args&&... args) {
    return append(std::make_shared<M>(std::forward<Args>(args)...));
  }
  // One that is there already; the caller may keep it, too. Null is an Error.
  template <class M>
  requires std::derived_from<M, Module> Sequential& append(std::shared_ptr<M> layer) {
    add_child(std::to_string(parts_.size()), layer);
    parts_.push_back([layer = std::move(layer)](const Tensor& x) { return layer->forward(x); });
    return *this;
  }
  // A function without parameters: relu, or [](const Tensor& x) { return flatten(x, 1); }.
  Sequential& append(std::function<Tensor(const Tensor&)> function) {
    check(function != nullptr, "part ", parts_.size(), " of a Sequential is null");
    parts_.push_back(std::move(function));
    return *this;
  }

  // Without parts: x itself.
  Tensor forward(const Tensor& x) const {
    Tensor y = x;
    for (const auto& part : parts_) y = part(y);
    return y;
  }
  int64_t size() const { return static_cast<int64_t>(parts_.size()); }

 private:
  std::vector<std::function<Tensor(const Tensor&)>> parts_;
};

}  // namespace binade::nn
