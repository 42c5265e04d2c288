// Values that backward makes again instead of keeping them. An op whose result is cheap to make
// from what its own backward keeps (a norm, an activation) says how; an op that would keep that
// result for its backward (a product) keeps the recipe. Unlike recompute(), no product runs twice.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <binade/autograd/tensor.h>

namespace binade {

// What backward makes again instead of keeping it; each level includes those before it.
enum class Recompute : uint8_t {
  nothing,
  norms,        // outputs of norms, from their inputs and statistics
  activations,  // outputs of GELU and SwiGLU, from their inputs
  blocks        // a model's blocks (recompute() in tape.h): only their inputs are kept
};

Recompute parse_recompute(std::string_view name);  // throws Error naming the levels

// The level of the ops that run while it lives; thread-local, `nothing` without one.
class RecomputeScope {
 public:
  explicit RecomputeScope(Recompute level);
  ~RecomputeScope();
  RecomputeScope(const RecomputeScope&) = delete;
  RecomputeScope& operator=(const RecomputeScope&) = delete;

 private:
  Recompute previous_;
};
Recompute recompute_level();

// Says how the value of `result` is made again, bit for bit, in backward; see Saved::remade. The
// recipe must hold arrays, not tensors: it lives as long as `result` or what was saved of it.
using Recipe = std::function<Array()>;
void attach_recipe(const Tensor& result, Recipe recipe);

}  // namespace binade
