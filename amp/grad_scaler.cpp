#include <binade/amp/grad_scaler.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/core/kernels/optimizer.h>

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

// A saved scalar; integers are exact in a double up to 2^53, more steps than there are.
double saved_number(const nn::StateDict& saved, const char* name, bool floating) {
  const auto found = saved.find(name);
  check(found != saved.end() && found->second.defined() && found->second.numel() == 1,
        "GradScaler: the saved state has no scalar ", name);
  check(is_floating(found->second.dtype()) == floating, "GradScaler: the saved ", name, " is ",
        found->second.dtype(), floating ? ", not a floating-point number" : ", not an integer");
  const double value = found->second.item();
  check(floating || value >= 0, "GradScaler: the saved ", name, " is negative: ", value);
  check(floating || value <= 0x1p53, "GradScaler: the saved ", name, " is no count: ", value);
  return value;
}

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
  norm_sq_ = Array::zeros({kMostGroups}, DType::f64, device);
  // One more than the steps that are possible: for all of them together.
  found_infs_ = Array::zeros({kMostGroups + 1}, DType::f32, device);
  norms_ = Array::zeros({kMostGroups + 1}, DType::f32, device);
  grad_factors_ = Array::zeros({kMostGroups + 1}, DType::f32, device);
  found_inf_ = found_infs_.select(0, 0);
  norm_ = norms_.select(0, 0);
  const std::vector<int64_t> none(kMostGroups, kNoBadGradient);
  first_bad_ = Array::from(none, {kMostGroups}, device);
  none_bad_ = first_bad_.slice(0, 0, 1).clone();
}

Tensor GradScaler::scaled(const Tensor& loss, const Array& scale) {
  check(loss.dtype() == DType::f32 || loss.dtype() == DType::f64,
        "GradScaler::scale needs a loss in f32: a scale of 65536 is beyond ", loss.dtype(),
        "'s range");
  return loss * Tensor(scale);
}

GradScaler::Check* GradScaler::find(const optim::Optimizer& optimizer) {
  const auto found = std::find_if(checks_.begin(), checks_.end(), [&](const Check& check) {
    return check.optimizer.lock() == optimizer.life();
  });
  return updated_ || found == checks_.end() ? nullptr : &*found;
}

void GradScaler::unscale_(optim::Optimizer& optimizer) {
  if (const Check* earlier = find(optimizer)) {
    check(earlier->step < 0, "GradScaler::unscale_ was called after step(); call update() first");
    fail("GradScaler::unscale_ was called twice for one optimizer since the last update()");
  }
  unscale_all({&optimizer});
}

void GradScaler::unscale_all(const std::vector<optim::Optimizer*>& optimizers) {
  auto groups = updated_ ? size_t{0} : static_cast<size_t>(groups_);
  for (const optim::Optimizer* optimizer : optimizers) {
    check(optimizer->device() == norm_.device(), "GradScaler: the scaler lives on ", norm_.device(),
          ", the optimizer's parameters on ", optimizer->device());
    groups += optimizer->groups().size();
  }
  check(groups <= kMostGroups, "GradScaler takes at most ", kMostGroups,
        " parameter groups between two updates");
  for (optim::Optimizer* optimizer : optimizers) optimizer->gather_grads();
  if (updated_ && !optimizers.empty()) {  // the first of an iteration
    norm_sq_.zero();
    checks_.clear();
    groups_ = steps_ = 0;
    updated_ = false;
  }
  for (const optim::Optimizer* optimizer : optimizers) {
    const auto index = static_cast<int64_t>(checks_.size());
    const int64_t first_group = groups_;
    groups_ += std::ssize(optimizer->groups());
    optimizer->measure(state_.inv_scale, norm_sq_.select(0, index),
                       first_bad_.slice(0, first_group, groups_));
    checks_.push_back(
        {optimizer->life(), index, first_group, groups_ - first_group, optimizer->gradient_mark()});
  }
}

void GradScaler::clip_norm(double max_norm) {
  check(max_norm >= 0, "GradScaler::clip_norm needs a norm of 0 or more, got ", max_norm);
  max_norm_ = max_norm;
}

void GradScaler::clip(const Array& norm_sq, const Array& first_bad, double max_norm, int64_t slot) {
  BINADE_DISPATCH(norm_sq.device(),
                  clip_factor(norm_sq, first_bad, state_.inv_scale, static_cast<float>(max_norm),
                              found_infs_.select(0, slot), norms_.select(0, slot),
                              grad_factors_.select(0, slot)));
  for (const Array& written : {found_infs_, norms_, grad_factors_}) written.bump_version();
}

void GradScaler::step(const std::vector<optim::Optimizer*>& optimizers) {
  check(!optimizers.empty(), "GradScaler::step was called without an optimizer");
  std::vector<optim::Optimizer*> unseen;
  for (size_t i = 0; i < optimizers.size(); ++i) {
    check(optimizers[i] != nullptr, "GradScaler::step: optimizer ", i, " is null");
    const Check* earlier = find(*optimizers[i]);
    check((earlier == nullptr || earlier->step < 0) &&
              std::count(optimizers.begin(), optimizers.end(), optimizers[i]) == 1,
          "GradScaler::step was called twice for one optimizer since the last update()");
    check(earlier == nullptr || earlier->mark == optimizers[i]->gradient_mark(),
          "GradScaler::step: the gradients of ", optimizers[i]->name(),
          " changed after unscale_(), which has not seen what they are now; call unscale_() after "
          "the last backward(), and update() at the end of an iteration without a step()");
    optimizers[i]->check_ready();
    if (earlier == nullptr) unseen.push_back(optimizers[i]);
  }
  unscale_all(unseen);

  std::vector<Check*> checks;
  for (optim::Optimizer* optimizer : optimizers) checks.push_back(find(*optimizer));
  std::sort(checks.begin(), checks.end(),
            [](const Check* a, const Check* b) { return a->index < b->index; });
  const int64_t first = checks.front()->index, last = checks.back()->index;
  const int64_t first_group = checks.front()->first_group;
  const int64_t last_group = checks.back()->first_group + checks.back()->groups;
  Array norm_sq = norm_sq_.slice(0, first, last + 1);
  Array first_bad = first_bad_.slice(0, first_group, last_group);
  if (last - first + 1 != static_cast<int64_t>(checks.size())) {
    // Others were unscaled between them: their statistics count for nothing here.
    norm_sq = norm_sq.clone();
    first_bad = first_bad.clone();
    for (const Check& other : checks_) {
      if (other.index < first || other.index > last ||
          std::any_of(checks.begin(), checks.end(), [&](const Check* c) { return c == &other; }))
        continue;
      norm_sq.select(0, other.index - first).zero();
      const int64_t begin = other.first_group - first_group;
      first_bad.slice(0, begin, begin + other.groups).copy_from(none_bad_);
    }
  }
  clip(norm_sq, first_bad, max_norm_, steps_);
  max_norm_ = 0;
  for (Check* check : checks) check->step = steps_;
  const Array factor = grad_factors_.select(0, steps_), found_inf = found_infs_.select(0, steps_);
  ++steps_;
  for (optim::Optimizer* optimizer : optimizers) optimizer->update(factor, found_inf);
}

void GradScaler::update() {
  check(!updated_, "GradScaler::update was called without a step() or unscale_() before it");
  const bool one_step = steps_ == 1 && std::all_of(checks_.begin(), checks_.end(),
                                                   [](const Check& c) { return c.step == 0; });
  const int64_t slot = one_step ? 0 : steps_;
  if (!one_step)
    clip(norm_sq_.slice(0, 0, static_cast<int64_t>(checks_.size())),
         first_bad_.slice(0, 0, groups_), 0, slot);
  found_inf_ = found_infs_.select(0, slot);
  norm_ = norms_.select(0, slot);
  const ScalerSettings settings{.growth_factor = static_cast<float>(options_.growth_factor),
                                .backoff_factor = static_cast<float>(options_.backoff_factor),
                                .growth_interval = options_.growth_interval,
                                .hysteresis = options_.hysteresis,
                                .min_scale = static_cast<float>(options_.min_scale),
                                .max_scale = static_cast<float>(options_.max_scale),
                                .dynamic = options_.dynamic};
  BINADE_DISPATCH(found_inf_.device(), update_scale(state_, settings, found_inf_));
  // A loss that was scaled before cannot go backward with the scale of now: let it notice.
  for (const Array& written : {state_.scale, state_.inv_scale, state_.tracker, state_.credit,
                               state_.skipped, state_.at_floor})
    written.bump_version();
  updated_ = true;
}

const GradScaler::Check& GradScaler::stepped(const optim::Optimizer& optimizer) const {
  for (const Check& check : checks_)
    if (check.step >= 0 && check.optimizer.lock() == optimizer.life()) return check;
  fail("GradScaler: this optimizer made no step() since the last update()");
}

Array GradScaler::norm(const optim::Optimizer& optimizer) const {
  return norms_.select(0, stepped(optimizer).step);
}

Array GradScaler::found_inf(const optim::Optimizer& optimizer) const {
  return found_infs_.select(0, stepped(optimizer).step);
}

Offender GradScaler::offender(const std::vector<const optim::Optimizer*>& optimizers,
                              const std::vector<int64_t>& first_bad) {
  int64_t lowest = INT64_MAX;
  Offender offender;
  size_t g = 0;
  for (size_t o = 0; o < optimizers.size(); ++o) {
    for (const optim::FlatGroup& group : optimizers[o]->groups()) {
      const int64_t code = first_bad.at(g++);
      if (code == kNoBadGradient) continue;
      const int64_t position = code / 2;
      // The last member that begins at or before it.
      const auto& members = group.members();
      const auto member =
          std::find_if(members.rbegin(), members.rend(),
                       [&](const auto& candidate) { return candidate.offset <= position; });
      if (member->parameter.order >= lowest) continue;
      lowest = member->parameter.order;
      offender = {member->parameter.name, code % 2 != 0, position - member->offset, o};
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
  check(updated_, "GradScaler: a state cannot be loaded between unscale_() or step() and update()");
  const double saved_scale = saved_number(saved, "scale", true);
  check_power_of_two("the saved scale", saved_scale);
  const double tracker = saved_number(saved, "tracker", false);
  const double credit = saved_number(saved, "credit", false);
  const double skipped = saved_number(saved, "skipped", false);
  const double at_floor = saved_number(saved, "at_floor", false);

  const double scale = options_.dynamic
                           ? std::clamp(saved_scale, options_.min_scale, options_.max_scale)
                           : options_.init_scale;
  // What was counted at another scale says nothing about this one.
  const bool same = scale == saved_scale;
  state_.scale.fill(scale);
  state_.inv_scale.fill(1 / scale);
  state_.tracker.fill(same ? std::min<double>(tracker, options_.growth_interval - 1) : 0);
  state_.credit.fill(std::min<double>(credit, options_.hysteresis));
  state_.skipped.fill(skipped);
  state_.at_floor.fill(same && scale <= options_.min_scale ? std::min<double>(at_floor, INT32_MAX)
                                                           : 0);
}

}  // namespace binade::amp
