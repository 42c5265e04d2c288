// The pass over the gradients, and fused optimizer updates over flat buffers. A parameter group's
// values, gradients, masters and moments each lie in one contiguous buffer (optim/flat_group.h), so
// one launch serves a whole group. All scalars that move from step to step are read from the
// device. The arithmetic is written once for both devices (core/kernels/optimizer_rules.h).
#pragma once

#include <variant>

#include <binade/core/kernels/kernels.h>
#include <binade/core/update.h>

namespace binade::kernels {

// Of so many gradients, the last of them perhaps shorter.
inline int64_t gradient_chunks(int64_t elements) {
  return (elements + kGradientChunk - 1) / kGradientChunk;
}

// The statistics of gradients, a row for every kGradientChunk elements, in which nothing depends on
// the chunks around it (all on grad's device). statistics: (gradient_chunks(n), 2) f64, of a row
//   Σ (g·inv_scale)² over its finite elements, in a fixed order (unscaled before squaring, in f32;
//     partial sums in f64);
//   2·position + (1 if NaN, 0 if infinite) of its first element that is not finite, positions from
//     the start of the chunk; infinity if all are finite.
// grad (n) is contiguous f16, bf16, f32 or f64; inv_scale f32 scalar.
BINADE_KERNEL(gradient_stats, const Array& grad, const Array& inv_scale, const Array& statistics)

// Of all rows of a group, (chunks, 2): norm_sq (f64 scalar) += the sums, in an order that depends
// on their number alone; first_bad (i64 scalar, the group's own) = its first bad element, positions
// from the start of the group, or kNoBadGradient.
BINADE_KERNEL(add_gradient_stats, const Array& statistics, const Array& norm_sq,
              const Array& first_bad)

// From the statistics of what steps together (norm_sq: (optimizers) f64, added up in order;
// first_bad: (groups) i64): found_inf (f32) = 1 if any first_bad is a position or the norm is not
// finite, else 0; norm (f32) = sqrt(Σ norm_sq); grad_factor (f32) = inv_scale · min(1,
// max_norm/(norm+1e-6)) (max_norm ≤ 0: no clipping).
BINADE_KERNEL(clip_factor, const Array& norm_sq, const Array& first_bad, const Array& inv_scale,
              float max_norm, const Array& found_inf, const Array& norm, const Array& grad_factor)

// Moves the scale after a step with this found_inf.
BINADE_KERNEL(update_scale, const ScalerState& state, const ScalerSettings& settings,
              const Array& found_inf)

BINADE_KERNEL(advance_step, const Array& step, const Array& found_inf)  // += 1 unless found_inf

// Settings are doubles so that f64 masters follow the formulas exactly; kernels on f32 masters
// narrow them (and 1 − β, which is taken in double) once and compute in f32.
//
// Decoupled weight decay (Loshchilov & Hutter 2019, alg. 2, with lr multiplying the decay as in
// PyTorch).
struct AdamWParams {
  double lr_factor = 1, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};
// PyTorch's SGD: g += wd·w; m = momentum·m + (1−dampening)·g (m = g on the first step); Nesterov: g
// += momentum·m.
struct SgdParams {
  double lr_factor = 1, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};
// Lion (Chen et al. 2023, alg. 2): w −= lr·(sign(β1·m + (1−β1)·g) + wd·w); m = β2·m + (1−β2)·g.
struct LionParams {
  double lr_factor = 1, beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
};
// The tail of Muon, whose direction comes from matmuls and takes the gradient's place: w = w·(1 −
// lr·lr_factor·wd) − lr·lr_factor·direction.
struct DirectionParams {
  double lr_factor = 1, weight_decay = 0;
};
// An exponential moving average, which is the master; what it follows takes the gradient's place:
// average = decay·average + (1−decay)·value. It has no learning rate, and counts its updates by the
// context's step, which has moved already; without one the decay is constant.
struct AverageParams {
  AverageDecay decay;
};
using UpdateSettings =
    std::variant<AdamWParams, SgdParams, LionParams, DirectionParams, AverageParams>;

// Updates the master and the moments of one group in one pass and writes the compute copy, unless
// found_inf. Moments as many as the settings need: AdamW two, Lion and SGD with momentum one.
BINADE_KERNEL(optimizer_update, const UpdateBuffers& buffers, const UpdateContext& context,
              const UpdateSettings& settings)

}  // namespace binade::kernels
