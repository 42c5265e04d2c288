#include <binade/core/cuda/block_allocator.h>

#include <algorithm>
#include <utility>

namespace binade::cuda {

namespace {

constexpr int64_t round_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

BlockAllocator::BlockAllocator(MemoryStats& stats, Map map, Unmap unmap)
    : stats_(stats), map_(std::move(map)), unmap_(std::move(unmap)) {}

BlockAllocator::~BlockAllocator() {
  // Blocks that still live are let go: whoever destroys the allocator knows that nobody uses them.
  while (!live_.empty()) free(live_.begin()->first);
  release_unused();
}

BlockAllocator::Block* BlockAllocator::map_segment(int64_t bytes, bool small) {
  int64_t segment = small                  ? kSmallSegment
                    : bytes >= kOwnSegment ? round_up(bytes, kSegmentGranule)
                                           : kLargeSegment;
  void* data = map_(segment);
  if (data == nullptr && segment > round_up(bytes, kSegmentGranule)) {  // a tighter one may fit
    segment = round_up(bytes, kSegmentGranule);
    data = map_(segment);
  }
  if (data == nullptr) return nullptr;
  stats_.reserved += segment;
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  return new Block{static_cast<std::byte*>(data), segment, small};
}

void* BlockAllocator::allocate(int64_t bytes) {
  bytes = round_up(std::max<int64_t>(bytes, 1), kGranule);
  const bool small = bytes <= kSmall;
  FreeBlocks& free_blocks = free_of(small);

  Block wanted{nullptr, bytes, small};
  Block* block = nullptr;
  if (const auto best = free_blocks.lower_bound(&wanted); best != free_blocks.end()) {
    block = *best;
    free_blocks.erase(best);
  } else {
    block = map_segment(bytes, small);
    if (block == nullptr) return nullptr;
  }

  if (block->bytes > bytes) {  // the rest stays free
    Block* rest = new Block{block->data + bytes, block->bytes - bytes, small, block, block->next};
    if (rest->next != nullptr) rest->next->previous = rest;
    block->next = rest;
    block->bytes = bytes;
    free_blocks.insert(rest);
  }
  live_.emplace(block->data, block);
  stats_.in_use += bytes;
  stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.in_use);
  return block->data;
}

void BlockAllocator::merge_with_next(Block* block) {
  Block* next = block->next;
  block->bytes += next->bytes;
  block->next = next->next;
  if (block->next != nullptr) block->next->previous = block;
  delete next;
}

bool BlockAllocator::free(void* data) noexcept {
  const auto found = live_.find(data);
  if (found == live_.end()) return false;
  Block* block = found->second;
  live_.erase(found);
  stats_.in_use -= block->bytes;

  FreeBlocks& free_blocks = free_of(block->small);
  if (block->next != nullptr && free_blocks.erase(block->next) != 0) merge_with_next(block);
  if (block->previous != nullptr && free_blocks.erase(block->previous) != 0) {
    block = block->previous;
    merge_with_next(block);
  }
  free_blocks.insert(block);
  return true;
}

void BlockAllocator::release_unused() {
  for (FreeBlocks* free_blocks : {&small_free_, &large_free_}) {
    for (auto it = free_blocks->begin(); it != free_blocks->end();) {
      Block* block = *it;
      if (block->previous != nullptr || block->next != nullptr) {
        ++it;
        continue;
      }
      it = free_blocks->erase(it);
      unmap_(block->data, block->bytes);
      stats_.reserved -= block->bytes;
      delete block;
    }
  }
}

void BlockAllocator::adopt(BlockAllocator& other) {
  small_free_.merge(other.small_free_);
  large_free_.merge(other.large_free_);
}

}  // namespace binade::cuda
