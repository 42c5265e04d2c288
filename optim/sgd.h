// Stochastic gradient descent with momentum (PyTorch's form; Nesterov after Sutskever et al. 2013).
// Weight decay is added to the gradient.
#pragma once

#include <binade/optim/optimizer.h>

namespace binade::optim {

struct SgdOptions {
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;
};

class Sgd : public Optimizer {
 public:
  explicit Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options = {});
  Sgd(const nn::Module& module, const WholeModule& how, const SgdOptions& options = {});
  const char* name() const override { return "sgd"; }

 private:
  void update_group(size_t group, const UpdateBuffers& buffers,
                    const UpdateContext& context) override;
  SgdOptions options_;
};

}  // namespace binade::optim
