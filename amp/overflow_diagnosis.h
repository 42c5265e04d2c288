// Names the op of the forward or backward pass that first produced a non-finite value:
//
//   amp::OverflowDiagnosis diagnosis;
//   { run the step that overflowed again, eagerly }
//   if (diagnosis.found()) std::cout << diagnosis.text();
//
// Anomaly mode (autograd/anomaly.h) throws at the first NaN; this goes on, and takes inf as well:
// in FP16 that is where a NaN comes from.
#pragma once

#include <memory>
#include <string>

#include <binade/autograd/observer.h>

namespace binade::amp {

// Watches the thread's ops while alive, and waits for the GPU after each until it has found one.
// A step that is watched cannot be captured as a CUDA graph.
class OverflowDiagnosis {
 public:
  OverflowDiagnosis();
  ~OverflowDiagnosis();
  OverflowDiagnosis(const OverflowDiagnosis&) = delete;
  OverflowDiagnosis& operator=(const OverflowDiagnosis&) = delete;

  bool found() const;
  const std::string& op() const;  // "linear"; empty when nothing was found
  bool in_backward() const;
  // One line: "the forward pass of linear produced inf: input f16 (8, 32) in [-3.2, 40960], …;
  // output f16 (8, 64) in [-60000, 65472] and inf".
  const std::string& text() const;

 private:
  class Finder;
  std::unique_ptr<Finder> finder_;
  OpObserver* previous_;
};

}  // namespace binade::amp
