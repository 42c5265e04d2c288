// What an optimizer's update and the loss-scale automaton read and write: arrays on one device. The
// kernels that do it are in core/kernels/optimizer.h.
#pragma once

#include <cstdint>

#include <binade/core/array.h>

namespace binade {

// What every update of a step reads. `step` (i64 scalar) counts optimizer steps done before this
// one; it moves after all groups.
struct UpdateContext {
  Array grad_factor;    // f32: multiplies the stored gradient; undefined: 1
  Array found_inf;      // f32: non-zero → nothing is written
  Array learning_rate;  // f32 (f64 where masters are f64); undefined for an update that has none
  Array step;           // i64; undefined for an update that does not depend on it
};

// Buffers of one parameter group, (n) contiguous. `master` is f32 (f64 in gradient checks); `value`
// is the compute copy that is rewritten from it, or shares the master's storage (then it is written
// once).
struct UpdateBuffers {
  Array grad;  // f16, bf16, f32 or f64
  Array master;
  Array value;
  Array moment1, moment2;  // master's dtype; those an optimizer does not use are undefined
};

// The decay of an exponential moving average, by n, the updates that came before the one that is
// averaged. What grows from a low decay forgets the start sooner.
struct AverageDecay {
  enum class Kind : uint8_t {
    constant,  // decay
    ratio,     // min(decay, (1 + n)/(10 + n)): TensorFlow's ExponentialMovingAverage(num_updates)
    power,     // min(decay, 1 − (1 + n)^−exponent): diffusers' EMAModel(use_ema_warmup)
  };
  double decay = 0.999;  // in (0, 1)
  Kind kind = Kind::constant;
  double exponent = 2.0 / 3;  // of `power`, above 0
};

// Squares of gradients are added up in chunks of so many elements, from the start of their group
// on, so that a norm does not depend on who adds up which of them.
inline constexpr int64_t kGradientChunk = 8192;

// Where a group's gradients are not finite: 2·position + (1 if NaN, 0 if infinite) of the first
// such element, or this.
inline constexpr int64_t kNoBadGradient = INT64_MAX;

// The automaton of the loss scale; scalars on the device.
struct ScalerState {
  Array scale;      // f32
  Array inv_scale;  // f32, always 1/scale
  Array tracker;    // i32: good steps since the last change
  Array credit;     // i32: bad steps left before a backoff
  Array skipped;    // i64: skipped steps in all
  Array at_floor;   // i32: consecutive skips that began with the scale at its floor; a good step: 0
};
struct ScalerSettings {
  float growth_factor = 2, backoff_factor = 0.5f;
  int32_t growth_interval = 2000, hysteresis = 1;
  float min_scale = 1, max_scale = 16777216;
  // false: the scale is constant (and so should be the floor); bad steps are skipped and counted.
  bool dynamic = true;
};

}  // namespace binade
