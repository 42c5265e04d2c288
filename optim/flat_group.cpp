#include <binade/optim/flat_group.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/elementwise.h>

namespace binade::optim {

namespace {

// Elements; a multiple of 128 keeps every member of any dtype aligned to 128 bytes or more.
constexpr int64_t kAlignment = 128;

int64_t aligned(int64_t numel) {
  return (numel + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::vector<ParameterGroup> split_by_decay(const nn::Module& module, double weight_decay) {
  ParameterGroup decayed{{}, 1, weight_decay}, plain{{}, 1, 0};
  for (const nn::NamedParameter& named : module.named_parameters()) {
    if (!named.parameter->trainable()) continue;
    (named.parameter->shape().dims() > 1 ? decayed : plain).parameters.push_back(named);
  }
  std::vector<ParameterGroup> groups;
  for (ParameterGroup* group : {&decayed, &plain})
    if (!group->parameters.empty()) groups.push_back(std::move(*group));
  return groups;
}

FlatGroup::FlatGroup(std::vector<Member> members, double lr_factor, double weight_decay)
    : members_(std::move(members)), lr_factor_(lr_factor), weight_decay_(weight_decay) {
  check(!members_.empty(), "a parameter group is empty");
  const auto check_setting = [](const char* what, double value) {
    check(value >= 0 && std::isfinite(static_cast<float>(value)), "a parameter group's ", what,
          " is 0 or more and finite, got ", value);
  };
  check_setting("lr_factor", lr_factor);
  check_setting("weight_decay", weight_decay);
  for (Member& member : members_) {
    member.offset = numel_;
    member.numel = member.parameter.parameter->numel();
    numel_ += aligned(std::max<int64_t>(member.numel, 1));  // no group is empty
  }
  const nn::Parameter& first = *members_.front().parameter.parameter;
  const DType dtype = first.tensor().dtype();
  const Device device = first.tensor().device();
  value_ = Array::zeros({numel_}, dtype, device);
  grad_ = Array::zeros({numel_}, dtype, device);
  master_ = first.has_master() ? Array::zeros({numel_}, first.master().dtype(), device) : value_;
  for (Member& member : members_) {
    nn::Parameter& parameter = *member.parameter.parameter;
    check(parameter.tensor().dtype() == dtype && parameter.tensor().device() == device &&
              parameter.has_master() == first.has_master(),
          "parameter ", member.parameter.name, " differs from its group in dtype or device");
    member.binding =
        parameter.bind(part(value_, member), part(grad_, member),
                       first.has_master() ? part(master_, member) : Array(), member.parameter.name);
  }
}

Array FlatGroup::new_moment() const {
  const DType dtype = is_half(master_.dtype()) ? DType::f32 : master_.dtype();
  return Array::zeros({numel_}, dtype, master_.device());
}

Array FlatGroup::part(const Array& buffer, const Member& member) const {
  return buffer.slice(0, member.offset, member.offset + member.numel)
      .view(member.parameter.parameter->shape());
}

void FlatGroup::add_to_accumulated(const Array& grads, int64_t begin, bool first) {
  if (!accumulated_.defined()) accumulated_ = new_moment();
  if (grads.numel() == 0) return;  // a rank's share of few elements
  const Array sums = accumulated_.slice(0, begin, begin + grads.numel());
  if (first) {
    BINADE_DISPATCH(device(), copy(grads, sums));
  } else {
    BINADE_DISPATCH(device(), axpy(1, grads, sums));
  }
  accumulated_.bump_version();
}

void FlatGroup::zero_grad() const {
  for (const Member& member : members_) member.parameter.parameter->tensor().zero_grad();
}

bool FlatGroup::has_grads() const {
  return std::any_of(members_.begin(), members_.end(), [](const Member& member) {
    return member.parameter.parameter->tensor().grad().defined();
  });
}

void FlatGroup::fill_missing_grads() const {
  for (const Member& member : members_)
    if (member.frozen() || !member.parameter.parameter->tensor().grad().defined()) {
      member.parameter.parameter->tensor().clear_grad_buffer();
      part(grad_, member).zero();
    }
}

void FlatGroup::zero_frozen_sums() const {
  for (const Member& member : members_)
    if (member.frozen()) part(accumulated_, member).zero();
}

}  // namespace binade::optim
