// The bookkeeping of a memory pool: blocks cut from large segments, best fit, neighbours merged
// when free. It touches no memory itself, so it serves the device's pool and a graph's arena alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include <binade/core/device.h>

namespace binade::cuda {

class BlockAllocator {
 public:
  static constexpr int64_t kGranule = 512;             // blocks are multiples of it
  static constexpr int64_t kSmall = int64_t{1} << 20;  // up to here blocks share small segments
  static constexpr int64_t kSmallSegment = int64_t{2} << 20;
  static constexpr int64_t kLargeSegment = int64_t{64} << 20;
  static constexpr int64_t kOwnSegment = int64_t{32}
                                         << 20;  // from here a block gets its own segment
  static constexpr int64_t kSegmentGranule = int64_t{2} << 20;

  // Memory of the device; null if it has no more.
  using Map = std::function<void*(int64_t bytes)>;
  using Unmap = std::function<void(void* data, int64_t bytes)>;

  // Keeps in_use, reserved and their peaks in `stats`, which several allocators may share.
  BlockAllocator(MemoryStats& stats, Map map, Unmap unmap);
  ~BlockAllocator();  // unmaps everything
  BlockAllocator(const BlockAllocator&) = delete;
  BlockAllocator& operator=(const BlockAllocator&) = delete;

  // A block of at least `bytes`; null if the device has no more.
  void* allocate(int64_t bytes);
  // False if the block is not one of this allocator's.
  bool free(void* data) noexcept;
  bool owns(void* data) const { return live_.count(data) != 0; }
  size_t live_blocks() const { return live_.size(); }
  // Unmaps the segments in which nothing lives.
  void release_unused();
  // Takes over the segments of an allocator that has no live blocks.
  void adopt(BlockAllocator& other);

 private:
  struct Block {
    std::byte* data;
    int64_t bytes;
    bool small;                 // which class of segment it lies in
    Block* previous = nullptr;  // neighbours in the segment
    Block* next = nullptr;
  };
  struct BySize {
    bool operator()(const Block* a, const Block* b) const {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
    }
  };
  using FreeBlocks = std::set<Block*, BySize>;

  FreeBlocks& free_of(bool small) { return small ? small_free_ : large_free_; }
  Block* map_segment(int64_t bytes, bool small);
  void merge_with_next(Block* block);

  MemoryStats& stats_;
  Map map_;
  Unmap unmap_;
  FreeBlocks small_free_, large_free_;
  std::unordered_map<void*, Block*> live_;
};

}  // namespace binade::cuda
