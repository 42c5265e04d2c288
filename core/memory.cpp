#include <binade/core/memory.h>

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <unordered_map>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/host_memory.h>
#include <binade/core/text.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/pool.h>
#endif

namespace binade {

namespace {

constexpr std::align_val_t kAlignment{64}, kHugePage{int64_t{2} << 20};

// Freed CPU blocks are kept by size and handed out again: a training step asks for the same sizes
// every time, or for nearly the same where its lists differ in length, and fresh pages from the
// system cost a fault each.
class CpuPool {
 public:
  void* allocate(int64_t bytes) {
    const int64_t asked = rounded(bytes);
    int64_t size = asked;
    const std::scoped_lock lock(mutex_);
    void* block = take_cached(size);
    if (block == nullptr) block = from_system(size);
    if (block == nullptr) {
      release_locked();
      block = from_system(size);
    }
    if (block == nullptr) throw_out_of_memory(bytes);
    in_use_ += asked;
    beyond_ += size - asked;
    peak_in_use_ = std::max(peak_in_use_, in_use_);
    peak_reserved_ = std::max(peak_reserved_, reserved());
    return block;
  }

  void free(void* block, int64_t bytes) noexcept {
    const std::scoped_lock lock(mutex_);
    const int64_t asked = rounded(bytes), size = true_size(block, asked);
    in_use_ -= asked;
    beyond_ -= size - asked;
    if (size >= kSmallestCached) {
      try {
        free_[size].push_back(block);
        cached_ += size;
        ASAN_POISON_MEMORY_REGION(block, static_cast<size_t>(size));  // nobody's until it is reused
        if (cached_ > std::max(kCacheFloor, in_use_ + peak_in_use_)) release_locked();
        return;
      } catch (...) {  // no memory for the bookkeeping: give the block back instead
      }
    }
    to_system(block, size);
  }

  void release() {
    const std::scoped_lock lock(mutex_);
    release_locked();
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return {in_use_, peak_in_use_, reserved(), peak_reserved_, 0};
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    peak_in_use_ = in_use_;
    peak_reserved_ = reserved();
  }

 private:
  static constexpr int64_t kSmallestCached = 4096;
  static constexpr int64_t kSmallestShared = 1 << 16;
  static constexpr int64_t kCacheFloor = int64_t{256} << 20;
  static constexpr int64_t kSmallestHuge = static_cast<int64_t>(kHugePage);
  static constexpr int64_t kLargest = int64_t{1} << 47;  // the address space of a process
  static constexpr int64_t kUnchecked = int64_t{64} << 20;

  int64_t reserved() const { return in_use_ + beyond_ + cached_; }

  // Sizes above a page are rounded so that nearly equal requests share blocks.
  static int64_t rounded(int64_t bytes) {
    if (bytes <= 0) return 64;
    if (bytes > kLargest) return bytes;  // refused later; the sum below could overflow
    const int64_t unit = bytes < kSmallestCached ? 64 : bytes < (1 << 20) ? 4096 : (1 << 16);
    return (bytes + unit - 1) / unit * unit;
  }

  // A block of this size, or of at most an eighth more, which `size` becomes; null if there is
  // none.
  void* take_cached(int64_t& size) {
    const int64_t wanted = size;
    const bool shares = wanted >= kSmallestShared && wanted <= kLargest;
    const int64_t most = shares ? wanted + wanted / 8 : wanted;
    for (auto at = free_.lower_bound(wanted); at != free_.end() && at->first <= most; ++at) {
      if (at->second.empty()) continue;
      void* const block = at->second.back();
      try {
        if (at->first != wanted) larger_.emplace(block, at->first);
      } catch (...) {  // no memory for the bookkeeping
        return nullptr;
      }
      at->second.pop_back();
      size = at->first;
      cached_ -= size;
      ASAN_UNPOISON_MEMORY_REGION(block, static_cast<size_t>(wanted));
      return block;
    }
    return nullptr;
  }

  // Of a block that was handed out for `size`.
  int64_t true_size(void* block, int64_t size) noexcept {
    if (size < kSmallestShared) return size;
    const auto larger = larger_.find(block);
    if (larger == larger_.end()) return size;
    size = larger->second;
    larger_.erase(larger);
    return size;
  }

  // Null if there is no such memory.
  void* from_system(int64_t size) {
    if (size > kLargest) return nullptr;
    // What the machine has left is read once for so many bytes, as that takes time.
    unchecked_ += size;
    if (unchecked_ >= kUnchecked) {
      const std::optional<HostMemory> machine = host_memory();
      if (machine && size > machine->available) return nullptr;
      unchecked_ = 0;
    }
    void* block = ::operator new(static_cast<size_t>(size), alignment_of(size), std::nothrow);
#ifdef MADV_HUGEPAGE
    // A matmul strides over more small pages than the processor remembers translations of. Where
    // the system has no large pages to give, it stays with small ones.
    if (block != nullptr && size >= kSmallestHuge)
      madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
    return block;
  }

  static void to_system(void* block, int64_t size) noexcept {
    ::operator delete(block, alignment_of(size));
  }

  static std::align_val_t alignment_of(int64_t size) {
    return size >= kSmallestHuge ? kHugePage : kAlignment;
  }

  [[noreturn]] void throw_out_of_memory(int64_t bytes) const {
    const std::optional<HostMemory> machine = host_memory();
    throw OutOfMemory(concat("out of memory: ", bytes, " bytes (", gib(bytes), ") asked for, ",
                             in_use_, " bytes (", gib(in_use_), ") of arrays in use",
                             machine ? "; " + machine->describe() : "",
                             "; lower the batch size or the sequence length, or turn on "
                             "recompute"));
  }

  void release_locked() noexcept {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) {
        ASAN_UNPOISON_MEMORY_REGION(block, static_cast<size_t>(size));
        to_system(block, size);
      }
    }
    free_.clear();
    cached_ = 0;
  }

  std::mutex mutex_;
  std::map<int64_t, std::vector<void*>> free_;  // by size
  std::unordered_map<void*, int64_t> larger_;   // blocks in use that are larger than asked for
  int64_t beyond_ = 0;                          // what blocks in use hold beyond what was asked for
  int64_t in_use_ = 0, peak_in_use_ = 0, cached_ = 0, peak_reserved_ = 0;
  int64_t unchecked_ = 0;  // taken from the system since it was asked what is left
};

// Never destroyed: arrays of static duration may outlive any static pool.
CpuPool& cpu_pool() {
  static CpuPool& pool = *new CpuPool;
  return pool;
}

}  // namespace

void* allocate_bytes(int64_t bytes, Device device) {
  check(bytes >= 0, "cannot allocate ", bytes, " bytes");
  if (device.is_cpu()) return cpu_pool().allocate(bytes);
#if BINADE_HAVE_CUDA
  return cuda::pool_allocate(bytes, device.index());
#else
  fail("there is no device ", device, ": ", cuda_unavailable_reason());
#endif
}

void free_bytes(void* data, int64_t bytes, Device device) noexcept {
  if (device.is_cpu()) return cpu_pool().free(data, bytes);
#if BINADE_HAVE_CUDA
  cuda::pool_free(data, bytes, device.index());
#endif
}

namespace {

// Live page-locked blocks by address, so that nobody has to ask the driver.
struct PinnedBlocks {
  std::mutex mutex;
  std::map<const std::byte*, int64_t> sizes;
};
PinnedBlocks& pinned_blocks() {
  static PinnedBlocks& blocks = *new PinnedBlocks;  // outlives arrays of static duration
  return blocks;
}

}  // namespace

std::shared_ptr<void> allocate_pinned(int64_t bytes) {
#if BINADE_HAVE_CUDA
  if (cuda_device_count() > 0) {
    const std::shared_ptr<void> block = cuda::allocate_pinned(bytes);
    const auto* address = static_cast<const std::byte*>(block.get());
    PinnedBlocks& blocks = pinned_blocks();
    {
      const std::scoped_lock lock(blocks.mutex);
      blocks.sizes[address] = bytes;
    }
    return {block.get(), [block, address](void*) {
              PinnedBlocks& live = pinned_blocks();
              const std::scoped_lock lock(live.mutex);
              live.sizes.erase(address);
            }};
  }
#endif
  return {allocate_bytes(bytes, Device::cpu()),
          [bytes](void* data) { free_bytes(data, bytes, Device::cpu()); }};
}

bool is_pinned(const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  PinnedBlocks& blocks = pinned_blocks();
  const std::scoped_lock lock(blocks.mutex);
  auto next = blocks.sizes.upper_bound(at);
  if (next == blocks.sizes.begin()) return false;
  --next;
  return at < next->first + next->second;
}

MemoryStats memory_stats(Device device) {
#if BINADE_HAVE_CUDA
  if (device.is_cuda()) return cuda::pool_stats(device.index());
#endif
  return device.is_cpu() ? cpu_pool().stats() : MemoryStats{};
}

void reset_peak_memory(Device device) {
#if BINADE_HAVE_CUDA
  if (device.is_cuda()) return cuda::pool_reset_peak(device.index());
#endif
  if (device.is_cpu()) cpu_pool().reset_peak();
}

void release_cached_memory(Device device) {
#if BINADE_HAVE_CUDA
  if (device.is_cuda()) return cuda::pool_release_cached(device.index());
#endif
  if (device.is_cpu()) cpu_pool().release();
}

}  // namespace binade
