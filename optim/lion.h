// Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", alg. 2):
//   w ← w − lr (sign(β1 m + (1−β1) g) + wd·w),  m ← β2 m + (1−β2) g.
#pragma once

#include <binade/optim/optimizer.h>

namespace binade::optim {

struct LionOptions {
  double beta1 = 0.9;
  double beta2 = 0.99;
};

class Lion : public Optimizer {
 public:
  explicit Lion(std::vector<ParameterGroup> groups, const LionOptions& options = {});
  Lion(const nn::Module& module, const WholeModule& how, const LionOptions& options = {});
  const char* name() const override { return "lion"; }

 private:
  void update_group(size_t group, const UpdateBuffers& buffers,
                    const UpdateContext& context) override;
  LionOptions options_;
};

}  // namespace binade::optim
