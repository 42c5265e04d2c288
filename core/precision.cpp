#include <binade/core/precision.h>

#include <utility>

namespace binade {

namespace {
thread_local const PrecisionPolicy* slot = nullptr;
thread_local const Array* loss_scale_slot = nullptr;
}  // namespace

const PrecisionPolicy* current_precision_policy() {
  return slot;
}

const PrecisionPolicy* exchange_precision_policy(const PrecisionPolicy* policy) {
  return std::exchange(slot, policy);
}

const Array* current_loss_scale() {
  return loss_scale_slot;
}

const Array* exchange_loss_scale(const Array* scale) {
  return std::exchange(loss_scale_slot, scale);
}

Precision Precision::current() {
  Precision now;
  if (slot) now.policy = *slot;
  if (loss_scale_slot) now.loss_scale = *loss_scale_slot;
  return now;
}

PrecisionScope::PrecisionScope(Precision precision)
    : own_(std::move(precision)),
      previous_policy_(exchange_precision_policy(own_.policy ? &*own_.policy : nullptr)),
      previous_loss_scale_(
          exchange_loss_scale(own_.loss_scale.defined() ? &own_.loss_scale : nullptr)) {}

PrecisionScope::~PrecisionScope() {
  exchange_precision_policy(previous_policy_);
  exchange_loss_scale(previous_loss_scale_);
}

}  // namespace binade
