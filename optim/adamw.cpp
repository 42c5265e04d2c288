#include <binade/optim/adamw.h>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options)
    : Optimizer(std::move(groups)), options_(options) {
  check(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1,
        "AdamW needs betas in [0, 1), got ", options.beta1, " and ", options.beta2);
  check(options.eps > 0, "AdamW needs an eps above 0, got ", options.eps);
  add_moment("exp_avg");
  add_moment("exp_avg_sq");
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
