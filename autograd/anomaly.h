// Anomaly mode: names the op that first produced a NaN.
#pragma once

#include <memory>

#include <binade/autograd/observer.h>

namespace binade {

// While alive, the first op whose output or gradient has a NaN throws Error that names the op and
// the ranges of its inputs. Waits for the GPU after every op.
class AnomalyMode {
 public:
  AnomalyMode();
  ~AnomalyMode();
  AnomalyMode(const AnomalyMode&) = delete;
  AnomalyMode& operator=(const AnomalyMode&) = delete;

 private:
  std::unique_ptr<OpObserver> observer_;
  OpObserver* previous_;
};

}  // namespace binade
