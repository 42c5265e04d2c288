#include <binade/core/precision.h>

#include <utility>

namespace binade {

namespace {
thread_local const PrecisionPolicy* slot = nullptr;
}

const PrecisionPolicy* current_precision_policy() {
  return slot;
}

const PrecisionPolicy* exchange_precision_policy(const PrecisionPolicy* policy) {
  return std::exchange(slot, policy);
}

}  // namespace binade
