#include <binade/core/cuda/pool.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include <binade/core/cuda/block_allocator.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/text.h>

namespace binade::cuda {

namespace {

// Lets this thread call cudaMalloc and cudaFree while one of its streams is being captured: neither
// is part of the captured work.
class RelaxedCapture {
 public:
  RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

void* map_device_memory(int64_t bytes, int device) {
  const DeviceScope scope(Device::cuda(device));
  const RelaxedCapture relaxed;
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check_cuda(status, "cudaMalloc");
  return data;
}

// cudaFree waits for the work that is queued on the device.
void unmap_device_memory(void* data, int device) {
  const DeviceScope scope(Device::cuda(device));
  const RelaxedCapture relaxed;
  check_cuda(cudaFree(data), "cudaFree");
}

struct DevicePool;

}  // namespace

struct GraphArena::State {
  State(DevicePool& pool, int device);

  int device;
  DevicePool& pool;
  BlockAllocator allocator;
  std::vector<void*> kept;  // blocks of others that this graph touches
  bool graph_gone = false;
};

namespace {

thread_local GraphArena::State* active_arena = nullptr;

// The memory of one device. Never destroyed: at exit the driver may be gone before us.
struct DevicePool {
  explicit DevicePool(int index)
      : device(index),
        allocator(
            stats, [index](int64_t bytes) { return map_device_memory(bytes, index); },
            [index](void* data, int64_t) { unmap_device_memory(data, index); }) {}

  static DevicePool& of(int device) {
    static std::mutex& mutex = *new std::mutex;
    static auto& pools = *new std::map<int, std::unique_ptr<DevicePool>>;
    const std::scoped_lock lock(mutex);
    std::unique_ptr<DevicePool>& pool = pools[device];
    if (pool == nullptr) pool = std::make_unique<DevicePool>(device);
    return *pool;
  }

  void* allocate(int64_t bytes);
  void free(void* data) noexcept;
  // Gives cached blocks back to the device, which waits for all of its work: not while another
  // thread captures, whose capture that would break.
  void release_unused();
  // Hands the arena's memory to the pool once nobody can touch it other than in the stream's order.
  void retire_if_unused(GraphArena::State& arena);
  [[noreturn]] void throw_out_of_memory(int64_t bytes);

  int device;
  std::mutex mutex;
  MemoryStats stats;
  BlockAllocator allocator;
  std::vector<std::shared_ptr<GraphArena::State>> arenas;
};

void* DevicePool::allocate(int64_t bytes) {
  const std::scoped_lock lock(mutex);
  const bool captured = active_arena != nullptr && active_arena->device == device;
  BlockAllocator& source = captured ? active_arena->allocator : allocator;
  void* data = source.allocate(bytes);
  if (data == nullptr) {
    release_unused();
    data = source.allocate(bytes);
  }
  if (data == nullptr) throw_out_of_memory(bytes);
  return data;
}

void DevicePool::release_unused() {
  if (!CaptureScope::others_active(device)) allocator.release_unused();
}

void DevicePool::free(void* data) noexcept {
  const std::scoped_lock lock(mutex);
  GraphArena::State* capturing = active_arena;
  if (capturing != nullptr && capturing->device == device) {
    if (!capturing->allocator.free(data)) capturing->kept.push_back(data);
    return;
  }
  if (allocator.free(data)) return;
  for (const auto& arena : arenas) {
    if (!arena->allocator.free(data)) continue;
    retire_if_unused(*arena);
    return;
  }
}

void DevicePool::retire_if_unused(GraphArena::State& arena) {
  if (!arena.graph_gone || arena.allocator.live_blocks() != 0) return;
  allocator.adopt(arena.allocator);
  std::erase_if(arenas, [&](const auto& other) { return other.get() == &arena; });
}

void DevicePool::throw_out_of_memory(int64_t bytes) {
  size_t free = 0, total = 0;
  const DeviceScope scope(Device::cuda(device));
  const RelaxedCapture relaxed;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  throw OutOfMemory(concat(
      "out of GPU memory on cuda:", device, ": ", gib(bytes), " (", bytes, " bytes) asked for; ",
      gib(stats.in_use), " in use by arrays, ", gib(stats.reserved), " reserved by the pool, ",
      gib(static_cast<int64_t>(total)), " on the card, of which ", gib(static_cast<int64_t>(free)),
      " are free. Lower the batch size or the sequence length, or turn on recompute"));
}

}  // namespace

void* pool_allocate(int64_t bytes, int device) {
  return DevicePool::of(device).allocate(bytes);
}

void pool_free(void* data, int64_t, int device) noexcept {
  DevicePool::of(device).free(data);
}

MemoryStats pool_stats(int device) {
  const DeviceScope scope(Device::cuda(device));
  DevicePool& pool = DevicePool::of(device);
  const std::scoped_lock lock(pool.mutex);
  MemoryStats stats = pool.stats;
  stats.device_total = static_cast<int64_t>(device_properties().total_bytes);
  return stats;
}

void pool_reset_peak(int device) {
  DevicePool& pool = DevicePool::of(device);
  const std::scoped_lock lock(pool.mutex);
  pool.stats.peak_in_use = pool.stats.in_use;
  pool.stats.peak_reserved = pool.stats.reserved;
}

void pool_release_cached(int device) {
  note_host_synchronisation();
  DevicePool& pool = DevicePool::of(device);
  const std::scoped_lock lock(pool.mutex);
  pool.release_unused();
}

std::shared_ptr<void> allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  const RelaxedCapture relaxed;
  check_cuda(
      cudaHostAlloc(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)), cudaHostAllocPortable),
      "page-locked host memory");
  return {data, [](void* pinned) {
            const RelaxedCapture relaxed_too;
            cudaFreeHost(pinned);
          }};
}

// ---- arenas -------------------------------------------------------------------------------------

// An arena takes whole segments from the device, not blocks of the pool: what was freed in the pool
// before the capture may be handed out again between two replays.
GraphArena::State::State(DevicePool& owner, int index)
    : device(index),
      pool(owner),
      allocator(
          owner.stats, [index](int64_t bytes) { return map_device_memory(bytes, index); },
          [index](void* data, int64_t) { unmap_device_memory(data, index); }) {}

GraphArena::GraphArena(int device) {
  DevicePool& pool = DevicePool::of(device);
  state_ = std::make_shared<State>(pool, device);
  const std::scoped_lock lock(pool.mutex);
  pool.arenas.push_back(state_);
}

GraphArena::~GraphArena() {
  // Replays that are still queued come before whatever uses the memory next: no need to wait.
  std::vector<void*> kept;
  {
    const std::scoped_lock lock(state_->pool.mutex);
    kept.swap(state_->kept);
    state_->graph_gone = true;
    state_->pool.retire_if_unused(*state_);
  }
  for (void* data : kept) state_->pool.free(data);
}

GraphArena::Scope::Scope(GraphArena& arena) {
  check(active_arena == nullptr, "a capture cannot start inside another one");
  active_arena = arena.state_.get();
}

GraphArena::Scope::~Scope() {
  active_arena = nullptr;
}

}  // namespace binade::cuda
