// INTERNAL. A communicator of ranks that mpirun has started, over MPI, for memory on the CPU.
//
// Open MPI's library is loaded when it is needed, so that a program starts without it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <binade/dist/communicator.h>
#include <binade/dist/launch.h>
#include <binade/dist/store.h>

namespace binade::dist {

// Empty where Open MPI's library can be used; otherwise why not.
std::string mpi_unavailable_reason();

// MPI in this process, which may begin and end it once; all calls from one thread at a time.
class MpiSession {
 public:
  // Throws Error without Open MPI's library, and where MPI's ranks are not those of the launch:
  // started by something else than mpirun, a process is an MPI world of its own.
  explicit MpiSession(const Launch& launch);
  // Ends MPI together with the other ranks.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // Rank 0's bytes; waits for all ranks, before there is a store to tell that one is lost.
  void broadcast(void* data, int bytes) const;
  // After a failure the others may not come to the end.
  void give_up() { given_up_ = true; }

 private:
  friend class MpiCommunicator;
  void* communicator_ = nullptr;  // MPI_Comm
  bool any_thread_ = false;       // one at a time
  bool given_up_ = false;
};

class MpiCommunicator : public Communicator {
 public:
  // Both must outlive it.
  MpiCommunicator(Store& store, MpiSession& session);
  Device device() const override { return {}; }
  bool serves_any_thread() const override { return session_.any_thread_; }

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override;

 private:
  class Requests;
  [[noreturn]] void give_up(const std::string& reason);

  Store& store_;
  MpiSession& session_;
  uint64_t sequence_ = 0;  // of exchanges
};

}  // namespace binade::dist
