// INTERNAL
// Copies between GPUs of one host that leave their multiprocessors to other work: ranks map each
// other's windows (CUDA IPC) and copy engines write there. When a block may be written, and when it
// is there, ranks tell each other in words of device memory, which streams write and wait for
// (stream memory operations). All of it may be part of a captured graph.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/core/array.h>
#include <binade/dist/communicator.h>

namespace binade::dist {

class PeerCopies {
 public:
  // For all ranks of `control`, which are on the CPU, with a GPU each. It reaches ranks of the same
  // host whose GPU can write to this one's memory and the other way round, as a first copy has
  // shown; nobody with BINADE_PEER_COPIES=0, and as NCCL would have it not with NCCL_P2P_DISABLE=1
  // or another NCCL_HOSTID.
  PeerCopies(Communicator& control, Device device);
  PeerCopies(const PeerCopies&) = delete;
  PeerCopies& operator=(const PeerCopies&) = delete;

  // For all ranks: a window of contiguous memory.
  std::shared_ptr<const Communicator::Window> open(const Array& memory);
  // Whether a rank is reached in a window that open() has made.
  bool reaches(int rank, const Communicator::Window& window) const;
  // Queues, on the current stream, what goes to the ranks that are reached in the window, to
  // `offset` there, and waits there for what comes from them.
  void send(const std::vector<Communicator::Block>& blocks, const Communicator::Window& window,
            int64_t offset);
  // For a failure, from any thread: what waits for others on the device goes on, with nothing of
  // use. To be called again and again, as what comes behind it waits, too.
  void give_up();

 private:
  struct Driver;
  struct Memory;
  class OwnWindow;

  std::shared_ptr<Memory> exchange_handles(const Array& memory);
  void keep_reached(Memory& memory);
  void drop_unused();
  void try_out();

  Communicator& control_;
  Device device_;
  const Driver& driver_;
  std::vector<bool> on_host_;  // by rank, without this one
  // Memory of windows that ranks have opened, in one order everywhere.
  std::vector<std::shared_ptr<Memory>> opened_;
  std::shared_ptr<Memory> words_;
  std::shared_ptr<void> ones_;    // page-locked, as long as the words
  std::shared_ptr<void> stream_;  // cudaStream_t, of give_up()
};

}  // namespace binade::dist
