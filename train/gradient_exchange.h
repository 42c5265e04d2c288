// INTERNAL. How the gradients of one optimizer reach the ranks that own them, while backward still
// makes others.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <binade/autograd/gradient_watch.h>
#include <binade/core/side_queue.h>
#include <binade/dist/world.h>
#include <binade/optim/optimizer.h>
#include <binade/train/exposed_time.h>

namespace binade::train {

// In a round every rank runs one backward pass, which this watches. A parcel, some contiguous
// elements of a flat group, goes on its way beside the pass as soon as its gradients are complete:
// every rank sends each owner (dist/shards.h) what it owns of it, and the owner adds that up in
// f32, in the order of the ranks. A parcel is a bucket; where gradients are whole on no rank
// (FlatGroup::has_grad_buffer) it is some parameters, which have memory while they are written and
// sent.
//
// All ranks send their parcels in one order, whatever their passes do: from the second step on that
// in which they were complete in rank 0's first round. A parcel whose turn it is and that is not
// complete, in a pass that goes another way, holds up those behind it until it is, at the latest
// until the end of the pass; so the order is a matter of speed alone. What a pass does not reach
// counts as zero.
class GradientExchange : public GradientWatch {
 public:
  // `ranks`: of the optimizer's device. Ranks make it in one order, about equal optimizers, which
  // are shared already if they are to be. All but the optimizer must outlive it.
  // Verbs are queued on `queue`, sums on `sums`, beside them on a GPU; on the CPU both are the
  // same.
  GradientExchange(dist::World& world, dist::Communicator& ranks, SideQueue& queue, SideQueue& sums,
                   const ExposedTime& time, optim::Optimizer& optimizer, int64_t bucket);
  ~GradientExchange() override;

  // Before a backward pass that watches this. In the `last` round of a step the sums of groups that
  // the ranks do not share become whole, and others are measured with `inv_scale` (f32 scalar;
  // undefined: they are not) as optim::FlatGroup::measure() does.
  void begin_round(bool last, const Array& inv_scale);
  // Behind the pass: what is left goes on its way, too. Forgets the gradients.
  void end_round();
  // Behind all rounds of a step, which all ranks end: the sums are complete.
  void finish();
  // Between steps: gradients have no memory of this any more.
  void free_memory();

  void begin(const TensorList& leaves) override;
  void complete(const Tensor& leaf) override;

  // Parcels that were sent, and those of them that went while other leaves were to come.
  struct Counts {
    int64_t sent = 0, early = 0;
  };
  const Counts& counts() const { return counts_; }

  bool is_of(const optim::Optimizer& optimizer) const { return life_.lock() == optimizer.life(); }
  bool is_gone() const { return life_.expired(); }  // the optimizer

 private:
  // What is to be waited for, if anything.
  struct Way {
    SideQueue* queue = nullptr;
    SideQueue::Ticket ticket = 0;
  };
  struct Parcel {
    size_t group;
    dist::Slice elements;
    std::vector<size_t> members;  // of the group, with elements here
    Array memory;                 // of gradients that are whole nowhere, while they have any
    int64_t open = 0;             // leaves that the pass may still bring something
    bool sent = false;            // in this round
    Way way;
  };
  // Memory that parcels have had.
  struct Slab {
    Array memory;
    Way way;  // of what reads it
  };
  // Part of a parcel that lies in one bucket.
  struct Piece {
    std::vector<dist::Communicator::Block> to, from;
    std::vector<Array> lanes;     // of the ranks, in their order
    Array sums;                   // what they are added to
    Array inv_scale, statistics;  // of the sums, if they are measured
    Array whole;                  // the bucket's sums, if all ranks are to have them
    std::vector<dist::Communicator::Block> shares;  // of the ranks in it
    std::shared_ptr<const dist::Communicator::Window> received;
    int64_t place;  // in it, of what this rank sends
    bool first;     // begins the sums
  };
  // What guards of leaves know, while there is one.
  struct Link {
    GradientExchange& exchange;
  };

  // Slices of buckets are whole chunks; parcels of gradients that are whole nowhere are not.
  bool is_measured(const optim::FlatGroup& group) const {
    return last_ && inv_scale_.defined() && group.shared() && group.has_grad_buffer();
  }
  void add_parcel(size_t group, dist::Slice elements);
  void guard_leaves();
  // A parameter with elements in these parcels gets a gradient.
  void before_write(const std::vector<size_t>& parcels, const std::string& parameter);
  void wait(Way& way);
  void give_memory(Parcel& parcel);
  Array gradients(const Parcel& parcel) const;
  void zero_missing(Parcel& parcel);
  Piece piece_of(const Parcel& parcel, int64_t bucket) const;
  Way queue_piece(Piece piece);
  void send_complete();
  void send(Parcel& parcel);
  void learn_order();
  optim::FlatGroup& group_of(const Parcel& parcel) { return optimizer_.groups()[parcel.group]; }

  dist::World& world_;
  dist::Communicator& ranks_;
  SideQueue &queue_, &sums_;
  const ExposedTime& time_;
  optim::Optimizer& optimizer_;
  std::weak_ptr<optim::Optimizer::Life> life_;
  std::vector<dist::Shards> shards_;  // of the groups
  std::vector<Parcel> parcels_;
  std::unordered_map<const TensorState*, std::vector<size_t>> parcels_of_;
  std::deque<Slab> slabs_;  // free ones, in the order in which they became so
  std::shared_ptr<Link> link_;
  // What came of other ranks: a place for each, twice, so that a piece may come while the one
  // before it is added up.
  std::shared_ptr<const dist::Communicator::Window> received_;
  int64_t place_ = 0;                        // bytes, of the largest piece
  std::array<SideQueue::Ticket, 2> read_{};  // on sums_, by the pieces that came last; 0: nobody
  size_t turn_ = 0;                          // which of both the next piece has

  std::vector<size_t> order_;     // in which parcels are sent
  bool learned_ = false;          // that order
  std::vector<size_t> complete_;  // of the first round, until it is learned
  size_t sent_ = 0;               // of this round
  size_t to_come_ = 0;            // leaves that are not complete in the pass
  bool first_ = false, last_ = false;
  Array inv_scale_;
  Counts counts_;
};

}  // namespace binade::train
