#include <binade/train/value_exchange.h>

#include <algorithm>
#include <utility>

#include <binade/autograd/value_guard.h>

namespace binade::train {

ValueExchange::ValueExchange(dist::Communicator& ranks, SideQueue& queue, const ExposedTime& time,
                             const optim::Optimizer& optimizer, int64_t bucket)
    : ranks_(ranks),
      queue_(queue),
      time_(time),
      optimizer_(optimizer),
      life_(optimizer.life()),
      values_(optimizer.late_values()),
      link_(std::make_shared<Link>(Link{*this})) {
  check(values_ != nullptr, "the ranks do not share the optimizer's state with late values");
  for (const optim::FlatGroup& group : optimizer.groups()) {
    if (!group.shared()) continue;
    const dist::Shards shards(group.numel(), ranks.size(), bucket);
    const auto window = ranks.open_window(group.value());
    for (int64_t index = 0; index < shards.buckets(); ++index)
      buckets_.push_back({&group, window, shards.bucket(index), shards.blocks(group.value(), index),
                          /*on_its_way=*/0});
  }
  std::stable_sort(buckets_.begin(), buckets_.end(), [](const Bucket& a, const Bucket& b) {
    const auto depth = [](const Bucket& bucket) {
      return static_cast<double>(bucket.elements.begin) /
             static_cast<double>(bucket.group->numel());
    };
    return depth(a) < depth(b);
  });
  guard_leaves();
}

// Values that are on their way may not come any more.
ValueExchange::~ValueExchange() {
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

void ValueExchange::send() {
  for (Bucket& bucket : buckets_) {
    bucket.group->value().bump_version();
    // Perhaps when this and the optimizer are gone: it holds the memory.
    const auto work = [&ranks = ranks_, window = bucket.values, blocks = bucket.blocks] {
      ranks.all_gather(blocks, *window);
    };
    if (queue_.is_beside()) {
      bucket.on_its_way = queue_.run(work);
    } else {
      time_.measure([&] { queue_.run(work); });
    }
  }
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
