#include <binade/train/value_exchange.h>

#include <algorithm>
#include <utility>

#include <binade/autograd/value_guard.h>

namespace binade::train {

using Block = dist::Communicator::Block;

ValueExchange::ValueExchange(dist::Communicator& ranks, SideQueue& queue, const ExposedTime& time,
                             const optim::Optimizer& optimizer, int64_t bucket,
                             std::optional<bool> early)
    : ranks_(ranks),
      queue_(queue),
      time_(time),
      optimizer_(optimizer),
      life_(optimizer.life()),
      values_(optimizer.late_values()),
      link_(std::make_shared<Link>(Link{*this})) {
  check(values_ != nullptr, "the ranks do not share the optimizer's state with late values");
  for (const optim::FlatGroup& group : optimizer.groups())
    if (group.shared()) add_buckets(group, bucket);
  std::stable_sort(buckets_.begin(), buckets_.end(), [](const Bucket& a, const Bucket& b) {
    const auto depth = [](const Bucket& bucket) {
      return static_cast<double>(bucket.elements.begin) /
             static_cast<double>(bucket.group->numel());
    };
    return depth(a) < depth(b);
  });
  choose_early(early);
  guard_leaves();
  values_->wait = [link = std::weak_ptr(link_)] {
    if (const auto there = link.lock()) there->exchange.wait();
  };
}

void ValueExchange::add_buckets(const optim::FlatGroup& group, int64_t bucket) {
  const dist::Shards shards(group.numel(), ranks_.size(), bucket);
  const auto window = ranks_.open_window(group.value());
  for (int64_t index = 0; index < shards.buckets(); ++index) {
    const auto [begin, end] = shards.slice(index, ranks_.rank());
    buckets_.push_back(
        {&group, shards.bucket(index), window,
         group.own_value().slice(0, group.owned_before(begin), group.owned_before(end)),
         shards.blocks(group.value(), index)});
  }
}

// Those of the parameter that a pass begins with, as far as they travel while the others are
// updated: the wire takes as long for an element and another rank as AdamW does for it (H200,
// FP16).
void ValueExchange::choose_early(std::optional<bool> wanted) {
  constexpr double kWirePerUpdate = 1;
  if (buckets_.empty()) return;
  const optim::FlatGroup* first = buckets_.front().group;
  const int64_t first_parameter = first->members().front().numel;
  int64_t all = 0, early = 0;
  for (const Bucket& bucket : buckets_) all += bucket.elements.end - bucket.elements.begin;
  const double most = static_cast<double>(all) / (1 + kWirePerUpdate * (ranks_.size() - 1));
  for (Bucket& bucket : buckets_) {
    early += bucket.elements.end - bucket.elements.begin;
    const bool is_behind = bucket.group == first && bucket.elements.begin >= first_parameter;
    if (is_behind || static_cast<double>(early) > most) return;
    if (!wanted.value_or(bucket.window->is_near())) continue;
    bucket.early = true;
    const auto group = static_cast<size_t>(bucket.group - optimizer_.groups().data());
    values_->early.push_back({group, bucket.group->owned_before(bucket.elements.end),
                              [link = std::weak_ptr(link_), index = &bucket - buckets_.data()] {
                                if (const auto there = link.lock())
                                  there->exchange.send(there->exchange.buckets_[index]);
                              }});
  }
}

// Values that are on their way may not come any more.
ValueExchange::~ValueExchange() {
  values_->early.clear();
  values_->wait = {};
  for (const Bucket& bucket : buckets_)
    if (bucket.on_its_way != 0) values_->old = true;
}

void ValueExchange::guard_leaves() {
  for (const optim::FlatGroup& group : optimizer_.groups()) {
    if (!group.shared()) continue;
    for (const optim::FlatGroup::Member& member : group.members()) {
      std::vector<size_t> needed;
      for (size_t i = 0; i < buckets_.size(); ++i)
        if (buckets_[i].group == &group &&
            buckets_[i].elements.begin < member.offset + member.numel &&
            member.offset < buckets_[i].elements.end)
          needed.push_back(i);
      // The guard may be called when this is gone.
      set_value_guard(
          member.parameter.parameter->tensor(),
          [link = std::weak_ptr(link_), values = values_, name = member.parameter.name, needed] {
            check(!values->old, "the values of parameter ", name, " are older than the last ",
                  "update, as the other ranks send theirs with the next step; call ",
                  "train::TrainStep::complete_values() on every rank before they are used");
            if (const auto there = link.lock()) there->exchange.before_use(needed);
          });
    }
  }
}

void ValueExchange::before_use(const std::vector<size_t>& buckets) {
  for (const size_t index : buckets) wait(buckets_[index]);
}

void ValueExchange::send(Bucket& bucket) {
  wait(bucket);  // of the update before, whose values nobody has used
  bucket.group->value().bump_version();
  // Without masters an update puts the values in their place itself, and others may write them
  // there until they are sent.
  const bool in_place = !bucket.group->has_masters();
  std::vector<Block> receive = bucket.receive;
  Block& place = receive[static_cast<size_t>(ranks_.rank())];
  const int64_t offset = place.bytes > 0 ? bucket.window->offset_of(place) : 0;
  const Block own =
      in_place && !bucket.early ? place : Block{bucket.own.data(), bucket.own.bytes()};
  if (in_place) place = own;  // nothing to copy
  // Perhaps when this and the optimizer are gone: it holds the memory.
  const auto work = [&ranks = ranks_, window = bucket.window, values = bucket.own, own, receive,
                     offset] {
    ranks.all_to_all(std::vector<Block>(receive.size(), own), receive, *window, offset);
  };
  if (queue_.is_beside()) {
    bucket.on_its_way = queue_.run(work);
  } else {
    time_.measure([&] { queue_.run(work); });
  }
}

void ValueExchange::send() {
  for (Bucket& bucket : buckets_)
    if (!bucket.early) send(bucket);
  values_->old = false;
}

void ValueExchange::wait(Bucket& bucket) {
  const SideQueue::Ticket ticket = std::exchange(bucket.on_its_way, 0);
  if (ticket == 0) return;
  try {
    time_.measure([&] { queue_.wait(ticket); });
  } catch (...) {
    values_->old = true;  // what did not come never will
    throw;
  }
}

void ValueExchange::wait() {
  for (Bucket& bucket : buckets_) wait(bucket);
}

void ValueExchange::complete() {
  wait();
  if (!life_.expired() && values_->old) optimizer_.gather_values();
}

void ValueExchange::forget(bool was_old) {
  for (Bucket& bucket : buckets_) bucket.on_its_way = 0;
  values_->old = was_old;
}

}  // namespace binade::train
