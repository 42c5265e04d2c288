#include <binade/optim/flat_group.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/gradient_watch.h>
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

FlatGroup::FlatGroup(std::vector<Member> members, double lr_factor, double weight_decay,
                     std::optional<Device> where)
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
  const Device from = first.tensor().device(), device = where.value_or(from);
  has_masters_ = first.has_master();
  if (where) home_ = from;
  value_ = Array::zeros({numel_}, dtype, device);
  grad_ = Array::zeros({numel_}, dtype, device);
  statistics_ = Array::zeros({kernels::gradient_chunks(numel_), 2}, DType::f64, device);
  own_value_ = value_;
  if (!has_masters_) {
    master_ = value_;
  } else if (!where) {
    master_ = Array::zeros({numel_}, DType::f32, device);
  }
  for (Member& member : members_) {
    nn::Parameter& parameter = *member.parameter.parameter;
    // The first of them is there already.
    check(parameter.tensor().dtype() == dtype &&
              (&parameter == &first || parameter.tensor().device() == from) &&
              parameter.has_master() == has_masters_,
          "parameter ", member.parameter.name, " differs from its group in dtype or device");
    member.binding = parameter.bind(
        part(value_, member), part(grad_, member),
        has_masters_ && master_.defined() ? part(master_, member) : Array(), member.parameter.name);
    deferred_ = deferred_ || parameter.deferred();
  }
  if (!where) make_values();
}

// In their places in the buffer. Those of parameters that somebody has read are there.
void FlatGroup::make_values() const {
  if (!deferred_) return;
  for (const Member& member : members_) member.parameter.parameter->tensor().array();
  deferred_ = !master_.defined();
}

const Array& FlatGroup::value() const {
  make_values();
  return value_;
}

const Array& FlatGroup::own_value() const {
  if (!shared()) make_values();
  return own_value_;
}

void FlatGroup::make_masters() const {
  master_ = Array::zeros({numel_}, DType::f32, device());
  for (const Member& member : members_) {
    nn::Parameter& parameter = *member.parameter.parameter;
    const Array here = part(master_, member);
    if (const auto source = parameter.take_source()) {
      source->write(0, here.view({member.numel}));
      part(value_, member).copy_from(here);
    } else {
      here.copy_from(parameter.master());
    }
    parameter.move_master(here);
  }
  deferred_ = false;
}

const Array& FlatGroup::master() const {
  if (!master_.defined()) make_masters();
  if (!shared()) make_values();
  return master_;
}

std::vector<nn::ValueSource> FlatGroup::sources() const {
  std::vector<nn::ValueSource> all;
  for (const Member& member : members_) all.push_back(member.parameter.parameter->source());
  return all;
}

Array FlatGroup::copy_of_masters() const {
  if (master_.defined()) {
    const Array copy = new_moment();
    copy.copy_from(master_);
    return copy;
  }
  const Device where = members_.front().parameter.parameter->master().device();
  const Array copy = Array::zeros({numel_}, DType::f32, where);
  for (const Member& member : members_)
    part(copy, member).copy_from(member.parameter.parameter->master());
  return copy;
}

Array FlatGroup::new_moment() const {
  return Array::zeros({owned()}, value_.dtype() == DType::f64 ? DType::f64 : DType::f32, device());
}

Array FlatGroup::part(const Array& buffer, const Member& member) const {
  check(buffer.numel() == numel_, "the ranks of the run hold what belongs to parameter ",
        member.parameter.name, " in pieces; call train::DataParallel::complete() on every rank");
  return buffer.slice(0, member.offset, member.offset + member.numel)
      .view(member.parameter.parameter->shape());
}

int64_t FlatGroup::owned_before(int64_t element) const {
  return shared() ? shards_->owned_before(ranks_->rank(), element) : element;
}

Array FlatGroup::own(const Array& buffer) const {
  if (!shared()) return buffer.to(device());
  const Array shard = Array::empty({owned()}, buffer.dtype(), buffer.device());
  shards_->take(buffer, ranks_->rank(), shard);
  return shard.to(device());
}

Array FlatGroup::own_part(const Array& buffer, const Member& member) const {
  return buffer.slice(0, owned_before(member.offset), owned_before(member.offset + member.numel));
}

std::vector<dist::Slice> FlatGroup::places(const Member& member, int rank) const {
  if (!shared()) return {{0, member.numel}};
  std::vector<dist::Slice> all;
  const int64_t end = member.offset + member.numel;
  for (int64_t bucket = 0; bucket < shards_->buckets(); ++bucket) {
    const dist::Slice bounds = shards_->bucket(bucket), slice = shards_->slice(bucket, rank);
    if (bounds.end <= member.offset || bounds.begin >= end) continue;
    const int64_t first = std::clamp(slice.begin, member.offset, end);
    all.push_back({first - member.offset, std::clamp(slice.end, first, end) - member.offset});
  }
  return all;
}

Array FlatGroup::own_piece(const Array& values, const Member& member) const {
  const Array flat = values.contiguous().view({member.numel});
  if (!shared()) return flat;
  const int64_t count = owned_before(member.offset + member.numel) - owned_before(member.offset);
  const Array piece = Array::empty({count}, flat.dtype(), flat.device());
  int64_t filled = 0;
  for (const auto& [begin, end] : places(member, ranks_->rank())) {
    piece.slice(0, filled, filled + end - begin).copy_from(flat.slice(0, begin, end));
    filled += end - begin;
  }
  return piece;
}

void FlatGroup::make_own(const Array& buffer, const Member& member,
                         const nn::ValueSource& values) const {
  const Array own = own_part(buffer, member);
  int64_t filled = 0;
  for (const auto& [begin, end] : places(member, shared() ? ranks_->rank() : 0)) {
    values.write(begin, own.slice(0, filled, filled + end - begin));
    filled += end - begin;
  }
}

void FlatGroup::make_sums() {
  if (!accumulated_.defined()) accumulated_ = new_moment();
}

void FlatGroup::add_to_accumulated(bool first) {
  check(!shared(),
        "gradients of other ranks' elements were added to a shared group: the ranks of a run "
        "exchange them first (train::DataParallel)");
  make_sums();
  if (first) {
    BINADE_DISPATCH(device(), copy(grad_, accumulated_));
  } else {
    BINADE_DISPATCH(device(), axpy(1, grad_, accumulated_));
  }
  accumulated_.bump_version();
}

Array FlatGroup::sums(dist::Slice elements) const {
  const int64_t begin = owned_before(elements.begin), end = owned_before(elements.end);
  check(end - begin == elements.end - elements.begin,
        "sums were asked for that belong to other ranks");
  return accumulated_.slice(0, begin, end);
}

void FlatGroup::make_grad_buffer() {
  grad_ = Array::zeros({numel_}, value_.dtype(), device());
  for (const Member& member : members_)
    member.parameter.parameter->tensor().bind_grad(part(grad_, member));
}

void FlatGroup::share(dist::Communicator& ranks, const dist::Shards& shards, bool gradients) {
  check(!shared(), "a parameter group is shared already");
  ranks_ = &ranks;
  shards_ = shards;
  accumulated_ = {};
  own_value_ = own(value_);
  const bool masters_were_elsewhere = !master_.defined();
  if (!has_masters_) {
    master_ = own_value_;
  } else if (masters_were_elsewhere) {
    master_ = new_moment();
  } else {
    master_ = own(master_);
  }
  for (const Member& member : members_) {
    nn::Parameter& parameter = *member.parameter.parameter;
    to_begin_.push_back(parameter.take_source());
    if (masters_were_elsewhere && !to_begin_.back())
      own_part(master_, member).copy_from(own_piece(parameter.master(), member));
  }
  deferred_ = false;
  if (gradients) {
    for (const Member& member : members_) release_grad_buffer(member.parameter.parameter->tensor());
    grad_ = {};
  }
  int64_t most = 0;
  for (int rank = 0; rank < ranks.size(); ++rank)
    most = std::max(most, shards.of_chunks().owned(rank));
  statistics_of_ranks_ = Array::zeros({ranks.size(), most, 2}, DType::f64, device());
  if (!has_masters_) return;
  for (const Member& member : members_) member.parameter.parameter->move_master({});
}

void FlatGroup::begin() {
  if (!shared()) return;
  bool made = false;
  for (size_t m = 0; m < to_begin_.size(); ++m) {
    if (!to_begin_[m]) continue;
    make_own(master_, members_[m], *to_begin_[m]);
    made = true;
  }
  to_begin_.clear();
  if (made) take_masters();
  if (!home_) return;
  // What one rank has made, or has not, need not be what others have.
  put_values();
  gather_values();
}

void FlatGroup::unshare() {
  if (!shared()) return;
  to_begin_.clear();
  const Array whole_master = has_masters_ ? whole(master_) : value_;
  ranks_ = nullptr;
  shards_.reset();
  accumulated_ = statistics_of_ranks_ = {};
  measured_ = {};
  own_value_ = value_;
  master_ = has_masters_ && home_ ? Array() : whole_master;
  if (!has_grad_buffer()) make_grad_buffer();
  if (!has_masters_) return;
  for (const Member& member : members_)
    member.parameter.parameter->move_master(part(whole_master, member));
}

void FlatGroup::take_values() const {
  if (shared() && !has_masters_) shards_->take(value_, ranks_->rank(), own_value_);
}

void FlatGroup::put_values() const {
  if (!shared()) return;
  to_begin_.clear();  // whatever they are, they have begun
  shards_->put(own_value_, ranks_->rank(), value_);
}

void FlatGroup::gather_values() const {
  if (shared()) shards_->all_gather(*ranks_, value_);
}

void FlatGroup::take_masters() const {
  if (shared() && has_masters_) own_value_.copy_from(master_);
}

Array FlatGroup::whole(const Array& buffer) const {
  if (!shared()) return buffer;
  const Array all = Array::empty({numel_}, buffer.dtype(), home_.value_or(device()));
  if (!home_) {
    shards_->put(buffer, ranks_->rank(), all);
    shards_->all_gather(*ranks_, all);
    return all;
  }
  for (int64_t index = 0; index < shards_->buckets(); ++index) {
    const dist::Slice bucket = shards_->bucket(index);
    const Array staged = Array::empty({bucket.end - bucket.begin}, buffer.dtype(), device());
    std::vector<dist::Communicator::Block> blocks;
    for (int rank = 0; rank < ranks_->size(); ++rank) {
      const auto [begin, end] = shards_->slice(index, rank);
      const Array theirs = staged.slice(0, begin - bucket.begin, end - bucket.begin);
      if (rank == ranks_->rank())
        theirs.copy_from(buffer.slice(0, owned_before(begin), owned_before(end)));
      blocks.push_back({theirs.data(), theirs.bytes()});
    }
    ranks_->all_gather(blocks);
    all.slice(0, bucket.begin, bucket.end).copy_from(staged);
  }
  return all;
}

Array FlatGroup::whole_part(const Array& buffer, const Member& member) const {
  if (!shared()) return part(buffer, member);
  const Array piece = own_part(buffer, member);
  const auto ranks = static_cast<size_t>(ranks_->size());
  std::vector<dist::Communicator::Block> send(ranks), receive(ranks);
  send[0] = {piece.data(), piece.bytes()};
  const bool first = ranks_->rank() == 0;
  const int64_t end = member.offset + member.numel;
  std::vector<Array> pieces;
  for (int rank = 0; first && rank < ranks_->size(); ++rank) {
    const int64_t count =
        shards_->owned_before(rank, end) - shards_->owned_before(rank, member.offset);
    pieces.push_back(Array::empty({count}, buffer.dtype(), buffer.device()));
    receive[static_cast<size_t>(rank)] = {pieces.back().data(), pieces.back().bytes()};
  }
  ranks_->all_to_all(send, receive);
  if (!first) return {};
  const Array all = Array::empty({member.numel}, buffer.dtype(), buffer.device());
  std::vector<int64_t> taken(ranks, 0);
  for (int64_t bucket = 0; bucket < shards_->buckets(); ++bucket)
    for (int rank = 0; rank < ranks_->size(); ++rank) {
      const dist::Slice slice = shards_->slice(bucket, rank);
      const int64_t from = std::max(slice.begin, member.offset), to = std::min(slice.end, end);
      if (from >= to) continue;
      int64_t& place = taken[static_cast<size_t>(rank)];
      all.slice(0, from - member.offset, to - member.offset)
          .copy_from(pieces[static_cast<size_t>(rank)].slice(0, place, place + to - from));
      place += to - from;
    }
  return all.view(member.parameter.parameter->shape());
}

const Array& FlatGroup::measure(const Array& gradients, const Array& inv_scale) const {
  if (!shared()) {
    BINADE_DISPATCH(device(), gradient_stats(gradients, inv_scale, statistics_));
    return statistics_;
  }
  const dist::Shards chunks = shards_->of_chunks();
  const auto rows_of = [&](int rank) {
    return statistics_of_ranks_.select(0, rank).slice(0, 0, chunks.owned(rank));
  };
  const bool measured =
      measured_.inv_scale.defined() && measured_.inv_scale.shares_storage(inv_scale) &&
      gradients.shares_storage(accumulated_) && measured_.versions == versions_with(inv_scale);
  measured_ = {};
  if (!measured)
    BINADE_DISPATCH(device(), gradient_stats(gradients, inv_scale, rows_of(ranks_->rank())));
  ranks_->all_gather(statistics_of_ranks_);
  for (int rank = 0; rank < ranks_->size(); ++rank) chunks.put(rows_of(rank), rank, statistics_);
  return statistics_;
}

Array FlatGroup::statistics(dist::Slice elements) const {
  const int64_t begin = owned_before(elements.begin) / kGradientChunk;
  const int64_t rows = (elements.end - elements.begin + kGradientChunk - 1) / kGradientChunk;
  return statistics_of_ranks_.select(0, ranks_->rank()).slice(0, begin, begin + rows);
}

uint64_t FlatGroup::versions_with(const Array& inv_scale) const {
  return inv_scale.storage()->version() + accumulated_.storage()->version();
}

void FlatGroup::note_measured(const Array& inv_scale) const {
  measured_ = {inv_scale, versions_with(inv_scale)};
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
