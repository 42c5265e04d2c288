#include <binade/core/kernels/fingerprint.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

// Integers: the order of the additions changes nothing.
__global__ void __launch_bounds__(kBlock)
    fingerprint_kernel(const unsigned char* bytes, int64_t count, unsigned long long* sum) {
  const int64_t words = ceil_div(count, 4), stride = int64_t{gridDim.x} * kBlock;
  unsigned long long total = 0;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < words; i += stride) {
    uint32_t word = 0;
    if (4 * i + 4 <= count && reinterpret_cast<uintptr_t>(bytes) % 4 == 0) {
      word = reinterpret_cast<const uint32_t*>(bytes)[i];
    } else {
      for (int64_t b = 0; b < 4 && 4 * i + b < count; ++b)
        word |= uint32_t{bytes[4 * i + b]} << (8 * b);
    }
    total += fingerprint_term(static_cast<uint64_t>(i), word);
  }
  total = block_reduce<kBlock>(total, Sum(), 0ULL);
  if (threadIdx.x == 0) atomicAdd(sum, total);
}

}  // namespace

void fingerprint(const Array& values, const Array& sum) {
  sum.zero();
  if (values.numel() == 0) return;
  launch("fingerprint", fingerprint_kernel, grid_for(ceil_div(values.bytes(), 4)), kBlock, 0,
         static_cast<const unsigned char*>(device_pointer(values)), values.bytes(),
         reinterpret_cast<unsigned long long*>(device_data<int64_t>(sum)));
}

}  // namespace binade::kernels::cuda
