// Communicator: how the ranks of a run give each other memory. Transports move bytes, Binade adds:
// no verb reduces, as what a sum is (its order, its precision) may not depend on the number of
// ranks or on the network.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
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

  // Memory of a rank that the others write into, where the transport can do that: GPUs of one host
  // then need nothing but their copy engines for a verb, and compute beside it at full speed.
  class Window {
   public:
    explicit Window(Array memory) : memory_(std::move(memory)) {}
    virtual ~Window() = default;
    const Array& memory() const { return memory_; }
    // Whether every other rank writes there itself, which takes little longer than a copy within a
    // GPU.
    virtual bool is_near() const { return false; }
    // The block's bytes from the start of the memory; Error for one that does not lie in it.
    int64_t offset_of(const Block& block) const;

   private:
    Array memory_;
  };
  // For all ranks, outside of captured graphs, with contiguous arrays of as many bytes. It holds
  // the memory, which others may write from the moment on in which this rank calls a verb into it
  // until that is done.
  virtual std::shared_ptr<const Window> open_window(const Array& memory);
  // The same verbs, with all that is received in the window. What this rank sends lies `offset`
  // bytes from its start on every rank that receives it; all_gather(): where its own block lies.
  void all_to_all(const std::vector<Block>& send, const std::vector<Block>& receive,
                  const Window& window, int64_t offset);
  void all_gather(const std::vector<Block>& blocks, const Window& window);

 protected:
  // The one thing a transport does: all_to_all, with the sizes checked.
  virtual void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) = 0;
  // The same into a window; a transport that has no better way leaves it as it is.
  virtual void exchange_into(const Window& window, int64_t offset, const std::vector<Block>& send,
                             const std::vector<Block>& receive);

 private:
  void check_blocks(const std::vector<Block>& send, const std::vector<Block>& receive) const;
  std::vector<Block> copies_of_own(const std::vector<Block>& blocks) const;

  int rank_, size_;
};

// `elements` elements shared out among ranks: contiguous, in order of ranks, equal up to whole
// chunks; the last ones may be empty.
struct Slice {
  int64_t begin = 0, end = 0;
};
std::vector<Slice> slices(int64_t elements, int ranks, int64_t chunk);

}  // namespace binade::dist
