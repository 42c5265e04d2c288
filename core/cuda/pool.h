// Device memory: a stream-ordered caching pool for each device, and the arenas of captured graphs.
//
// A freed block may be handed out again at once: whatever is queued next runs after what was queued
// before the free, because all work of a device goes through one stream. (Memory that another
// stream touches is kept alive by its owner until that stream has been waited for.)
#pragma once

#include <cstdint>
#include <memory>

#include <binade/core/device.h>

namespace binade::cuda {

// 256-byte aligned device memory; zero bytes give a valid pointer. During a capture it comes from
// the graph's arena. Throws OutOfMemory naming what was asked, what is in use and what to lower.
void* pool_allocate(int64_t bytes, int device);
void pool_free(void* data, int64_t bytes, int device) noexcept;

MemoryStats pool_stats(int device);
void pool_reset_peak(int device);
// Gives the segments in which nothing lives back to the device (a host synchronisation).
void pool_release_cached(int device);

// Page-locked host memory. Throws OutOfMemory.
std::shared_ptr<void> allocate_pinned(int64_t bytes);

// Memory of one captured graph. While a Scope lives, this thread's allocations come from the arena,
// and blocks of the pool that this thread frees are kept, because replays will touch them. The
// arena's memory goes back to the device, and the kept blocks to the pool, when the graph's handle
// and every array made inside are gone.
class GraphArena {
 public:
  explicit GraphArena(int device);
  ~GraphArena();
  GraphArena(const GraphArena&) = delete;
  GraphArena& operator=(const GraphArena&) = delete;

  class Scope {
   public:
    explicit Scope(GraphArena& arena);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace binade::cuda
