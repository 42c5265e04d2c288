// GradScaler: dynamic loss scaling. All its state lives on the device; nothing here waits for it.
//
//   const amp::Autocast scope(preset, scaler);
//   scaler.scale(model.loss(…)).backward();
//   scaler.unscale_(optimizer);        // optional: finite check and norm, once
//   scaler.clip_norm(1.0);             // optional: global L2 norm, of the coming step()
//   scaler.step(optimizer);            // the update, unless a gradient is not finite
//   scaler.update();                   // moves the scale
//
// The stored gradients stay scaled. unscale_ makes one pass over them: finiteness, and the norm of
// the unscaled values; the optimizer multiplies by clip/scale as it reads.
//
// Several optimizers, as in PyTorch: each step() updates at once, or skips by its own gradients
// alone, and one update() at the end of the iteration moves the scale by all of them.
//
//   scaler.scale(loss_d).backward();
//   scaler.step(opt_d);
//   scaler.scale(loss_g).backward();   // may flow through d: opt_d has stepped
//   scaler.step(opt_g);
//   scaler.update();
//
// step({&a, &b}) makes several one: they are clipped by their joint norm and skip together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/optim/optimizer.h>

namespace binade::amp {

// Scale, factors and bounds must be powers of two (binades move, mantissas stay).
struct GradScalerOptions {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int growth_interval = 2000;
  double min_scale = 1;
  double max_scale = 16777216;  // 2^24
  int hysteresis = 1;           // consecutive bad steps before a backoff
  bool dynamic = true;
  // The options of a preset: scale 1 and constant where scaling is off. A constant scale is its own
  // floor and ceiling.
  static GradScalerOptions of(const Preset& preset);
};

// The first parameter, in module order, whose gradient was not finite.
struct Offender {
  std::string parameter;
  bool is_nan = false;  // otherwise infinite
  // Flat position in the parameter; beyond its end for what was written into the gap behind it.
  int64_t element = 0;
  size_t optimizer = 0;  // which of the optimizers that were asked about
};

class GradScaler {
 public:
  explicit GradScaler(Device device, const GradScalerOptions& options = {});
  // A copy would move the same scale.
  GradScaler(const GradScaler&) = delete;
  GradScaler& operator=(const GradScaler&) = delete;

  // loss · scale, in f32 (the scale is beyond f16's largest value).
  Tensor scale(const Tensor& loss) const { return scaled(loss, state_.scale); }
  // The same with another scale, an f32 scalar on the loss's device.
  static Tensor scaled(const Tensor& loss, const Array& scale);
  // The pass over an optimizer's gradients, which must stay as they are until its step(): one that
  // finds others (another backward(), zero_grad(), a write into them) throws Error. Throws Error
  // when called twice for an optimizer between updates, or after its step(), or when no gradient
  // reached its parameters.
  void unscale_(optim::Optimizer& optimizer);
  // Clips the global norm of the gradients of the coming step() to `max_norm`, and of no other; 0:
  // no clipping.
  void clip_norm(double max_norm);
  // Updates the optimizer's parameters at once, or nothing of it if a gradient is not finite
  // (unscale_ is called if it was not). A second step() before update() throws Error, and so does
  // what unscale_ and Optimizer::check_ready() find; then nothing was done.
  void step(optim::Optimizer& optimizer) { step({&optimizer}); }
  // The same for several: one norm, and all or none are updated.
  void step(const std::vector<optim::Optimizer*>& optimizers);
  // Moves the scale: down if any optimizer that was unscaled since the last update() had a
  // gradient that is not finite. It ends an iteration that unscaled and made no step(), too. Throws
  // Error when nothing was unscaled.
  void update();

  const GradScalerOptions& options() const { return options_; }

  // ---- device scalars, for metrics and for ops that compute gradients in their forward pass -----
  const Array& scale_scalar() const { return state_.scale; }          // f32
  const Array& inv_scale_scalar() const { return state_.inv_scale; }  // f32
  // Of the last update(), over all its optimizers: f32, the norm before clipping, and 1 if a
  // gradient was not finite.
  const Array& norm() const { return norm_; }
  const Array& found_inf() const { return found_inf_; }
  // Of the step() that this optimizer was in, from that step() until the next unscale_ or step()
  // after update(). found_inf is what Ema::update wants. Throws Error if there was none.
  Array norm(const optim::Optimizer& optimizer) const;
  Array found_inf(const optim::Optimizer& optimizer) const;
  const Array& skipped() const { return state_.skipped; }    // i64: updates with a skip in all
  const Array& at_floor() const { return state_.at_floor; }  // i32: consecutive ones at min_scale
  // (groups) i64: for each flat group of the optimizers, in the order of their unscaling, where its
  // gradients are not finite (kNoBadGradient, core/update.h). Entries beyond are old.
  const Array& first_bad() const { return first_bad_; }

  // What the values of first_bad() mean, for the optimizers in the order of their unscaling: the
  // bad parameter that is first in module order.
  static Offender offender(const std::vector<const optim::Optimizer*>& optimizers,
                           const std::vector<int64_t>& first_bad);

  // Scale, tracker, credit, skipped, at_floor (host synchronisation on a GPU).
  nn::StateDict state() const;
  // Throws Error, and changes nothing, when an entry is missing or is no such number, or between
  // unscale_ and update(). A constant scale stays the options'; a scale outside [min_scale,
  // max_scale], or counters beyond growth_interval and hysteresis, move to the nearest allowed.
  void load_state(const nn::StateDict& saved);

 private:
  // An optimizer that was unscaled, and where its statistics lie.
  struct Check {
    std::weak_ptr<const void> optimizer;
    int64_t index;                // in norm_sq_
    int64_t first_group, groups;  // in first_bad_
    std::vector<uint64_t> mark;   // of the gradients that were seen
    int64_t step = -1;            // which step() it was in
  };
  Check* find(const optim::Optimizer& optimizer);
  // Adds up the gradients' statistics, for optimizers that were not unscaled. Throws Error, and
  // begins nothing, unless all of them can be.
  void unscale_all(const std::vector<optim::Optimizer*>& optimizers);
  const Check& stepped(const optim::Optimizer& optimizer) const;
  void clip(const Array& norm_sq, const Array& first_bad, double max_norm, int64_t slot);

  GradScalerOptions options_;
  ScalerState state_;
  Array norm_sq_, first_bad_;                // an entry for an optimizer, for a group
  Array none_bad_;                           // (1): kNoBadGradient
  Array found_infs_, norms_, grad_factors_;  // an entry for a step()
  Array found_inf_, norm_;                   // of the last update
  double max_norm_ = 0;                      // of the coming step()
  // Since the last update(); what was before it is kept for norm(optimizer) until the next
  // unscale_.
  bool updated_ = true;
  int64_t groups_ = 0, steps_ = 0;
  std::vector<Check> checks_;
};

}  // namespace binade::amp
