#include <binade/optim/ema.h>

#include <binade/core/kernels/elementwise.h>

namespace binade::optim {

Ema::Ema(const Optimizer& optimizer, double decay) : optimizer_(optimizer), decay_(decay) {
  check(decay > 0 && decay < 1, "EMA needs a decay in (0, 1), got ", decay);
  for (const FlatGroup& group : optimizer.groups()) {
    averages_.push_back(group.new_moment());
    averages_.back().copy_from(group.master());
  }
}

void Ema::update(const Array& found_inf) {
  for (size_t g = 0; g < averages_.size(); ++g) {
    BINADE_DISPATCH(
        optimizer_.device(),
        ema_update(averages_[g], optimizer_.groups()[g].master().to(averages_[g].dtype()), decay_,
                   found_inf));
    averages_[g].bump_version();
  }
}

nn::StateDict Ema::state() const {
  nn::StateDict state;
  for (size_t g = 0; g < averages_.size(); ++g)
    for (const FlatGroup::Member& member : optimizer_.groups()[g].members())
      state[member.parameter.name] = optimizer_.groups()[g].part(averages_[g], member);
  return state;
}

void Ema::load_state(const nn::StateDict& saved) {
  for (const auto& [name, average] : state()) {
    const auto found = saved.find(name);
    check(found != saved.end() && found->second.shape() == average.shape(),
          "EMA: the saved state has no average of ", name, " with shape ", average.shape());
    average.copy_from(found->second);
  }
}

void Ema::swap() {
  for (size_t g = 0; g < averages_.size(); ++g) {
    const FlatGroup& group = optimizer_.groups()[g];
    const Array master = group.master().clone();
    group.master().copy_from(averages_[g]);
    averages_[g].copy_from(master);
    if (!group.value().shares_storage(group.master())) group.value().copy_from(group.master());
  }
}

}  // namespace binade::optim
