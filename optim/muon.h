// Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): momentum
// whose direction is made nearly orthogonal by a Newton–Schulz iteration. For matrices of hidden
// layers; every other parameter (vectors, embeddings, heads) belongs to AdamW, which Muon runs on
// the groups that it is told to.
//   m ← μ m + g;  u = g + μ m;  O = NS5(u);  w ← w − lr (s·O + wd·w),  s = √max(1, rows/cols)
// NS5: X = u/‖u‖; five times X ← a X + (b A + c A²) X with A = X Xᵀ, (a, b, c) = (3.4445,
// −4.7750, 2.0315).
//
// The iteration needs whole matrices: ranks that share the optimizer's state (ZeRO stage 1) share
// AdamW's part, and each of them has all of Muon's.
#pragma once

#include <binade/optim/adamw.h>

namespace binade::optim {

struct MuonOptions {
  double momentum = 0.95;
  int iterations = 5;
  AdamWOptions adamw;            // for the other parameters
  double adamw_lr_factor = 0.1;  // AdamW's learning rate relative to Muon's
};

class Muon : public Optimizer {
 public:
  // Of each group, parameters of two dimensions whose name does not contain "embed", "wte", "wpe"
  // or "head" are Muon's, the others AdamW's.
  explicit Muon(std::vector<ParameterGroup> groups, const MuonOptions& options = {});
  Muon(const nn::Module& module, const WholeModule& how, const MuonOptions& options = {});
  const char* name() const override { return "muon"; }

 private:
  void update_group(size_t group, const UpdateBuffers& buffers,
                    const UpdateContext& context) override;
  bool is_elementwise(const FlatGroup& group) const override;
  Array direction(const Array& update) const;  // s·NS5(update), f32
  MuonOptions options_;
};

}  // namespace binade::optim
