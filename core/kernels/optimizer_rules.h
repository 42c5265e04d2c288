// The arithmetic of optimizer updates, clipping and the loss-scale automaton, for the kernels of
// both devices: they loop over memory, these say what happens to an element or a scalar.
//
// A rule works in M, the masters' type (float or double). It is made from its settings, takes what
// depends on the step once (`prepare`), then updates elements: update(gradient, master, moment1,
// moment2), of which it touches the first kMoments moments. kName is its name in profiles.
#pragma once

#include <cfloat>
#include <cmath>

#include <binade/core/host_device.h>
#include <binade/core/kernels/optimizer.h>

namespace binade::kernels {

template <class M>
class AdamWRule {
 public:
  static constexpr const char* kName = "adamw_update";
  static constexpr int kMoments = 2;
  explicit AdamWRule(const AdamWParams& p)
      : params_(p),
        beta1_(static_cast<M>(p.beta1)),
        rest1_(static_cast<M>(1 - p.beta1)),
        beta2_(static_cast<M>(p.beta2)),
        rest2_(static_cast<M>(1 - p.beta2)),
        eps_(static_cast<M>(p.eps)),
        decay_(static_cast<M>(p.weight_decay)) {}
  BINADE_HOST_DEVICE void prepare(double learning_rate, int64_t steps_done) {
    const double t = static_cast<double>(steps_done + 1);
    lr_ = static_cast<M>(learning_rate * params_.lr_factor);
    unbias1_ = static_cast<M>(1 / (1 - std::pow(params_.beta1, t)));
    unbias2_ = static_cast<M>(1 / (1 - std::pow(params_.beta2, t)));
  }
  BINADE_HOST_DEVICE void update(M g, M& w, M& m, M& v) const {
    m = beta1_ * m + rest1_ * g;
    v = beta2_ * v + rest2_ * (g * g);
    const M direction = m * unbias1_ / (std::sqrt(v * unbias2_) + eps_);
    w -= lr_ * (direction + decay_ * w);
  }

 private:
  AdamWParams params_;
  M beta1_, rest1_, beta2_, rest2_, eps_, decay_;  // rest = 1 − β
  M lr_ = 0, unbias1_ = 0, unbias2_ = 0;           // 1/(1 − βᵗ)
};

// SGD without momentum.
template <class M>
class PlainSgdRule {
 public:
  static constexpr const char* kName = "sgd_update";
  static constexpr int kMoments = 0;
  explicit PlainSgdRule(const SgdParams& p)
      : lr_factor_(p.lr_factor), decay_(static_cast<M>(p.weight_decay)) {}
  BINADE_HOST_DEVICE void prepare(double learning_rate, int64_t) {
    lr_ = static_cast<M>(learning_rate * lr_factor_);
  }
  BINADE_HOST_DEVICE void update(M g, M& w, M&, M&) const { w -= lr_ * (g + decay_ * w); }

 private:
  double lr_factor_;
  M decay_, lr_ = 0;
};

template <class M>
class MomentumRule {
 public:
  static constexpr const char* kName = "sgd_update";
  static constexpr int kMoments = 1;
  explicit MomentumRule(const SgdParams& p)
      : params_(p), momentum_(static_cast<M>(p.momentum)), decay_(static_cast<M>(p.weight_decay)) {}
  BINADE_HOST_DEVICE void prepare(double learning_rate, int64_t steps_done) {
    lr_ = static_cast<M>(learning_rate * params_.lr_factor);
    old_ = steps_done == 0 ? M{0} : momentum_;
    fresh_ = steps_done == 0 ? M{1} : static_cast<M>(1 - params_.dampening);
  }
  BINADE_HOST_DEVICE void update(M g, M& w, M& m, M&) const {
    const M decayed = g + decay_ * w;
    m = old_ * m + fresh_ * decayed;
    w -= lr_ * (params_.nesterov ? decayed + momentum_ * m : m);
  }

 private:
  SgdParams params_;
  M momentum_, decay_;
  M lr_ = 0, old_ = 0, fresh_ = 0;  // what is kept of the moment, and the share of the gradient
};

template <class M>
class LionRule {
 public:
  static constexpr const char* kName = "lion_update";
  static constexpr int kMoments = 1;
  explicit LionRule(const LionParams& p)
      : lr_factor_(p.lr_factor),
        beta1_(static_cast<M>(p.beta1)),
        rest1_(static_cast<M>(1 - p.beta1)),
        beta2_(static_cast<M>(p.beta2)),
        rest2_(static_cast<M>(1 - p.beta2)),
        decay_(static_cast<M>(p.weight_decay)) {}
  BINADE_HOST_DEVICE void prepare(double learning_rate, int64_t) {
    lr_ = static_cast<M>(learning_rate * lr_factor_);
  }
  BINADE_HOST_DEVICE void update(M g, M& w, M& m, M&) const {
    const M blend = beta1_ * m + rest1_ * g;
    const M sign = blend > 0 ? M{1} : blend < 0 ? M{-1} : M{0};
    w -= lr_ * (sign + decay_ * w);
    m = beta2_ * m + rest2_ * g;
  }

 private:
  double lr_factor_;
  M beta1_, rest1_, beta2_, rest2_, decay_;
  M lr_ = 0;
};

// The direction takes the gradient's place.
template <class M>
class DirectionRule {
 public:
  static constexpr const char* kName = "direction_update";
  static constexpr int kMoments = 0;
  explicit DirectionRule(const DirectionParams& p)
      : lr_factor_(p.lr_factor), decay_(static_cast<M>(p.weight_decay)) {}
  BINADE_HOST_DEVICE void prepare(double learning_rate, int64_t) {
    lr_ = static_cast<M>(learning_rate * lr_factor_);
    keep_ = 1 - lr_ * decay_;
  }
  BINADE_HOST_DEVICE void update(M direction, M& w, M&, M&) const {
    w = w * keep_ - lr_ * direction;
  }

 private:
  double lr_factor_;
  M decay_, lr_ = 0, keep_ = 0;
};

// The average is the master, what it follows takes the gradient's place.
template <class M>
class AverageRule {
 public:
  static constexpr const char* kName = "average_update";
  static constexpr int kMoments = 0;
  explicit AverageRule(const AverageParams& p) : decay_(p.decay) { keep(p.decay.decay); }
  BINADE_HOST_DEVICE void prepare(double, int64_t steps_done) {
    const double before = steps_done > 1 ? static_cast<double>(steps_done - 1) : 0;
    double decay = decay_.decay;
    if (decay_.kind == AverageDecay::Kind::ratio) decay = (1 + before) / (10 + before);
    if (decay_.kind == AverageDecay::Kind::power)
      decay = 1 - std::pow(1 + before, -decay_.exponent);
    keep(decay < decay_.decay ? decay : decay_.decay);
  }
  BINADE_HOST_DEVICE void update(M value, M& average, M&, M&) const {
    average = keep_ * average + rest_ * value;
  }

 private:
  BINADE_HOST_DEVICE void keep(double decay) {
    keep_ = static_cast<M>(decay);
    rest_ = static_cast<M>(1 - decay);
  }

  AverageDecay decay_;
  M keep_ = 0, rest_ = 0;
};

// Calls use(rule) with the rule in M that the settings stand for.
template <class M, class Use>
void with_rule(const UpdateSettings& settings, const Use& use) {
  struct {
    const Use& use;
    void operator()(const AdamWParams& p) const { use(AdamWRule<M>(p)); }
    void operator()(const SgdParams& p) const {
      if (p.momentum == 0)
        use(PlainSgdRule<M>(p));
      else
        use(MomentumRule<M>(p));
    }
    void operator()(const LionParams& p) const { use(LionRule<M>(p)); }
    void operator()(const DirectionParams& p) const { use(DirectionRule<M>(p)); }
    void operator()(const AverageParams& p) const { use(AverageRule<M>(p)); }
  } const visitor{use};
  std::visit(visitor, settings);
}

struct Clipping {
  float found_inf, norm, grad_factor;
};

// `bad`: a gradient was not finite.
BINADE_HOST_DEVICE inline Clipping clip_to(double norm_sq, bool bad, float inv_scale,
                                           float max_norm) {
  const float norm = static_cast<float>(std::sqrt(norm_sq));
  const float ratio = max_norm / (norm + 1e-6f);
  const float clip = max_norm > 0 && ratio < 1 ? ratio : 1.0f;
  return {bad || !(norm <= FLT_MAX) ? 1.0f : 0.0f, norm, inv_scale * clip};
}

// ScalerState, read.
struct ScalerNumbers {
  float scale, inv_scale;
  int32_t tracker, credit;
  int64_t skipped;
  int32_t at_floor;
};

// The automaton of docs/mixed-precision.md, after a step that was applied or not (`bad`).
BINADE_HOST_DEVICE inline void move_scale(ScalerNumbers& state, const ScalerSettings& settings,
                                          bool bad) {
  if (bad) ++state.skipped;
  state.at_floor = bad && state.scale <= settings.min_scale ? state.at_floor + 1 : 0;
  if (!settings.dynamic) return;
  if (bad) {
    state.tracker = 0;
    if (state.credit > 0) --state.credit;
    if (state.credit == 0) {
      const float lower = state.scale * settings.backoff_factor;
      state.scale = lower > settings.min_scale ? lower : settings.min_scale;
    }
  } else {
    state.credit = settings.hysteresis;
    if (++state.tracker >= settings.growth_interval) {
      const float higher = state.scale * settings.growth_factor;
      state.scale = higher < settings.max_scale ? higher : settings.max_scale;
      state.tracker = 0;
    }
  }
  state.inv_scale = 1 / state.scale;
}

}  // namespace binade::kernels
