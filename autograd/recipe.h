// Values that backward makes again instead of keeping them. An op whose result is cheap to make
// from what its own backward keeps (a norm, an activation) says how; an op that would keep that
// result for its backward (a product) keeps the recipe. Unlike recompute(), no product runs twice.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <binade/autograd/tensor.h>

namespace binade {

// What backward makes again instead of keeping it.
enum class Recompute : uint8_t {
  nothing = 0,
  norms = 1,              // outputs of norms, from their inputs and statistics
  activations = 2,        // outputs of GELU and SwiGLU, from their inputs
  norms_activations = 3,  // both
  blocks = 4              // a model's blocks (recompute() in tape.h): only their inputs are kept
};

// By the names above, norms_activations as "norms+activations". Throws Error naming them.
Recompute parse_recompute(std::string_view name);

// The choice for the ops that run while it lives; thread-local, `nothing` without one.
class RecomputeScope {
 public:
  explicit RecomputeScope(Recompute choice);
  ~RecomputeScope();
  RecomputeScope(const RecomputeScope&) = delete;
  RecomputeScope& operator=(const RecomputeScope&) = delete;

 private:
  Recompute previous_;
};
bool makes_again(Recompute what);  // whether `what` is part of the choice

// Says how the value of `result` is made again, bit for bit, in backward; see Saved::remade. The
// recipe must hold arrays, not tensors: it lives as long as `result` or what was saved of it.
using Recipe = std::function<Array()>;
void attach_recipe(const Tensor& result, Recipe recipe);

}  // namespace binade
