// Watching ops as they run: what anomaly mode and the diagnosis of overflow are made of.
#pragma once

#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

// Sees every op as it runs; thread-local. Costs nothing when absent.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void on_forward(const char* name, const TensorList& inputs,
                          const std::vector<Array>& outputs) = 0;
  // `doutputs`: the gradients of the op's outputs; `dinputs`: those it just produced for its
  // forward inputs, in order; undefined where none.
  virtual void on_backward(const char* name, const std::vector<Array>& doutputs,
                           const std::vector<Array>& dinputs) = 0;
};
// Sets the thread's observer (null: none) and returns the one before.
OpObserver* exchange_op_observer(OpObserver* observer);
OpObserver* current_op_observer();

}  // namespace binade
