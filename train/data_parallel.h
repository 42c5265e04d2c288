// Data parallelism: the micro-batches of a step are its lanes, and several ranks run them. Of L
// lanes on N ranks, rank r runs lanes r, N + r, 2N + r, …
//
// Gradients lie in buckets, of which every rank owns a slice (dist/shards.h). While a backward pass
// still runs, each rank sends all others their slices of the buckets that it has written, in the
// dtype in which they are stored (gradient_exchange.h). The owner adds the lanes up in f32, in
// their order: what accumulation on one rank does, bit by bit. So N ranks with L lanes give what
// one process with L micro-batches gives, for every N that divides L (at equal numbers of threads
// on a CPU).
//
// What happens to the sums is a stage of ZeRO (Rajbhandari et al. 2020). In stage 1 the owner of a
// slice has its masters, moments and averages, and nobody else; it updates them, and sends the new
// values to all. In stage 2 gradients, too, are whole on no rank: those of some parameters at a
// time have memory from their first write on until they were sent. In stage 0 the sums travel, and
// every rank has and updates everything. The norm of the gradients is added up from the same chunks
// by every rank (core/update.h), so all stages give the same bits. Muon's matrices are in stage 0
// always (optim/muon.h).
//
// With late values the new values travel under the next step's forward pass (value_exchange.h). A
// captured step holds all that its ranks exchange, so there is one order of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <binade/autograd/gradient_watch.h>
#include <binade/dist/world.h>
#include <binade/nn/module.h>
#include <binade/optim/ema.h>
#include <binade/optim/optimizer.h>
#include <binade/train/step.h>

namespace binade {
class SideQueue;
}

namespace binade::train {

// Throws Error, which lists the numbers that would do, unless so many ranks can share out the
// micro-batches of a step.
void check_lanes(int64_t micro_batches, int ranks);

struct DataParallelOptions {
  int stage = 1;  // of ZeRO: 0, 1 or 2
  // Elements of a bucket. Smaller ones leave earlier, larger ones use the network better.
  int64_t bucket = int64_t{1} << 24;
  bool overlap = true;    // false: each bucket is waited for as it is sent
  bool timeline = false;  // exposed_seconds() are measured
  // Of stages 1 and 2: other ranks get the values of an update with the next step. Between the two
  // they have old ones, which nobody can use by mistake (TrainStep::complete_values()). False: they
  // get them behind the update, which waits for it.
  bool late_values = true;
  // Of late values: those at the beginning of a model go beside the update of the others, so that
  // the next step need not wait for them. Not given: where GPUs of one host copy to each other.
  std::optional<bool> early_values = {};
};

class ExposedTime;
class GradientExchange;
class TimedCommunicator;
class ValueExchange;

class DataParallel {
 public:
  // For parameters on this device. `world` has more than one rank and must outlive this; every rank
  // makes one at the same place, with the same options. Throws Error as World::communicator() does.
  DataParallel(dist::World& world, Device device, const DataParallelOptions& options = {});
  ~DataParallel();

  dist::World& world() const { return world_; }
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }

  // ---- of a step --------------------------------------------------------------------------------
  // Those of the step's micro-batches that this rank runs, in order.
  std::vector<Batch> own(const std::vector<Batch>& micro_batches) const;
  // Which micro-batch of the step the own one `m` is.
  int64_t lane(int64_t m) const { return m * size() + rank(); }
  // A round is a backward pass of every rank, through which the gradients of all of them are added
  // to the optimizer's sums. It begins in front of the pass, which takes what begin_round() returns
  // as its watch, and ends behind it. Behind the `last` round of a step finish_rounds() completes
  // the sums.
  // In the last round the sums are measured as they come, for an optimizer's measure() with this
  // inv_scale; undefined: that does it.
  GradientWatch* begin_round(optim::Optimizer& optimizer, bool last, const Array& inv_scale = {});
  void end_round(optim::Optimizer& optimizer);
  void finish_rounds(optim::Optimizer& optimizer);
  // Of late values, in front of the forward pass that follows the optimizer's update: they go on
  // their way, and whoever uses a parameter waits for it. Nothing where values are not late.
  void send_values(const optim::Optimizer& optimizer);
  // Behind the last update of a step: waits for those that went beside it.
  void finish_values();
  // Waits for what a step that threw has left on its way; to be called before a capture begins.
  void settle();
  // Runs `body`, which captures a step, and forgets what it has queued if it throws.
  void capture(const std::function<void()>& body);
  // `own` (...) of every rank: (ranks, ...), on its device.
  Array gather(const Array& own);

  // So far: buckets that this rank has sent, and those that went while their pass still ran.
  int64_t buckets_sent() const;
  int64_t buckets_sent_early() const;

  // How long this rank's device has waited for others since begin_step(), f64 scalar on the device;
  // undefined without DataParallelOptions::timeline.
  void begin_step() const;
  const Array& exposed_seconds() const;

  // ---- between steps ----------------------------------------------------------------------------
  // In stage 1: the ranks share the state of an optimizer, and averages of it (or null), from here
  // on. False where nothing changed. `begin`: as of Optimizer::Sharing.
  bool share(optim::Optimizer& optimizer, optim::Ema* averages, bool begin = true);
  // Every rank has all masters, moments and averages again, until the next step. Takes their
  // memory.
  void complete(optim::Optimizer& optimizer, optim::Ema* averages);
  // Every rank has the values of the last update. sum_of() and deal() begin with it.
  void complete_values();
  // Whether it is so on any rank.
  bool any(bool here);
  // What rank 0 says.
  std::string as_first(std::string here);
  // Throws Error on every rank, naming the first entry that is not the same everywhere and whose it
  // is, unless all ranks have the same bits. `when` goes into the sentence. A host synchronisation.
  void check_equal(const nn::StateDict& state, const std::string& when);
  // What piece(0) … piece(count − 1) give, in order, on every rank; each rank does some of them.
  std::vector<std::vector<double>> deal(
      int64_t count, const std::function<std::vector<double>(int64_t index)>& piece);
  // Deals `count` evaluations out and adds their results, f32 scalars, up in f64 and in order, as
  // one rank would that did all of them.
  double sum_of(int64_t count, const std::function<Array(int64_t index)>& evaluate);

 private:
  GradientExchange& exchange_of(optim::Optimizer& optimizer);
  // What optimizers that are no more have exchanged.
  void drop_gone();
  // The ranks' communicator on the CPU, behind what was queued beside it.
  dist::Communicator& control();

  dist::World& world_;
  dist::Communicator& communicator_;
  DataParallelOptions options_;
  std::unique_ptr<ExposedTime> time_;
  std::unique_ptr<TimedCommunicator> timed_;  // the communicator; what is waited for but the queue
  std::vector<std::unique_ptr<GradientExchange>> exchanges_;  // of optimizers
  std::vector<std::unique_ptr<ValueExchange>> values_;        // of those whose values are late
  int64_t sent_by_gone_ = 0, early_by_gone_ = 0;              // buckets, of optimizers that were
  // End first, as their work is that of the others: verbs, and sums where they are beside those.
  std::unique_ptr<SideQueue> queue_, sums_;
};

// DataParallel::deal(), and the same where one process does all pieces (null).
std::vector<std::vector<double>> deal(
    DataParallel* parallel, int64_t count,
    const std::function<std::vector<double>(int64_t index)>& piece);

}  // namespace binade::train
