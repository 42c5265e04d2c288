// The precision policy's slot. Every op states its class where it is defined; `amp::Autocast` fills
// the slot for a scope, and the ops' casts read it (autograd/autocast.h).
#pragma once

#include <cstdint>

#include <binade/core/dtype.h>

namespace binade {

enum class PrecisionClass : uint8_t {
  half,    // matmul, linear, conv, attention: run in the policy's half type
  full,    // softmax, losses, exp/log/pow, norm statistics, large reductions: run in f32
  widest,  // add, mul, cat, where: run in the widest floating dtype among the inputs
};

struct PrecisionPolicy {
  DType half_dtype = DType::f16;
};

// The thread's policy; null outside every Autocast scope.
const PrecisionPolicy* current_precision_policy();
// Sets it and returns the one before.
const PrecisionPolicy* exchange_precision_policy(const PrecisionPolicy* policy);

}  // namespace binade
