// Slots of a thread that `amp::Autocast` fills for a scope: the precision policy (every op states
// its class where it is defined, and the ops' casts read the policy, autograd/autocast.h) and the
// loss scale.
#pragma once

#include <cstdint>
#include <optional>

#include <binade/core/array.h>

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

// The number that the loss is going to be multiplied by before backward, an f32 scalar on the
// device; null where nobody said. Ops that compute gradients in their forward pass store them in
// half types with this scale on them: without it what they store would flush to zero. Backward
// corrects for another scale, so that this is about range only.
const Array* current_loss_scale();
// Sets it and returns the one before.
const Array* exchange_loss_scale(const Array* scale);

// What both slots hold, copied: a scope may end before somebody works as it said.
struct Precision {
  std::optional<PrecisionPolicy> policy;
  Array loss_scale;  // undefined: none

  static Precision current();
};

// Fills both slots while it lives.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  Precision own_;
  const PrecisionPolicy* previous_policy_;
  const Array* previous_loss_scale_;
};

}  // namespace binade
