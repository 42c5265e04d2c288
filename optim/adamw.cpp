#include <binade/optim/adamw.h>

#include <cmath>
#include <limits>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

void check_options(const char* who, const AdamWOptions& options) {
  check(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1, who,
        " needs betas in [0, 1), got ", options.beta1, " and ", options.beta2);
  // A smaller one is 0 in f32, and 0/0 the update of a weight whose gradients were all 0.
  const auto eps = static_cast<float>(options.eps);
  check(eps >= std::numeric_limits<float>::min() && std::isfinite(eps), who,
        " needs an eps above 0 in f32's range, got ", options.eps);
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options)
    : Optimizer(std::move(groups)), options_(options) {
  check_options("AdamW", options);
  add_moment("exp_avg");
  add_moment("exp_avg_sq", MomentOf::squares);
}

AdamW::AdamW(const nn::Module& module, const WholeModule& how, const AdamWOptions& options)
    : AdamW(one_group(module, how.weight_decay), options) {
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
}

void AdamW::update_group(size_t group, const UpdateBuffers& buffers, const UpdateContext& context) {
  const FlatGroup& flat = groups()[group];
  BINADE_DISPATCH(device(),
                  optimizer_update(buffers, context,
                                   kernels::AdamWParams{.lr_factor = flat.lr_factor(),
                                                        .beta1 = options_.beta1,
                                                        .beta2 = options_.beta2,
                                                        .eps = options_.eps,
                                                        .weight_decay = flat.weight_decay()}));
}

}  // namespace binade::optim
