// Recompute: memory bought with time. Backward computes again what the forward pass drops.
//
//   model.set_recompute(Recompute::norms);                        // a model's own ops
//   { const RecomputeScope scope(Recompute::activations); … }     // ops that run meanwhile
//   Tensor y = recompute(segment, {x})[0];                        // a whole segment of a user's
//   own
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <binade/autograd/tensor.h>

namespace binade {

// What backward recomputes instead of keeping it.
enum class Recompute : uint8_t {
  nothing = 0,
  norms = 1,              // outputs of norms, from their inputs and statistics
  activations = 2,        // outputs of GELU and SwiGLU, from their inputs
  norms_activations = 3,  // both
  blocks = 4              // a model's blocks, by recompute() below: only their inputs are kept
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

// Activation checkpointing (Chen et al. 2016): runs `segment` off the tape and again, on it, when
// its gradient is wanted. Random numbers and the precision policy are those of the first run, so
// the result is bitwise the same. Parameters and other tensors that `segment` uses get their
// gradients as usual, from backward() and grad() alike. Inputs may be undefined, outputs may not.
TensorList recompute(std::function<TensorList(const TensorList&)> segment,
                     const TensorList& inputs);

// ---- for ops ------------------------------------------------------------------------------------
// An op whose result is cheap to compute from what its own backward keeps (a norm, an activation)
// attaches the recipe; an op that would keep that result for its backward (a product) keeps the
// recipe instead: Saved::recomputed. Unlike under recompute(), no product runs twice.

bool recomputes(Recompute what);  // whether `what` is part of the choice

// Says how backward recomputes the value of `result`, bit for bit. The recipe must hold arrays, not
// tensors: it lives as long as `result` or what was saved of it.
using Recipe = std::function<Array()>;
void attach_recipe(const Tensor& result, Recipe recipe);

}  // namespace binade
