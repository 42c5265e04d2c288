// The CUDA runtime and the memory pool of a device that is this process. A program's own functions
// come before those of libraries, so the library's calls arrive here too. Everything is done when a
// call returns; what is not here, the real runtime answers: there is no driver.
#include <cuda_runtime.h>

#include <binade/core/cuda/pool.h>
#include <binade/core/cuda/runtime.h>

#include <binade/core/kernels/cuda/common/radix_sort.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "memory.h"
#include "runtime.h"
#include "skip.h"

namespace emulated {

namespace {
int multiprocessors = 1;
}  // namespace

void set_multiprocessors(int count) {
  multiprocessors = count;
}

}  // namespace emulated

namespace binade::cuda {

void* pool_allocate(int64_t bytes, int) {
  return emulated::allocate(static_cast<size_t>(bytes));
}

void pool_free(void* data, int64_t, int) noexcept {
  emulated::release(data);
}

const DeviceProperties& device_properties() {
  static DeviceProperties properties{.name = "emulated",
                                     .multiprocessors = 0,
                                     .max_threads_per_multiprocessor = 256,
                                     .major = 9,
                                     .minor = 0,
                                     .l2_bytes = size_t{1} << 20,
                                     .total_bytes = size_t{1} << 32,
                                     .shared_bytes_per_block = 227 * 1024};
  properties.multiprocessors = emulated::multiprocessors;
  return properties;
}

}  // namespace binade::cuda

namespace binade::kernels::cuda {

// In place of CUB's.
template <class Key>
void sort_pairs(const Key* keys, Key* sorted_keys, const uint32_t* values, uint32_t* sorted_values,
                int64_t segments, int64_t length, int bits) {
  const Key mask = bits == 8 * sizeof(Key) ? ~Key{0} : (Key{1} << bits) - 1;
  std::vector<int64_t> order(static_cast<size_t>(length));
  for (int64_t segment = 0; segment < segments; ++segment) {
    const int64_t begin = segment * length;
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int64_t i = 0; i < length; ++i) {
      sorted_keys[begin + i] = keys[order[static_cast<size_t>(i)]];
      sorted_values[begin + i] = values[order[static_cast<size_t>(i)]];
    }
  }
}

template void sort_pairs(const uint32_t*, uint32_t*, const uint32_t*, uint32_t*, int64_t, int64_t,
                         int);
template void sort_pairs(const uint64_t*, uint64_t*, const uint32_t*, uint32_t*, int64_t, int64_t,
                         int);

}  // namespace binade::kernels::cuda

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "emulated");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = size_t{1} << 32;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  *data = emulated::allocate(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  emulated::release(data);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  *data = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static int streams = 0;
  *stream = reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(256 + 16 * streams++));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(uintptr_t{256});
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaPeekAtLastError() {
  return cudaSuccess;
}

// What is not here ends the running test as a skipped one. Kernels that come this way were compiled
// by nvcc, for the library.
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  binade::test::skip("the emulation has no such kernel");
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void*) {
  *kernel = nullptr;
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  binade::test::skip("the emulation has no such kernel");
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) {
  binade::test::skip("the emulation has no such kernel");
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  binade::test::skip("the emulation has no graphs");
}

}  // extern "C"
