// Data parallelism: the micro-batches of a step are its lanes, and several ranks run them. Of L
// lanes on N ranks, rank r runs lanes r, N + r, 2N + r, …
//
// After each round of backward passes every rank sends each other one the slice of its gradients
// that the other owns, in the dtype in which they are stored. The owner adds the lanes up in f32,
// in their order: what accumulation on one rank does, bit by bit. So N ranks with L lanes give what
// one process with L micro-batches gives, for every N that divides L (at equal numbers of threads
// on a CPU).
//
// What happens to the sums is a stage of ZeRO (Rajbhandari et al. 2020). In stage 1 the owner of a
// slice has its masters, moments and averages, and nobody else; it updates them, and sends the new
// values to all. In stage 0 the sums travel, and every rank has and updates everything. The norm of
// the gradients is added up from the same chunks by every rank (core/update.h), so both stages give
// the same bits. Muon's matrices are in stage 0 always (optim/muon.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <binade/dist/world.h>
#include <binade/nn/module.h>
#include <binade/optim/ema.h>
#include <binade/optim/optimizer.h>
#include <binade/train/step.h>

namespace binade::train {

// Throws Error, which lists the numbers that would do, unless so many ranks can share out the
// micro-batches of a step.
void check_lanes(int64_t micro_batches, int ranks);

class DataParallel {
 public:
  // For parameters on this device. `world` has more than one rank and must outlive this; every rank
  // makes one at the same place. `stage` of ZeRO: 0 or 1. Throws Error as World::communicator()
  // does.
  DataParallel(dist::World& world, Device device, int stage = 1);

  const dist::World& world() const { return world_; }
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }

  // ---- of a step --------------------------------------------------------------------------------
  // Those of the step's micro-batches that this rank runs, in order.
  std::vector<Batch> own(const std::vector<Batch>& micro_batches) const;
  // Which micro-batch of the step the own one `m` is.
  int64_t lane(int64_t m) const { return m * size() + rank(); }
  // Adds the gradients that all ranks have now to the optimizer's sums, of the slices that this
  // rank owns.
  void accumulate(optim::Optimizer& optimizer);
  // Completes the sums of what the ranks do not share with the slices of the other ranks.
  void gather_sums(optim::Optimizer& optimizer);
  // A floating scalar of every rank, in f32 and in their order, on its device.
  std::vector<Array> gather_scalar(const Array& scalar);

  // ---- between steps ----------------------------------------------------------------------------
  // In stage 1: the ranks share the state of an optimizer, and averages of it (or null), from here
  // on. False where nothing changed.
  bool share(optim::Optimizer& optimizer, optim::Ema* averages);
  // Every rank has all masters, moments and averages again, until the next step. Takes their
  // memory.
  void complete(optim::Optimizer& optimizer, optim::Ema* averages);
  // Whether it is so on any rank.
  bool any(bool here);
  // What rank 0 says.
  bool as_first(bool here);
  // Throws Error naming the first entry that differs from rank 0's.
  void check_equal(const nn::StateDict& state);
  // Deals `count` evaluations out and adds their results, f32 scalars, up in f64 and in order, as
  // one rank would that did all of them.
  double sum_of(int64_t count, const std::function<Array(int64_t index)>& evaluate);

 private:
  dist::World& world_;
  dist::Communicator& communicator_;
  int stage_;
  // What came of other ranks, (ranks, bytes); for the largest group.
  Array received_;
};

}  // namespace binade::train
