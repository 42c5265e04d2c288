// AdamW: Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019):
//   m ← β1 m + (1−β1) g,  v ← β2 v + (1−β2) g²,  w ← w − lr (m̂ / (√v̂ + ε) + wd·w).
#pragma once

#include <binade/optim/optimizer.h>

namespace binade::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
};

// Throws Error, which begins with `who`, for betas outside [0, 1) and an eps that is 0 in f32 or
// not finite.
void check_options(const char* who, const AdamWOptions& options);

class AdamW : public Optimizer {
 public:
  explicit AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options = {});
  AdamW(const nn::Module& module, const WholeModule& how, const AdamWOptions& options = {});
  const char* name() const override { return "adamw"; }

 private:
  void update_group(size_t group, const UpdateBuffers& buffers,
                    const UpdateContext& context) override;
  AdamWOptions options_;
};

}  // namespace binade::optim
