// World: the ranks of this run, as a program sees them.
//
//   dist::World world(dist::read_launch());
//   if (world.size() > 1) world.communicator().all_gather(rows);
//   world.leave();
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <binade/dist/communicator.h>
#include <binade/dist/launch.h>

namespace binade::dist {

class MpiSession;
class Store;

class World {
 public:
  // Meets the other ranks. A world of one has no connections. Throws Error when a rank is missing,
  // and for MPI as a transport where something else than mpirun has started the ranks.
  explicit World(const Launch& launch = {}, const Limits& limits = {});
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  int local_rank() const { return launch_.local_rank; }
  bool is_first() const { return launch_.rank == 0; }
  bool alone() const { return launch_.size == 1; }

  // Of memory on the CPU. Error in a world of one.
  Communicator& communicator();
  // Of memory on this device: over TCP or MPI for the CPU, through NCCL for a GPU, of which every
  // rank has its own. Made by the first call, which all ranks have to make. Error where NCCL is not
  // there.
  Communicator& communicator(Device device);
  // Tells all ranks that this one failed; the first failure is what they report.
  void report_failure(const std::string& reason);
  // Whether this rank has heard of a failure.
  bool failed() const;

  // ---- how far this rank is: failures tell it, and a rank is found that lets others wait --------
  void note_step(int64_t step) const;        // which it begins, counted from 1
  void note_finished(int64_t step) const;    // which its device has done, and it knows
  void note_checkpoint(int64_t step) const;  // after which it has written one
  // While it lives, this rank does what takes as long as it takes: others wait without a limit.
  class Busy {
   public:
    explicit Busy(Store* store);  // or null
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Store* store_;
  };
  [[nodiscard]] Busy busy() const { return Busy(store_.get()); }

  // Every rank calls it when its work is done.
  void leave();
  // Rank 0 does it alone, for as long as it takes; then all go on. For files that one rank writes
  // and all read.
  void first_alone(const std::function<void()>& body);
  // Throws Error on every rank unless all have the same text; `differences(first, own)` says in
  // what rank 0's and this one differ. Without it both are told.
  void require_same(const std::string& what, const std::string& text,
                    const std::function<std::string(const std::string& first,
                                                    const std::string& own)>& differences = {});

 private:
  void meet_over_mpi(const Limits& limits);

  Launch launch_;
  std::unique_ptr<MpiSession> mpi_;  // or null
  std::unique_ptr<Store> store_;
  int alone_count_ = 0;  // of first_alone()
  std::unique_ptr<Communicator> communicator_, gpu_communicator_;
};

}  // namespace binade::dist
