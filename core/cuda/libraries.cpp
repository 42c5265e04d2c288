#include <binade/core/cuda/libraries.h>

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include <binade/core/cuda/library_handles.h>
#include <binade/core/cuda/runtime.h>

namespace binade::cuda {

namespace {

std::atomic<bool> tf32_allowed{false};
std::atomic<bool> deterministic_mode{false};

// Handles of a library that no thread has, by device.
template <class T>
struct IdleHandles {
  std::mutex mutex;
  std::map<int, std::vector<T>> of_device;
};

// The thread's handle of a library for each device. When the thread ends, others may have them:
// to destroy a handle waits for the device, which ends a capture of another thread, and at exit the
// driver may be gone.
template <class T, auto Create, auto Check>
T thread_handle(const char* what) {
  static IdleHandles<T>& idle = *new IdleHandles<T>;
  struct Lent {
    ~Lent() {
      const std::scoped_lock lock(idle.mutex);
      for (const auto& [device, handle] : handles) idle.of_device[device].push_back(handle);
    }
    std::map<int, T> handles;
  };
  thread_local Lent lent;
  const int device = current_device();
  if (const auto found = lent.handles.find(device); found != lent.handles.end())
    return found->second;
  {
    const std::scoped_lock lock(idle.mutex);
    if (std::vector<T>& handles = idle.of_device[device]; !handles.empty()) {
      lent.handles[device] = handles.back();
      handles.pop_back();
      return lent.handles[device];
    }
  }
  T handle{};
  Check(Create(&handle), what);
  return lent.handles[device] = handle;
}

}  // namespace

void set_allow_tf32(bool allow) {
  tf32_allowed = allow;
}

bool allow_tf32() {
  return tf32_allowed;
}

void set_deterministic(bool deterministic) {
  deterministic_mode = deterministic;
}

bool deterministic() {
  return deterministic_mode;
}

void check_cublas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, what, " failed: ", cublasLtGetStatusString(status));
}

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char detail[512] = "";
  cudnnGetLastErrorString(detail, sizeof(detail));
  fail(what, " failed: ", cudnnGetErrorString(status), *detail ? ": " : "", detail);
}

cublasLtHandle_t cublaslt_handle() {
  return thread_handle<cublasLtHandle_t, cublasLtCreate, check_cublas>("cublasLtCreate");
}

cudnnHandle_t cudnn_handle() {
  const cudnnHandle_t handle =
      thread_handle<cudnnHandle_t, cudnnCreate, check_cudnn>("cudnnCreate");
  check_cudnn(cudnnSetStream(handle, current_stream()), "cudnnSetStream");
  return handle;
}

Array workspace(int64_t bytes) {
  return Array::empty({bytes}, DType::u8, Device::cuda(current_device()));
}

}  // namespace binade::cuda
