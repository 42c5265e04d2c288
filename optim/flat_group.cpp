#include <binade/optim/flat_group.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/core/update.h>

namespace binade::optim {

namespace {

// Elements; a multiple of 128 keeps every member of any dtype aligned to 128 bytes or more.
constexpr int64_t kAlignment = 128;

int64_t aligned(int64_t numel) {
  return (numel + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::vector<ParameterGroup> one_group(const nn::Module& module, double weight_decay) {
  ParameterGroup group{{}, 1, weight_decay};
  for (const nn::NamedParameter& named : module.named_parameters())
    if (named.parameter->trainable()) group.parameters.push_back(named);
  if (group.parameters.empty()) return {};
  return {std::move(group)};
}

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
  own_ = {0, numel_};
  const nn::Parameter& first = *members_.front().parameter.parameter;
  const DType dtype = first.tensor().dtype();
  const Device device = first.tensor().device();
  value_ = Array::zeros({numel_}, dtype, device);
  grad_ = Array::zeros({numel_}, dtype, device);
  statistics_ = Array::zeros({kernels::gradient_chunks(numel_), 2}, DType::f64, device);
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
  return Array::zeros({own_.end - own_.begin}, dtype, device());
}

Array FlatGroup::part(const Array& buffer, const Member& member) const {
  check(buffer.numel() == numel_, "the ranks of the run hold what belongs to parameter ",
        member.parameter.name, " in pieces; call train::DataParallel::complete() on every rank");
  return buffer.slice(0, member.offset, member.offset + member.numel)
      .view(member.parameter.parameter->shape());
}

dist::Slice FlatGroup::within(dist::Slice slice, const Member& member) {
  const int64_t begin = std::clamp(member.offset, slice.begin, slice.end);
  const int64_t end = std::clamp(member.offset + member.numel, slice.begin, slice.end);
  return {begin - slice.begin, end - slice.begin};
}

Array FlatGroup::own_part(const Array& buffer, const Member& member) const {
  const dist::Slice place = within(own_, member);
  return buffer.slice(0, place.begin, place.end);
}

void FlatGroup::add_to_accumulated(const Array& grads, int64_t begin, bool first) {
  check(own_.begin <= begin && begin + grads.numel() <= own_.end,
        "gradients of other ranks' elements were added to a shared group: the ranks of a run "
        "exchange them first (train::DataParallel)");
  if (!accumulated_.defined()) accumulated_ = new_moment();
  if (grads.numel() == 0) return;  // a rank's share of few elements
  const Array sums = accumulated_.slice(0, begin - own_.begin, begin - own_.begin + grads.numel());
  if (first) {
    BINADE_DISPATCH(device(), copy(grads, sums));
  } else {
    BINADE_DISPATCH(device(), axpy(1, grads, sums));
  }
  accumulated_.bump_version();
}

void FlatGroup::share(dist::Communicator& ranks) {
  check(!shared(), "a parameter group is shared already");
  ranks_ = &ranks;
  own_ = dist::slices(numel_, ranks.size())[static_cast<size_t>(ranks.rank())];
  accumulated_ = {};
  const bool has_masters = !master_.shares_storage(value_);
  master_ = has_masters ? own(master_).clone() : own(value_);
  if (!has_masters) return;
  for (const Member& member : members_) member.parameter.parameter->move_master({});
}

void FlatGroup::unshare() {
  if (!shared()) return;
  const bool has_masters = !master_.shares_storage(value_);
  master_ = has_masters ? whole(master_) : value_;
  ranks_ = nullptr;
  own_ = {0, numel_};
  accumulated_ = {};
  if (!has_masters) return;
  for (const Member& member : members_)
    member.parameter.parameter->move_master(part(master_, member));
}

void FlatGroup::gather(const Array& rows, int64_t elements) const {
  if (!shared()) return;
  const int64_t bytes = rows.bytes() / rows.size(0);
  std::vector<dist::Communicator::Block> blocks;
  for (const dist::Slice& slice : dist::slices(numel_, ranks_->size())) {
    const int64_t begin = (slice.begin + elements - 1) / elements;
    const int64_t end = (slice.end + elements - 1) / elements;
    blocks.push_back({static_cast<std::byte*>(rows.data()) + begin * bytes, (end - begin) * bytes});
  }
  ranks_->all_gather(blocks);
  rows.bump_version();
}

void FlatGroup::gather_values() const {
  gather(value_, 1);
}

Array FlatGroup::whole(const Array& buffer) const {
  if (!shared()) return buffer;
  const Array all = Array::empty({numel_}, buffer.dtype(), buffer.device());
  own(all).copy_from(buffer);
  gather(all, 1);
  return all;
}

Array FlatGroup::whole_part(const Array& buffer, const Member& member) const {
  if (!shared()) return part(buffer, member);
  const Array piece = own_part(buffer, member);
  const auto ranks = static_cast<size_t>(ranks_->size());
  std::vector<dist::Communicator::Block> send(ranks), receive(ranks);
  send[0] = {piece.data(), piece.bytes()};
  Array all;
  if (ranks_->rank() == 0) {
    all = Array::empty({member.numel}, buffer.dtype(), buffer.device());
    int64_t place = 0;
    for (size_t rank = 0; rank < ranks; ++rank) {
      const dist::Slice share = within(dist::slices(numel_, ranks_->size())[rank], member);
      const Array theirs = all.slice(0, place, place + share.end - share.begin);
      receive[rank] = {theirs.data(), theirs.bytes()};
      place += share.end - share.begin;
    }
  }
  ranks_->all_to_all(send, receive);
  return all.defined() ? all.view(member.parameter.parameter->shape()) : all;
}

const Array& FlatGroup::measure(const Array& gradients, const Array& inv_scale) const {
  const int64_t begin = kernels::gradient_chunks(own_.begin);
  BINADE_DISPATCH(device(),
                  gradient_stats(gradients, inv_scale,
                                 statistics_.slice(0, begin, kernels::gradient_chunks(own_.end))));
  gather(statistics_, kGradientChunk);
  return statistics_;
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
    if (member.frozen()) own_part(accumulated_, member).zero();
}

}  // namespace binade::optim
