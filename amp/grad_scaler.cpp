#include <binade/amp/grad_scaler.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops/arithmetic.h>

namespace binade::amp {

namespace {

// Within f32's normal range, of which the inverse is normal too.
void check_power_of_two(const char* what, double value) {
  int exponent = 0;
  check(std::frexp(value, &exponent) == 0.5 && std::abs(exponent - 1) <= 126, "GradScaler: ", what,
        " must be a power of two between 2^-126 and 2^126, got ", value);
}

// Flat groups of all optimizers together.
constexpr int64_t kMostGroups = 256;

}  // namespace

GradScalerOptions GradScalerOptions::of(const Preset& preset) {
  GradScalerOptions options;
  options.dynamic = preset.scaling == Preset::Scaling::dynamic;
  if (!options.dynamic)
    options.init_scale = options.min_scale = options.max_scale = preset.constant_scale;
  return options;
}

GradScaler::GradScaler(Device device, const GradScalerOptions& options) : options_(options) {
  check_power_of_two("init_scale", options.init_scale);
  check_power_of_two("growth_factor", options.growth_factor);
  check_power_of_two("backoff_factor", options.backoff_factor);
  check_power_of_two("min_scale", options.min_scale);
  check_power_of_two("max_scale", options.max_scale);
  check(options.growth_factor > 1 && options.backoff_factor < 1,
        "GradScaler: growth_factor must be above 1 and backoff_factor below 1, got ",
        options.growth_factor, " and ", options.backoff_factor);
  check(options.growth_interval > 0 && options.hysteresis > 0,
        "GradScaler: growth_interval and hysteresis must be at least 1, got ",
        options.growth_interval, " and ", options.hysteresis);
  check(options.min_scale <= options.init_scale && options.init_scale <= options.max_scale,
        "GradScaler: init_scale ", options.init_scale, " is outside [", options.min_scale, ", ",
        options.max_scale, "]");
  state_.scale = Array::full({}, options.init_scale, DType::f32, device);
  state_.inv_scale = Array::full({}, 1 / options.init_scale, DType::f32, device);
  state_.tracker = Array::zeros({}, DType::i32, device);
  state_.credit = Array::full({}, options.hysteresis, DType::i32, device);
  state_.skipped = Array::zeros({}, DType::i64, device);
  state_.at_floor = Array::zeros({}, DType::i32, device);
  found_inf_ = Array::zeros({}, DType::f32, device);
  norm_ = Array::zeros({}, DType::f32, device);
  norm_sq_ = Array::zeros({}, DType::f64, device);
  grad_factor_ = Array::full({}, 1, DType::f32, device);
  const std::vector<int64_t> none(kMostGroups, kernels::kNoBadGradient);
  first_bad_ = Array::from(none, {kMostGroups}, device);
}

Tensor GradScaler::scaled(const Tensor& loss, const Array& scale) {
  check(loss.dtype() == DType::f32 || loss.dtype() == DType::f64,
        "GradScaler::scale needs a loss in f32: a scale of 65536 is beyond ", loss.dtype(),
        "'s range");
  return loss * Tensor(scale);
}

GradScaler::Progress* GradScaler::find(const optim::Optimizer& optimizer) {
  const auto found =
      std::find_if(progress_.begin(), progress_.end(),
                   [&](const Progress& progress) { return progress.optimizer == &optimizer; });
  return found == progress_.end() ? nullptr : &*found;
}

void GradScaler::unscale_(optim::Optimizer& optimizer) {
  if (const Progress* progress = find(optimizer)) {
    check(!progress->stepped, "GradScaler::unscale_ was called after step(); call update() first");
    fail("GradScaler::unscale_ was called twice for one optimizer since the last update()");
  }
  if (progress_.empty()) {
    norm_sq_.zero();
    groups_seen_ = 0;
  }
  check(groups_seen_ + static_cast<int64_t>(optimizer.groups().size()) <= kMostGroups,
        "GradScaler takes at most ", kMostGroups, " parameter groups");
  optimizer.fill_missing_grads();
  for (const optim::FlatGroup& group : optimizer.groups()) {
    const Array& gradient = optimizer.gradient(group);
    BINADE_DISPATCH(gradient.device(), gradient_stats(gradient, state_.inv_scale, norm_sq_,
                                                      first_bad_.select(0, groups_seen_++)));
  }
  progress_.push_back({&optimizer, false});
}

void GradScaler::step(optim::Optimizer& optimizer) {
  if (find(optimizer) == nullptr) unscale_(optimizer);
  Progress* progress = find(optimizer);
  check(!progress->stepped,
        "GradScaler::step was called twice for one optimizer since the last update()");
  progress->stepped = true;
}

void GradScaler::update() {
  check(std::any_of(progress_.begin(), progress_.end(),
                    [](const Progress& progress) { return progress.stepped; }),
        "GradScaler::update was called without a step() before it");
  const Device device = found_inf_.device();
  BINADE_DISPATCH(device,
                  clip_factor(norm_sq_, first_bad_.slice(0, 0, groups_seen_), state_.inv_scale,
                              static_cast<float>(max_norm_), found_inf_, norm_, grad_factor_));
  for (const Progress& progress : progress_)
    if (progress.stepped) progress.optimizer->update(grad_factor_, found_inf_);
  const kernels::ScalerSettings settings{
      .growth_factor = static_cast<float>(options_.growth_factor),
      .backoff_factor = static_cast<float>(options_.backoff_factor),
      .growth_interval = options_.growth_interval,
      .hysteresis = options_.hysteresis,
      .min_scale = static_cast<float>(options_.min_scale),
      .max_scale = static_cast<float>(options_.max_scale),
      .dynamic = options_.dynamic};
  BINADE_DISPATCH(device, update_scale(state_, settings, found_inf_));
  // A loss that was scaled before cannot go backward with the scale of now: let it notice.
  for (const Array& written : {state_.scale, state_.inv_scale, state_.tracker, state_.credit,
                               state_.skipped, state_.at_floor, found_inf_, norm_, grad_factor_})
    written.bump_version();
  progress_.clear();
  max_norm_ = 0;
}

Offender GradScaler::offender(const std::vector<const optim::Optimizer*>& optimizers,
                              const std::vector<int64_t>& first_bad) {
  int64_t lowest = INT64_MAX;
  Offender offender;
  size_t g = 0;
  for (const optim::Optimizer* optimizer : optimizers) {
    for (const optim::FlatGroup& group : optimizer->groups()) {
      const int64_t code = first_bad.at(g++);
      if (code == kernels::kNoBadGradient) continue;
      const int64_t position = code / 2;
      for (const optim::FlatGroup::Member& member : group.members()) {
        if (position < member.offset || position >= member.offset + member.numel) continue;
        if (member.parameter.order >= lowest) continue;
        lowest = member.parameter.order;
        offender = {member.parameter.name, code % 2 != 0, position - member.offset};
      }
    }
  }
  check(lowest != INT64_MAX, "the step had no offender: every gradient was finite");
  return offender;
}

nn::StateDict GradScaler::state() const {
  return {{"scale", state_.scale.clone()},
          {"tracker", state_.tracker.clone()},
          {"credit", state_.credit.clone()},
          {"skipped", state_.skipped.clone()},
          {"at_floor", state_.at_floor.clone()}};
}

void GradScaler::load_state(const nn::StateDict& saved) {
  const std::pair<const char*, const Array*> entries[] = {{"scale", &state_.scale},
                                                          {"tracker", &state_.tracker},
                                                          {"credit", &state_.credit},
                                                          {"skipped", &state_.skipped},
                                                          {"at_floor", &state_.at_floor}};
  for (const auto& [name, array] : entries)
    check(saved.count(name) != 0 && saved.at(name).numel() == 1,
          "GradScaler: the saved state has no scalar ", name);
  check_power_of_two("the saved scale", saved.at("scale").item());
  for (const auto& [name, array] : entries) array->copy_from(saved.at(name));
  state_.inv_scale.fill(1 / state_.scale.item());
}

}  // namespace binade::amp
