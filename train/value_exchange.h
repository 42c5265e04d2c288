// INTERNAL. How values that ranks have updated reach the other ranks, under the next forward pass.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <binade/core/side_queue.h>
#include <binade/dist/communicator.h>
#include <binade/optim/optimizer.h>
#include <binade/train/exposed_time.h>

namespace binade::train {

// Of one optimizer, which ranks share with late values: behind its update a rank has new values of
// its own elements alone. They go to all others when the next pass begins, bucket by bucket
// (dist/shards.h) and beside what the device does. Whoever uses a parameter then
// (autograd/value_guard.h) waits for the buckets that have some of it, and for no others. Between
// update and pass a use is an Error, unless Optimizer::gather_values() came before it.
//
// Buckets travel in the order of their places in the groups, which is about that in which a model
// defines and uses its parameters. Those at the beginning, which a pass would wait for, go earlier
// where ranks are near each other (Window::is_near()): beside the update of the others. All of it
// is part of a captured step.
class ValueExchange {
 public:
  // `ranks`: of the optimizer's device. `early` as DataParallelOptions::early_values. All but the
  // optimizer must outlive it.
  ValueExchange(dist::Communicator& ranks, SideQueue& queue, const ExposedTime& time,
                const optim::Optimizer& optimizer, int64_t bucket, std::optional<bool> early = {});
  ~ValueExchange();

  // For all ranks, before a forward pass: the values go on their way that have not gone with the
  // update.
  void send();
  // Waits for what has not come yet; to be called before a capture ends.
  void wait();
  // For all ranks, between steps: every rank has all values.
  void complete();

  // Around a capture that may fail: what it has queued never runs.
  bool is_old() const { return values_->old; }
  void forget(bool was_old);

  bool is_of(const optim::Optimizer& optimizer) const { return life_.lock() == optimizer.life(); }
  bool is_gone() const { return life_.expired(); }  // the optimizer

 private:
  struct Bucket {
    const optim::FlatGroup* group;
    dist::Slice elements;
    std::shared_ptr<const dist::Communicator::Window> window;  // of the group's values
    Array own;                                       // what this rank has of them, as updated
    std::vector<dist::Communicator::Block> receive;  // of the ranks
    bool early = false;                              // goes with the update
    SideQueue::Ticket on_its_way = 0;                // 0: not
  };
  // What guards of leaves know, while there is one.
  struct Link {
    ValueExchange& exchange;
  };

  void add_buckets(const optim::FlatGroup& group, int64_t bucket);
  void choose_early(std::optional<bool> wanted);
  void guard_leaves();
  void send(Bucket& bucket);
  void before_use(const std::vector<size_t>& buckets);
  void wait(Bucket& bucket);

  dist::Communicator& ranks_;
  SideQueue& queue_;
  const ExposedTime& time_;
  const optim::Optimizer& optimizer_;
  std::weak_ptr<optim::Optimizer::Life> life_;
  std::shared_ptr<optim::Optimizer::LateValues> values_;
  std::vector<Bucket> buckets_;
  std::shared_ptr<Link> link_;
};

}  // namespace binade::train
