// CUDA runtime: checked calls, RAII handles, the current stream. Included by .cu and cuda/*.cpp
// only.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <type_traits>
#include <utility>

#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/device_scope.h>
#include <binade/core/device.h>
#include <binade/core/error.h>

namespace binade::cuda {

// Throws Error (OutOfMemory for cudaErrorMemoryAllocation) naming the call that failed.
void check_cuda(cudaError_t status, const char* what);

// The stream of the current device that all kernels and copies are queued on: one non-blocking
// stream per device, which all threads share, or that of the CaptureScope which this thread is in.
// Inside one, throws Error where the current device is not the captured one: a kernel there would
// run now and be missing in every replay.
cudaStream_t current_stream();

// While it lives, this thread queues its work on a stream which no other thread uses, to capture
// it: what other threads queue meanwhile goes to the device's own stream, and runs. Throws Error
// inside another one.
class CaptureScope {
 public:
  CaptureScope();  // on the current device
  ~CaptureScope();
  CaptureScope(const CaptureScope&) = delete;
  CaptureScope& operator=(const CaptureScope&) = delete;

  cudaStream_t stream() const { return stream_; }
  // Whether this thread is in one.
  static bool active();
  // Whether another thread is in one on this device.
  static bool others_active(int device);

 private:
  cudaStream_t stream_;
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
  std::string name;  // "NVIDIA H100 80GB HBM3": equal for cards of one kind
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
