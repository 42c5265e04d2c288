// Running sums along a dimension.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

struct Scan {
  int64_t length;
  int64_t x_stride, out_stride;
  bool reverse;
  __device__ int64_t position(int64_t i) const { return reverse ? length - 1 - i : i; }
};

// rows: out and x, both cut to their first element along the dimension. One thread a row.
template <class T>
__global__ void __launch_bounds__(kBlock)
    scan_columns_kernel(const __grid_constant__ Layout rows, Scan scan, const T* x, void* out,
                        DType out_dtype) {
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row >= rows.items) return;
  int64_t offset[2];
  locate(rows, row, offset);
  ComputeOf<T> sum = 0;
  for (int64_t i = 0; i < scan.length; ++i) {
    const int64_t p = scan.position(i);
    sum += widen(x[offset[1] + p * scan.x_stride]);
    store_as(out, offset[0] + p * scan.out_stride, out_dtype, sum);
  }
}

template <class C>
__device__ __forceinline__ C warp_running_sum(C value) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const C before = __shfl_up_sync(0xffffffffu, value, distance);
    if (lane >= distance) value += before;
  }
  return value;
}

// One block a row, in tiles of an element a thread.
template <class T>
__global__ void __launch_bounds__(kBlock)
    scan_rows_kernel(const __grid_constant__ Layout rows, Scan scan, const T* x, void* out,
                     DType out_dtype) {
  using C = ComputeOf<T>;
  constexpr int kWarps = kBlock / kWarp;
  __shared__ C totals[kWarps];
  int64_t offset[2];
  locate(rows, blockIdx.x, offset);
  const int warp = threadIdx.x / kWarp;
  C carry = 0;
  for (int64_t tile = 0; tile < scan.length; tile += kBlock) {
    const int64_t i = tile + threadIdx.x;
    const int64_t p = scan.position(i);
    const bool inside = i < scan.length;
    C sum = warp_running_sum(inside ? widen(x[offset[1] + p * scan.x_stride]) : C(0));
    if (threadIdx.x % kWarp == kWarp - 1) totals[warp] = sum;
    __syncthreads();
    C before = carry;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) sum += before;
      before += totals[w];
    }
    carry = before;
    __syncthreads();  // the totals have been read
    if (inside) store_as(out, offset[0] + p * scan.out_stride, out_dtype, sum);
  }
}

}  // namespace

void cumsum(const Array& x, int dim, bool reverse, const Array& out) {
  if (x.numel() == 0) return;
  const Array first_out = out.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&first_out, &first_x}, 1);
  const Scan scan{x.size(dim), x.stride(dim), out.stride(dim), reverse};
  const bool columns = scan.length <= 32 || (rows.items >= 1024 && scan.x_stride != 1);
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if (columns) {
      launch("cumsum", scan_columns_kernel<T>, one_block_each(ceil_div(rows.items, kBlock)), kBlock,
             0, rows, scan, device_data<T>(x), out.data(), out.dtype());
    } else {
      launch("cumsum", scan_rows_kernel<T>, one_block_each(rows.items), kBlock, 0, rows, scan,
             device_data<T>(x), out.data(), out.dtype());
    }
  });
}

}  // namespace binade::kernels::cuda
