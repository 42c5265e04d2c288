// GradScaler: dynamic loss scaling. All its state lives on the device; nothing here waits for it.
//
//   const amp::Autocast scope(preset, scaler);
//   scaler.scale(model.loss(…)).backward();
//   scaler.unscale_(optimizer);        // optional: finite check and norm, once
//   scaler.clip_norm(1.0);             // optional: global L2 norm over all optimizers
//   scaler.step(optimizer);
//   scaler.update();
//
// The stored gradients stay scaled. unscale_ makes one pass over them: finiteness, and the norm of
// the unscaled values; the optimizer multiplies by clip/scale as it reads. step() queues an
// optimizer and update() runs the queued ones, all or none: with several optimizers all of them
// skip together when any gradient is non-finite (PyTorch skips only the bad one).
#pragma once

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
  int64_t element = 0;  // flat position in the parameter
};

class GradScaler {
 public:
  explicit GradScaler(Device device, const GradScalerOptions& options = {});

  // loss · scale, in f32 (the scale is beyond f16's largest value).
  Tensor scale(const Tensor& loss) const { return scaled(loss, state_.scale); }
  // The same with another scale, an f32 scalar on the loss's device.
  static Tensor scaled(const Tensor& loss, const Array& scale);
  // Throws Error when called twice for an optimizer between updates, or after its step().
  void unscale_(optim::Optimizer& optimizer);
  // Clips the global norm of all gradients to `max_norm` in the coming update, and in no other; 0:
  // no clipping.
  void clip_norm(double max_norm) { max_norm_ = max_norm; }
  // Queues the optimizer's update (unscale_ is called if it was not). A second step() before
  // update() throws Error.
  void step(optim::Optimizer& optimizer);
  // Runs the queued updates, unless a gradient was non-finite, and moves the scale.
  void update();

  const GradScalerOptions& options() const { return options_; }

  // ---- device scalars, for metrics and for ops that compute gradients in their forward pass -----
  const Array& scale_scalar() const { return state_.scale; }          // f32
  const Array& inv_scale_scalar() const { return state_.inv_scale; }  // f32
  const Array& norm() const { return norm_; }                // f32, of the last update, unclipped
  const Array& found_inf() const { return found_inf_; }      // f32: 1 after a skipped update
  const Array& skipped() const { return state_.skipped; }    // i64: skipped updates in all
  const Array& at_floor() const { return state_.at_floor; }  // i32: consecutive skips at min_scale
  // (groups) i64: for each flat group of all optimizers what kernels::gradient_stats says of its
  // first non-finite element.
  const Array& first_bad() const { return first_bad_; }

  // What the values of first_bad() mean, for the optimizers in the order of their unscaling.
  static Offender offender(const std::vector<const optim::Optimizer*>& optimizers,
                           const std::vector<int64_t>& first_bad);

  // Scale, tracker, credit, skipped, at_floor (host synchronisation on a GPU).
  nn::StateDict state() const;
  void load_state(const nn::StateDict& state);

 private:
  struct Progress {
    optim::Optimizer* optimizer;
    bool stepped;
  };
  Progress* find(const optim::Optimizer& optimizer);

  GradScalerOptions options_;
  kernels::ScalerState state_;
  Array found_inf_, norm_, norm_sq_, grad_factor_, first_bad_;
  double max_norm_ = 0;
  int64_t groups_seen_ = 0;         // flat groups unscaled since the last update
  std::vector<Progress> progress_;  // optimizers unscaled since the last update
};

}  // namespace binade::amp
