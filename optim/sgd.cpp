#include <binade/optim/sgd.h>

#include <cmath>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

Sgd::Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options)
    : Optimizer(std::move(groups)), options_(options) {
  check(options.momentum >= 0 && options.momentum < 1, "SGD needs a momentum in [0, 1), got ",
        options.momentum);
  check(std::isfinite(static_cast<float>(options.dampening)), "SGD needs a finite dampening, got ",
        options.dampening);
  check(!options.nesterov || (options.momentum > 0 && options.dampening == 0),
        "Nesterov momentum needs a momentum above 0 and no dampening");
  if (options.momentum > 0) add_moment("momentum");
}

Sgd::Sgd(const nn::Module& module, const WholeModule& how, const SgdOptions& options)
    : Sgd(one_group(module, how.weight_decay), options) {
  if (how.learning_rate) set_learning_rate(*how.learning_rate);
}

void Sgd::update_group(size_t group, const UpdateBuffers& buffers, const UpdateContext& context) {
  const FlatGroup& flat = groups()[group];
  BINADE_DISPATCH(device(), optimizer_update(buffers, context,
                                             kernels::SgdParams{.lr_factor = flat.lr_factor(),
                                                                .momentum = options_.momentum,
                                                                .dampening = options_.dampening,
                                                                .weight_decay = flat.weight_decay(),
                                                                .nesterov = options_.nesterov}));
}

}  // namespace binade::optim
