// INTERNAL. A scope in which ops do not cast.
#pragma once

#include <binade/core/precision.h>

namespace binade {

// Sets the thread's precision policy aside while it lives: what is computed has its dtypes already.
class NoPolicy {
 public:
  NoPolicy() : previous_(exchange_precision_policy(nullptr)) {}
  ~NoPolicy() { exchange_precision_policy(previous_); }
  NoPolicy(const NoPolicy&) = delete;
  NoPolicy& operator=(const NoPolicy&) = delete;

 private:
  const PrecisionPolicy* previous_;
};

}  // namespace binade
