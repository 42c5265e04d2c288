#include <binade/optim/ema.h>

#include <cmath>

#include <binade/core/kernels/optimizer.h>
#include <binade/core/log.h>
#include <binade/optim/state_loading.h>

namespace binade::optim {

Ema::Ema(const Optimizer& optimizer, const EmaDecay& decay,
         const std::vector<nn::NamedBuffer>& statistics)
    : optimizer_(&optimizer), life_(optimizer.life()), decay_(decay), shared_(optimizer.shared()) {
  check(decay.decay > 0 && decay.decay < 1, "EMA needs a decay in (0, 1), got ", decay.decay);
  check(decay.exponent > 0 && std::isfinite(decay.exponent),
        "EMA needs an exponent above 0 of its decay, got ", decay.exponent);
  check(!optimizer.life()->averages_in_use,
        "EMA: the model computes with other averages; end their Ema::Scope first");
  for (const FlatGroup& group : optimizer.groups()) {
    const bool deferred = group.deferred();
    averages_.push_back(deferred ? Array() : group.copy_of_masters());
    sources_.push_back(deferred ? group.sources() : std::vector<nn::ValueSource>());
  }
  for (const nn::NamedBuffer& one : statistics) {
    if (!is_floating(one.buffer.dtype())) continue;
    check(one.buffer.device() == optimizer.device(), "EMA: ", one.name, " is on ",
          one.buffer.device(), ", the parameters on ", optimizer.device());
    statistics_.push_back(one);
    averages_.push_back(one.buffer.array().clone());
  }
  kept_.resize(averages_.size());
}

const Optimizer& Ema::optimizer() const {
  check(!life_.expired(), "EMA: the optimizer whose parameters it follows is gone");
  return *optimizer_;
}

void Ema::place() {
  for (size_t g = 0; g < optimizer().groups().size(); ++g)
    averages_[g] = begun(g).to(optimizer().device());
}

const Array& Ema::begun(size_t i) const {
  if (!averages_[i].defined()) {
    const FlatGroup& group = optimizer().groups()[i];
    averages_[i] = group.new_moment();
    for (size_t m = 0; m < group.members().size(); ++m)
      group.make_own(averages_[i], group.members()[m], sources_[i][m]);
    sources_[i].clear();
  }
  return averages_[i];
}

const Array& Ema::averaged(size_t i) const {
  const std::vector<FlatGroup>& groups = optimizer().groups();
  return i < groups.size() ? groups[i].master() : statistics_[i - groups.size()].buffer.array();
}

const Array& Ema::average(size_t i) const {
  return in_use_ && !kept_[i].defined() ? averaged(i) : begun(i);
}

void Ema::update(const Array& found_inf) {
  check(!in_use_,
        "EMA: the averages are in use; end the Ema::Scope (or swap back) before update()");
  place();
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Array value = averaged(i).to(averages_[i].dtype());
    BINADE_DISPATCH(optimizer().device(), optimizer_update({value, averages_[i], {}, {}, {}},
                                                           {.grad_factor = {},
                                                            .found_inf = found_inf,
                                                            .learning_rate = {},
                                                            .step = optimizer().step_count()},
                                                           kernels::AverageParams{decay_}));
    averages_[i].bump_version();
  }
}

void Ema::update() {
  update(Array::zeros({}, DType::f32, optimizer().device()));
}

std::vector<MemberState> Ema::parameter_averages() const {
  std::vector<MemberState> all;
  const std::vector<FlatGroup>& groups = optimizer().groups();
  for (size_t g = 0; g < groups.size(); ++g)
    for (const FlatGroup::Member& member : groups[g].members())
      all.push_back({member.parameter.name, &groups[g], &member, average(g)});
  return all;
}

nn::StateDict Ema::statistics() const {
  nn::StateDict state;
  for (size_t i = 0; i < statistics_.size(); ++i)
    state[statistics_[i].name] = average(optimizer().groups().size() + i);
  return state;
}

nn::StateDict Ema::state() const {
  check(!shared_,
        "EMA: the ranks of the run hold the averages in pieces; call "
        "train::DataParallel::complete() on every rank first");
  nn::StateDict state = statistics();
  for (const MemberState& one : parameter_averages())
    state[one.name] = one.group->part(one.buffer, *one.member);
  return state;
}

void Ema::share() {
  check(!in_use_, "EMA: ranks cannot share averages that are in use; end the Ema::Scope first");
  if (shared_) return;
  const std::vector<FlatGroup>& groups = optimizer().groups();
  for (size_t g = 0; g < groups.size(); ++g) {
    if (sources_[g].empty()) averages_[g] = groups[g].own(averages_[g]);
  }
  shared_ = true;
}

void Ema::unshare() {
  check(!in_use_, "EMA: averages in use cannot be put together; end the Ema::Scope first");
  if (!shared_) return;
  const std::vector<FlatGroup>& groups = optimizer().groups();
  for (size_t g = 0; g < groups.size(); ++g) averages_[g] = groups[g].whole(begun(g));
  shared_ = false;
}

void Ema::load_state(const nn::StateDict& saved) {
  check(!in_use_,
        "EMA: the averages are in use; end the Ema::Scope (or swap back) before a state "
        "is loaded");
  const std::vector<MemberState> members = parameter_averages();
  nn::StateDict own = parts_of(members);
  own.merge(statistics());
  load_arrays("EMA", pieces_of("EMA", saved, members), own);
}

void Ema::swap() {
  const std::shared_ptr<Optimizer::Life> life = life_.lock();
  const std::vector<FlatGroup>& groups = optimizer().groups();
  check(in_use_ || !life->averages_in_use,
        "EMA: the model computes with other averages; end their Ema::Scope first");
  if (!in_use_) place();
  optimizer().wait_for_values();
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Array& master = averaged(i);
    const bool same_bits = master.dtype() == averages_[i].dtype();
    if (in_use_ && !same_bits) {
      master.copy_from(kept_[i]);
      kept_[i] = {};
    } else {
      const Array before = master.clone();
      master.copy_from(averages_[i]);
      if (same_bits) {
        averages_[i].copy_from(before);
      } else {
        kept_[i] = before;
      }
    }
    if (i >= groups.size()) continue;
    if (!groups[i].own_value().shares_storage(master)) groups[i].own_value().copy_from(master);
    groups[i].put_values();
  }
  optimizer().gather_values();
  in_use_ = !in_use_;
  life->averages_in_use = in_use_;
}

Ema::Scope::Scope(Ema& ema) : ema_(ema) {
  check(!ema.in_use_, "Ema::Scope: the averages are in use already");
  ema_.swap();
}

Ema::Scope::~Scope() {
  try {
    ema_.swap();
  } catch (const Error& error) {  // a device that failed, or an optimizer that is gone
    log_warning("the averages stay in the model: ", error.what());
  }
}

}  // namespace binade::optim
