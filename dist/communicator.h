// Communicator: how the ranks of a run give each other memory. Transports move bytes, Binade adds:
// no verb reduces, as what a sum is (its order, its precision) may not depend on the number of
// ranks or on the network.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/core/array.h>

namespace binade::dist {

// All ranks call the same verbs in the same order, with blocks whose sizes agree. A verb throws
// Error, on every rank, when a rank ended, failed or does not answer in time; after that the
// communicator is of no use any more.
class Communicator {
 public:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Where the memory lies that it moves; on a GPU the verbs queue their work on the device's
  // stream.
  virtual Device device() const = 0;
  // Whether verbs may come from another thread than the first, one at a time.
  virtual bool serves_any_thread() const { return true; }

  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  // send[r] goes to rank r, and receive[r] becomes what rank r has for this one. A block that both
  // have in the same place, as this rank's own may be, is left alone.
  void all_to_all(const std::vector<Block>& send, const std::vector<Block>& receive);
  // blocks[r] is rank r's: the own one goes to all others, theirs are filled.
  void all_gather(const std::vector<Block>& blocks);
  // Row r of a contiguous array (size, ...) is rank r's.
  void all_gather(const Array& rows);
  // Everybody's block becomes that of rank `root`.
  void broadcast(Block block, int root = 0);
  // Returns when every rank has called it (on a GPU: queues that).
  void barrier();

 protected:
  // The one thing a transport does: all_to_all, with the sizes checked.
  virtual void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) = 0;

 private:
  int rank_, size_;
};

// `elements` elements shared out among ranks: contiguous, in order of ranks, equal up to whole
// chunks; the last ones may be empty.
struct Slice {
  int64_t begin = 0, end = 0;
};
std::vector<Slice> slices(int64_t elements, int ranks, int64_t chunk);

}  // namespace binade::dist
