#include <binade/optim/optimizer.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <binade/core/kernels/elementwise.h>

namespace binade::optim {

namespace {

// One flat group per dtype among the parameters of each given group.
std::vector<FlatGroup> flatten(const std::vector<ParameterGroup>& groups) {
  std::set<const nn::Parameter*> seen;
  std::vector<FlatGroup> flat;
  for (const ParameterGroup& group : groups) {
    std::map<std::pair<DType, bool>, std::vector<FlatGroup::Member>> by_dtype;
    for (const nn::NamedParameter& named : group.parameters) {
      check(named.parameter->trainable(), "parameter ", named.name,
            " is not trainable; leave it out of the optimizer's groups");
      check(seen.insert(named.parameter.get()).second, "parameter ", named.name,
            " is in two groups");
      by_dtype[{named.parameter->tensor().dtype(), named.parameter->has_master()}].push_back(
          {named, 0, 0});
    }
    for (auto& [kind, members] : by_dtype)
      flat.emplace_back(std::move(members), group.lr_factor, group.weight_decay);
  }
  check(!flat.empty(), "the optimizer got no trainable parameters");
  return flat;
}

}  // namespace

Optimizer::Optimizer(std::vector<ParameterGroup> groups)
    : groups_(flatten(groups)),
      learning_rate_scalar_(
          Array::zeros({}, groups_.front().master().dtype() == DType::f64 ? DType::f64 : DType::f32,
                       groups_.front().device())),
      step_scalar_(Array::zeros({}, DType::i64, groups_.front().device())) {
  zero_grad();
}

size_t Optimizer::add_moment(const std::string& name) {
  Moment moment{name, {}};
  for (const FlatGroup& group : groups_) moment.buffers.push_back(group.new_moment());
  moments_.push_back(std::move(moment));
  return moments_.size() - 1;
}

void Optimizer::zero_grad() {
  for (const FlatGroup& group : groups_) group.zero_grad();
  accumulated_ = 0;
}

void Optimizer::set_learning_rate(double learning_rate) {
  learning_rate_ = learning_rate;
  learning_rate_scalar_.fill(learning_rate);
}

void Optimizer::accumulate() {
  fill_missing_grads();
  for (FlatGroup& group : groups_) {
    group.add_to_accumulated(accumulated_ == 0);
    group.zero_grad();
  }
  ++accumulated_;
}

void Optimizer::fill_missing_grads() {
  for (const FlatGroup& group : groups_) group.fill_missing_grads();
}

void Optimizer::update(const Array& grad_factor, const Array& found_inf) {
  const kernels::UpdateContext context{grad_factor, found_inf, learning_rate_scalar_, step_scalar_};
  for (size_t g = 0; g < groups_.size(); ++g) {
    const FlatGroup& group = groups_[g];
    // Without masters the weights live in half precision and are widened for the update alone.
    const Array master =
        is_half(group.master().dtype()) ? group.master().to(DType::f32) : group.master();
    const kernels::UpdateBuffers buffers{gradient(group), master, group.value(),
                                         moments_.size() > 0 ? moment(0, g) : Array(),
                                         moments_.size() > 1 ? moment(1, g) : Array()};
    update_group(g, buffers, context);
    // Backward of a graph recorded before this update would read changed weights: let it notice.
    for (const Array& written : {group.value(), group.master()}) written.bump_version();
    for (const Moment& moment : moments_) moment.buffers[g].bump_version();
  }
  BINADE_DISPATCH(device(), advance_step(step_scalar_, found_inf));
  step_scalar_.bump_version();
}

void Optimizer::step() {
  if (accumulated_ == 0) fill_missing_grads();
  update(Array::full({}, 1, DType::f32, device()), Array::zeros({}, DType::f32, device()));
}

int64_t Optimizer::steps_done() const {
  return step_scalar_.to_vector<int64_t>()[0];
}

nn::StateDict Optimizer::state() const {
  nn::StateDict state;
  state["step"] = step_scalar_.clone();
  for (const Moment& moment : moments_)
    for (size_t g = 0; g < groups_.size(); ++g)
      for (const FlatGroup::Member& member : groups_[g].members())
        state[moment.name + '.' + member.parameter.name] =
            groups_[g].part(moment.buffers[g], member);
  return state;
}

void Optimizer::load_state(const nn::StateDict& state) {
  std::vector<std::pair<Array, Array>> copies;  // source, destination
  size_t expected = 0;
  const auto plan = [&](const std::string& key, const Array& destination) {
    const auto found = state.find(key);
    check(found != state.end(), name(), ": the saved state has no ", key);
    check(found->second.shape() == destination.shape(), name(), ": ", key, " has shape ",
          found->second.shape(), " in the saved state, ", destination.shape(), " here");
    copies.emplace_back(found->second, destination);
    ++expected;
  };
  plan("step", step_scalar_);
  for (const Moment& moment : moments_)
    for (size_t g = 0; g < groups_.size(); ++g)
      for (const FlatGroup::Member& member : groups_[g].members())
        plan(moment.name + '.' + member.parameter.name, groups_[g].part(moment.buffers[g], member));
  check(state.size() == expected, name(), ": the saved state has ", state.size(), " entries, ",
        expected, " were expected: it belongs to another optimizer or model");
  for (const auto& [source, destination] : copies) destination.copy_from(source);
}

}  // namespace binade::optim
