#include <binade/optim/optimizer.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include <binade/core/kernels/optimizer.h>
#include <binade/core/kernels/reduce.h>
#include <binade/optim/state_loading.h>

namespace binade::optim {

namespace {

// One flat group per dtype among the parameters of each given group.
std::vector<FlatGroup> flatten(const std::vector<ParameterGroup>& groups) {
  std::set<const nn::Parameter*> seen;
  std::set<std::string> names;
  for (const ParameterGroup& group : groups)
    for (const nn::NamedParameter& named : group.parameters) {
      check(named.parameter != nullptr, "parameter ", named.name, " is null");
      check(named.parameter->trainable(), "parameter ", named.name,
            " is not trainable; leave it out of the optimizer's groups");
      check(seen.insert(named.parameter.get()).second, "parameter ", named.name,
            " is in two groups");
      check(names.insert(named.name).second, "two parameters of the optimizer are named ",
            named.name, "; its state is saved by name, so give each a name of its own");
    }
  // Before any of them is moved.
  for (const ParameterGroup& group : groups)
    for (const nn::NamedParameter& named : group.parameters)
      named.parameter->require_unbound(nn::Parameter::kOwnerIsFixed);

  std::vector<FlatGroup> flat;
  for (const ParameterGroup& group : groups) {
    std::map<std::pair<DType, bool>, std::vector<FlatGroup::Member>> by_dtype;
    for (const nn::NamedParameter& named : group.parameters)
      by_dtype[{named.parameter->tensor().dtype(), named.parameter->has_master()}].push_back(
          {named, 0, 0, nullptr});
    for (auto& [kind, members] : by_dtype)
      flat.emplace_back(std::move(members), group.lr_factor, group.weight_decay, group.device);
  }
  check(!flat.empty(), "the optimizer got no trainable parameters");
  return flat;
}

// Beyond it a count is not exact in a double, and no run comes that far.
constexpr double kMostSteps = 9007199254740992;  // 2^53

bool has_negative(const Array& values) {
  if (!values.defined() || values.numel() == 0 || !is_floating(values.dtype())) return false;
  const Array flat = values.contiguous().view({values.numel()});
  const Array least = Array::empty({1}, flat.dtype(), flat.device());
  BINADE_DISPATCH(flat.device(), reduce(kernels::ReduceOp::min, flat, least, 0));
  return least.item() < 0;
}

// Elements [begin, end) of all buffers that there are.
UpdateBuffers part_of(const UpdateBuffers& buffers, int64_t begin, int64_t end) {
  const auto part = [&](const Array& buffer) {
    return buffer.defined() ? buffer.slice(0, begin, end) : buffer;
  };
  return {part(buffers.grad), part(buffers.master), part(buffers.value), part(buffers.moment1),
          part(buffers.moment2)};
}

}  // namespace

// What frozen members have in some buffers of their group's own elements, to be put back after an
// update.
class FrozenParts {
 public:
  FrozenParts(const FlatGroup& group, const std::vector<Array>& buffers) {
    for (const FlatGroup::Member& member : group.members()) {
      if (!member.frozen()) continue;
      for (const Array& buffer : buffers) {
        const Array part = group.own_part(buffer, member);
        if (part.numel() > 0) parts_.emplace_back(part, part.clone());
      }
    }
  }
  bool any() const { return !parts_.empty(); }
  void restore() const {
    for (const auto& [part, kept] : parts_) part.copy_from(kept);
  }

 private:
  std::vector<std::pair<Array, Array>> parts_;
};

Optimizer::Optimizer(std::vector<ParameterGroup> groups)
    : groups_(flatten(groups)),
      learning_rate_scalar_(
          Array::zeros({}, groups_.front().dtype() == DType::f64 ? DType::f64 : DType::f32,
                       groups_.front().device())),
      step_scalar_(Array::zeros({}, DType::i64, groups_.front().device())) {
  zero_grad();
}

size_t Optimizer::add_moment(const std::string& name, MomentOf kind) {
  moments_.push_back({name, kind, std::vector<Array>(groups_.size())});
  return moments_.size() - 1;
}

const Array& Optimizer::moment(size_t index, size_t group) const {
  Array& buffer = moments_[index].buffers[group];
  if (!buffer.defined()) buffer = groups_[group].new_moment();
  return buffer;
}

void Optimizer::zero_grad() {
  for (const FlatGroup& group : groups_) group.zero_grad();
  accumulated_ = 0;
  accumulated_any_ = false;
}

void Optimizer::set_learning_rate(double learning_rate) {
  check(learning_rate >= 0 && std::isfinite(static_cast<float>(learning_rate)), name(),
        ": a learning rate is 0 or more and finite in f32, got ", learning_rate);
  learning_rate_ = learning_rate;
  learning_rate_scalar_.fill(learning_rate);
  // Before the step that updates, which may be captured: a replay would make them anew.
  for (size_t g = 0; g < groups_.size(); ++g) {
    groups_[g].master();
    for (Moment& one : moments_)  // what ranks have put together may be elsewhere
      if (one.buffers[g].defined()) one.buffers[g] = one.buffers[g].to(device());
    for (size_t i = 0; i < moments_.size(); ++i) moment(i, g);
  }
}

bool Optimizer::has_grads() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const FlatGroup& group) { return group.has_grads(); });
}

void Optimizer::accumulate() {
  check(!shared_, name(),
        ": ranks share the optimizer's state; a train::TrainStep on all of them brings the "
        "gradients together");
  fill_missing_grads();
  for (FlatGroup& group : groups_) group.add_to_accumulated(accumulated_ == 0);
  note_accumulated();
}

void Optimizer::note_accumulated() {
  accumulated_any_ = accumulated_any_ || has_grads();
  for (const FlatGroup& group : groups_) group.zero_grad();
  ++accumulated_;
}

void Optimizer::gather_grads() {
  check(has_grads() || accumulated_any_, name(),
        ": no gradient reached a parameter since zero_grad(): call backward() on a loss that "
        "depends on them before the step; after a model was changed, make its optimizer anew");
  if (accumulated_ == 0 && !shared_) {
    fill_missing_grads();
    return;
  }
  if (accumulated_ == 0 || has_pending_grads()) accumulate();
  for (const FlatGroup& group : groups_) group.zero_frozen_sums();
}

bool Optimizer::has_pending_grads() const {
  return accumulated_ > 0 && has_grads();
}

std::vector<uint64_t> Optimizer::gradient_mark() const {
  std::vector<uint64_t> mark = {static_cast<uint64_t>(accumulated_), has_grads() ? 1U : 0U};
  for (const FlatGroup& group : groups_) mark.push_back(gradient(group).storage()->version());
  return mark;
}

void Optimizer::measure(const Array& inv_scale, const Array& norm_sq,
                        const Array& first_bad) const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const Array& statistics = groups_[g].measure(gradient(groups_[g]), inv_scale);
    BINADE_DISPATCH(device(), add_gradient_stats(statistics, norm_sq,
                                                 first_bad.select(0, static_cast<int64_t>(g))));
  }
}

void Optimizer::share(dist::Communicator& ranks, const Sharing& sharing) {
  check(!shared_, name(), ": ranks share the optimizer's state already");
  check(!life_->averages_in_use, name(),
        ": the model computes with its averages; end the Ema::Scope (or swap back) before ranks "
        "share its state");
  check(accumulated_ == 0, name(), ": ranks cannot share its state while a sum is under way");
  for (size_t g = 0; g < groups_.size(); ++g) {
    FlatGroup& group = groups_[g];
    if (!is_elementwise(group)) continue;
    group.share(ranks, dist::Shards(group.numel(), ranks.size(), sharing.bucket),
                sharing.gradients);
    for (Moment& moment : moments_)
      if (moment.buffers[g].defined()) moment.buffers[g] = group.own(moment.buffers[g]);
  }
  shared_ = true;
  if (sharing.late_values) late_values_ = std::make_shared<LateValues>();
  if (sharing.begin) begin();
}

void Optimizer::begin() {
  for (FlatGroup& group : groups_) group.begin();
}

void Optimizer::unshare() {
  if (late_values_ && late_values_->old) gather_values();
  late_values_.reset();
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (size_t i = 0; i < moments_.size(); ++i)
      moments_[i].buffers[g] = groups_[g].whole(moment(i, g));
    groups_[g].unshare();
  }
  shared_ = false;
  zero_grad();
}

void Optimizer::fill_missing_grads() {
  for (const FlatGroup& group : groups_) group.fill_missing_grads();
}

std::vector<bool> Optimizer::frozen() const {
  std::vector<bool> frozen;
  for (const FlatGroup& group : groups_)
    for (const FlatGroup::Member& member : group.members()) frozen.push_back(member.frozen());
  return frozen;
}

void Optimizer::check_ready() const {
  check(learning_rate_.has_value(), name(),
        ": the learning rate was never set; call set_learning_rate() before the first step");
  check(!life_->averages_in_use, name(),
        ": the model computes with its averages; end the Ema::Scope (or swap back) before a step");
  bool all_frozen = true;
  for (const FlatGroup& group : groups_)
    for (const FlatGroup::Member& member : group.members()) {
      check(member.binding->lost.empty(), name(), ": parameter ", member.parameter.name,
            " is no longer the model's (", member.binding->lost,
            "); make the optimizer anew after the model was changed");
      all_frozen = all_frozen && member.frozen();
    }
  check(!all_frozen, name(),
        ": every parameter is frozen, so a step would train nothing; make the ",
        "optimizer of what is trainable");
}

void Optimizer::update(const Array& grad_factor, const Array& found_inf) {
  check_ready();
  // At the end, and where a group's update throws behind others that were made.
  struct Note {
    ~Note() { optimizer.note_update(); }
    const Optimizer& optimizer;
  } const note{*this};
  const UpdateContext context{grad_factor, found_inf, learning_rate_scalar_, step_scalar_};
  for (size_t g = 0; g < groups_.size(); ++g) {
    const FlatGroup& group = groups_[g];
    group.take_values();
    const Array& value = group.own_value();
    std::vector<Array> written = {value, group.master()};
    for (size_t i = 0; i < moments_.size(); ++i) written.push_back(moment(i, g));
    const FrozenParts frozen(group, written);
    // Without masters the weights live in half precision and are widened for the update alone.
    const Array master =
        is_half(group.master().dtype()) ? group.master().to(DType::f32) : group.master();
    const UpdateBuffers buffers{gradient(group), master, value,
                                moments_.size() > 0 ? moment(0, g) : Array(),
                                moments_.size() > 1 ? moment(1, g) : Array()};
    update_parts(g, buffers, context, frozen);
    // Backward of a graph recorded before this update would read changed weights: let it notice.
    for (const Array& changed : written) changed.bump_version();
    // Values without masters may be written where they are used.
    if (!late_values_ || !group.has_masters()) group.put_values();
    if (!late_values_) group.gather_values();
  }
  BINADE_DISPATCH(device(), advance_step(step_scalar_, found_inf));
  step_scalar_.bump_version();
}

// An element's update depends on that element alone in a group that ranks share.
void Optimizer::update_parts(size_t g, const UpdateBuffers& buffers, const UpdateContext& context,
                             const FrozenParts& frozen) {
  std::vector<const LateValues::Early*> senders;
  if (late_values_)
    for (const LateValues::Early& early : late_values_->early)
      if (early.group == g) senders.push_back(&early);
  int64_t begin = 0;
  const auto update_to = [&](int64_t end) {
    if (end > begin) update_group(g, part_of(buffers, begin, end), context);
    begin = end;
  };
  const bool in_parts = !frozen.any();  // otherwise what is sent must be restored first
  for (const LateValues::Early* early : senders) {
    if (!in_parts) continue;
    update_to(early->owned);
    early->send();
  }
  if (begin == 0) {
    update_group(g, buffers, context);
  } else {
    update_to(groups_[g].owned());
  }
  frozen.restore();
  if (in_parts) return;
  for (const LateValues::Early* early : senders) early->send();
}

void Optimizer::note_update() const {
  if (late_values_) late_values_->old = true;
}

void Optimizer::wait_for_values() const {
  if (late_values_ && late_values_->wait) late_values_->wait();
}

void Optimizer::gather_values() const {
  wait_for_values();
  for (const FlatGroup& group : groups_) {
    if (late_values_ && late_values_->old && group.has_masters()) group.put_values();
    group.gather_values();
  }
  if (late_values_) late_values_->old = false;
}

void Optimizer::spread_masters() const {
  wait_for_values();
  for (const FlatGroup& group : groups_) {
    group.take_values();
    group.take_masters();
    group.put_values();
  }
  gather_values();
}

void Optimizer::step() {
  check_ready();
  gather_grads();
  update(Array::full({}, 1, DType::f32, device()), Array::zeros({}, DType::f32, device()));
}

int64_t Optimizer::steps_done() const {
  return step_scalar_.to_vector<int64_t>()[0];
}

std::vector<MemberState> Optimizer::moments() const {
  std::vector<MemberState> all;
  for (size_t i = 0; i < moments_.size(); ++i)
    for (size_t g = 0; g < groups_.size(); ++g)
      for (const FlatGroup::Member& member : groups_[g].members())
        all.push_back(
            {moments_[i].name + '.' + member.parameter.name, &groups_[g], &member, moment(i, g)});
  return all;
}

nn::StateDict Optimizer::state() const {
  nn::StateDict state = scalars();
  for (const MemberState& one : moments()) {
    check(!one.group->shared(), name(), ": the ranks of the run hold ", one.name,
          " in pieces; call train::DataParallel::complete() on every rank first");
    state[one.name] = one.group->part(one.buffer, *one.member);
  }
  return state;
}

void Optimizer::load_state(const nn::StateDict& saved) {
  const auto step = saved.find("step");
  if (step != saved.end() && step->second.defined() && step->second.numel() == 1) {
    const double count = step->second.item();
    check(count >= 0, name(), ": the saved state has a negative step count");
    check(count < kMostSteps, name(), ": the saved state has a step count of ", count);
  }
  // Ranks that share the state look at their own elements alone.
  const std::vector<MemberState> members = moments();
  const nn::StateDict pieces = pieces_of(name(), saved, members);
  for (const Moment& moment : moments_) {
    if (moment.kind != MomentOf::squares) continue;
    for (const auto& [key, values] : pieces)
      check(!key.starts_with(moment.name + '.') || !has_negative(values), name(), ": ", key,
            " in the saved state has a value below 0, but is a mean of squares");
  }
  nn::StateDict own = parts_of(members);
  own["step"] = step_scalar_;
  load_arrays(name(), pieces, own);
}

}  // namespace binade::optim
