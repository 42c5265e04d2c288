// Gradient clipping in a loop without a GradScaler (which has clip_norm() of its own).
#pragma once

#include <vector>

#include <binade/optim/optimizer.h>

namespace binade::optim {

// Optimizer::step() with the L2 norm of its gradients clipped to `max_norm` (0: not clipped): they
// count max_norm / (norm + 1e-6) times where that is below 1. Nothing is updated where a gradient
// is not finite. Returns the norm before, over finite elements, an f32 scalar on the device (no
// wait). Throws Error as step() does, and for a norm below 0 or not finite.
Array clipped_step(Optimizer& optimizer, double max_norm);
// The same for several: their joint norm is clipped, and all or none are updated.
Array clipped_step(const std::vector<Optimizer*>& optimizers, double max_norm);

}  // namespace binade::optim
