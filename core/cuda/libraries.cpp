#include <binade/core/cuda/libraries.h>

#include <atomic>
#include <map>

#include <binade/core/cuda/library_handles.h>
#include <binade/core/cuda/runtime.h>

namespace binade::cuda {

namespace {

std::atomic<bool> tf32_allowed{false};
std::atomic<bool> deterministic_mode{false};

// The thread's handle of a library for each device.
template <class T, auto Create, auto Destroy, auto Check>
T thread_handle(const char* what) {
  thread_local std::map<int, Handle<T, Destroy>> handles;
  Handle<T, Destroy>& handle = handles[current_device()];
  if (!handle) Check(Create(handle.put()), what);
  return handle.get();
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
  return thread_handle<cublasLtHandle_t, cublasLtCreate, cublasLtDestroy, check_cublas>(
      "cublasLtCreate");
}

cudnnHandle_t cudnn_handle() {
  const cudnnHandle_t handle =
      thread_handle<cudnnHandle_t, cudnnCreate, cudnnDestroy, check_cudnn>("cudnnCreate");
  check_cudnn(cudnnSetStream(handle, current_stream()), "cudnnSetStream");
  return handle;
}

Array workspace(int64_t bytes) {
  return Array::empty({bytes}, DType::u8, Device::cuda(current_device()));
}

}  // namespace binade::cuda
