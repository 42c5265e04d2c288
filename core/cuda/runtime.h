// CUDA runtime: checked calls, RAII handles, the current stream. Included by .cu and cuda/*.cpp
// only.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>
#include <utility>

#include <binade/core/cuda/copy.h>
#include <binade/core/device.h>
#include <binade/core/error.h>

namespace binade::cuda {

// Throws Error (OutOfMemory for cudaErrorMemoryAllocation) naming the call that failed.
void check_cuda(cudaError_t status, const char* what);

// The device that this thread's calls go to: 0 unless cudaSetDevice was called.
int current_device();

// Makes `device` the current one while alive.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_;
};

// The thread's stream: all kernels and copies are queued on it. A non-blocking stream per device.
cudaStream_t current_stream();
// Uses `stream` as the current one while alive.
class StreamScope {
 public:
  explicit StreamScope(cudaStream_t stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  cudaStream_t previous_;
};

// Owner of a CUDA library handle: Handle<cudaEvent_t, cudaEventDestroy>.
template <class T, auto Destroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T handle) : handle_(handle) {}
  Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, T{})) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Handle() {
    if (handle_) Destroy(handle_);
  }
  T get() const { return handle_; }
  T* put() { return &handle_; }
  explicit operator bool() const { return handle_ != T{}; }

 private:
  T handle_{};
};
using Event = Handle<cudaEvent_t, cudaEventDestroy>;

// Facts about the current device, read once.
struct DeviceProperties {
  int multiprocessors;
  int max_threads_per_multiprocessor;
  int major, minor;
  size_t l2_bytes;
  size_t total_bytes;
  size_t shared_bytes_per_block;  // the most that a kernel may ask for
};
const DeviceProperties& device_properties();

// Checks the launch that was just queued; `name` is the kernel's.
void check_launch(const char* name);

}  // namespace binade::cuda
