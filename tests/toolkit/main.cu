// Calls each library of the toolkit once, and a kernel if there is a GPU.
#include <cstdio>

#include <cublasLt.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <cub/cub.cuh>
#include <nvtx3/nvtx3.hpp>

__global__ void sum(const __half* values, float* total) {
  using BlockReduce = cub::BlockReduce<float, 64>;
  __shared__ BlockReduce::TempStorage storage;
  const float sum = BlockReduce(storage).Sum(__half2float(values[threadIdx.x]));
  if (threadIdx.x == 0) *total = sum;
}

int main() {
  const nvtx3::scoped_range range("toolkit");
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  std::printf("runtime %d, cuBLASLt %zu, cuDNN %zu\n", runtime, cublasLtGetVersion(),
              cudnnGetVersion());

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU\n");
    return 0;
  }
  __half* values;
  float* total;
  cudaMallocManaged(&values, 64 * sizeof(__half));
  cudaMallocManaged(&total, sizeof(float));
  for (int i = 0; i < 64; ++i) values[i] = __float2half(1.0f);
  sum<<<1, 64>>>(values, total);
  const bool right = cudaDeviceSynchronize() == cudaSuccess && *total == 64.0f;
  std::printf("kernel %s\n", right ? "right" : "wrong");
  return right ? 0 : 1;
}
