// Launching kernels: every launch is checked and lies in an NVTX range named after the kernel.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include <algorithm>

#include <binade/core/cuda/pool.h>
#include <binade/core/cuda/runtime.h>

namespace binade::kernels::cuda {

inline constexpr int kBlock = 256;  // threads of a block where nothing else is asked for
inline constexpr int kWarp = 32;

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Blocks for a grid-stride loop over `items`: enough to fill the device a few times, no more.
inline unsigned grid_for(int64_t items, int threads = kBlock) {
  const auto& device = ::binade::cuda::device_properties();
  const int64_t full = int64_t{device.multiprocessors} * device.max_threads_per_multiprocessor;
  return static_cast<unsigned>(std::min(ceil_div(items, threads), 8 * ceil_div(full, threads)));
}

// Blocks for a grid in which each block does one item.
inline unsigned one_block_each(int64_t items) {
  check(items <= INT32_MAX, "a kernel was asked for ", items,
        " blocks; a grid has at most 2^31 - 1");
  return static_cast<unsigned>(items);
}

// Queues kernel<<<grid, block, shared_bytes>>>(args...) on the current stream. An empty grid does
// nothing.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {  // more has to be asked for
    ::binade::cuda::check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes)),
        name);
  }
  nvtxRangePushA(name);
  kernel<<<grid, block, shared_bytes, ::binade::cuda::current_stream()>>>(args...);
  nvtxRangePop();
  ::binade::cuda::check_launch(name);
}

struct EarlyOptions {
  unsigned cluster = 1;  // blocks along x that form a cluster; more than 1 on 9.0 and newer only
};

// launch() of a kernel that may start while the one in front of it still runs (programmatic
// dependent launch, devices of compute capability 9.0 and newer): all its threads call
// wait_for_previous() before they touch what earlier kernels of the stream wrote or still read.
template <class... Params, class... Args>
void launch_early(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block,
                  const EarlyOptions& options, const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (::binade::cuda::device_properties().major >= 9) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (options.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {options.cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = ::binade::cuda::current_stream();
  config.attrs = attributes;
  config.numAttrs = count;
  nvtxRangePushA(name);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  nvtxRangePop();
  ::binade::cuda::check_cuda(status, name);
}

// For kernels of launch_early(). The first lets the next kernel start once all blocks have called
// it or ended; behind the second all that earlier kernels wrote is there.
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Scratch memory of the current device for the kernels queued while it lives. It is free for the
// next work in the stream's order as soon as it is gone, and inside a capture comes from the
// graph's arena.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t count)
      : bytes_(count * static_cast<int64_t>(sizeof(T))),
        device_(::binade::cuda::current_device()),
        data_(static_cast<T*>(::binade::cuda::pool_allocate(bytes_, device_))) {}
  ~Workspace() { ::binade::cuda::pool_free(data_, bytes_, device_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* data() const { return data_; }

 private:
  int64_t bytes_;
  int device_;
  T* data_;
};

}  // namespace binade::kernels::cuda
