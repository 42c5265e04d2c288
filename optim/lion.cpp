#include <binade/optim/lion.h>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

Lion::Lion(std::vector<ParameterGroup> groups, const LionOptions& options)
    : Optimizer(std::move(groups)), options_(options) {
  check(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
        "Lion needs betas in [0, 1), got ", options.beta1, " and ", options.beta2);
  add_moment("exp_avg");
}

Lion::Lion(const nn::Module& module, const WholeModule& how, const LionOptions& options)
    : Lion(one_group(module, how.weight_decay), options) {
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
}

void Lion::update_group(size_t group, const UpdateBuffers& buffers, const UpdateContext& context) {
  const FlatGroup& flat = groups()[group];
  BINADE_DISPATCH(device(),
                  optimizer_update(buffers, context,
                                   kernels::LionParams{.lr_factor = flat.lr_factor(),
                                                       .beta1 = options_.beta1,
                                                       .beta2 = options_.beta2,
                                                       .weight_decay = flat.weight_decay()}));
}

}  // namespace binade::optim
