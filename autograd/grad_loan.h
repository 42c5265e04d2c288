// INTERNAL. The buffer that a leaf's gradient is bound to, lent to an op that computes gradients in
// its forward pass: they lie where backward will want them, and are not in memory twice.
#pragma once

#include <memory>

#include <binade/autograd/tensor.h>

namespace binade {

// Held by the op's backward function. The leaf has no gradient meanwhile. Whoever else needs the
// buffer first (another op's gradient, the optimizer, a new buffer) makes the values move out, so
// that the only loss is memory.
class GradLoan {
 public:
  // Null where the buffer cannot be had: the tensor is no leaf with a bound buffer, it has a
  // gradient already or hooks, or lent the buffer to somebody else.
  static std::shared_ptr<GradLoan> take(const Tensor& tensor);

  // Where the values are now.
  const Array& array() const { return array_; }

 private:
  friend struct Pending;
  Array array_;
};

}  // namespace binade
