#include <binade/core/kernels/clock.h>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

// Of the whole device, unlike clock64().
__device__ int64_t now() {
  int64_t ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

__global__ void read_clock_kernel(int64_t* start) {
  *start = now();
}

__global__ void add_elapsed_kernel(const int64_t* start, double* total) {
  *total += 1e-9 * static_cast<double>(now() - *start);
}

}  // namespace

void read_clock(const Array& start) {
  launch("read_clock", read_clock_kernel, 1, 1, 0, device_data<int64_t>(start));
}

void add_elapsed(const Array& start, const Array& total) {
  launch("add_elapsed", add_elapsed_kernel, 1, 1, 0, device_data<int64_t>(start),
         device_data<double>(total));
}

}  // namespace binade::kernels::cuda
