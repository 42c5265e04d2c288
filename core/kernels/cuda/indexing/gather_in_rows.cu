// Reading by index within rows: a block holds a row of x in shared memory, where 32 places are read
// at once, wherever they lie.
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/common/unaligned.cuh>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

namespace {

extern __shared__ uint4 gathered_row[];

// rows: out, index and x, cut to their first element along the dimension.
template <class T>
__global__ void __launch_bounds__(kBlock)
    gather_in_rows_kernel(const __grid_constant__ Layout rows, IndexReader index, int64_t length,
                          int64_t index_stride, int64_t out_stride, const T* x, T* out) {
  constexpr int kVec = kVecWidth<T>, kAhead = 8;
  const int width = static_cast<int>(index.size);
  int64_t offset[3];
  locate(rows, blockIdx.x, offset);
  const T* const row = x + offset[2];
  for (int i = threadIdx.x; i * kVec < width; i += kBlock) {
    const auto vector = load_unaligned(row + i * kVec, 0, min(kVec, width - i * kVec));
    reinterpret_cast<Vec<T, kVec>*>(gathered_row)[i] = vector;
  }
  __syncthreads();
  const T* const shared = reinterpret_cast<const T*>(gathered_row);
  for (int64_t first = threadIdx.x; first < length; first += kBlock * kAhead) {
    int64_t places[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t i = first + k * kBlock;
      places[k] = i < length ? index.read(offset[1] + i * index_stride) : 0;
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t i = first + k * kBlock;
      if (i >= length) break;
      const int64_t place = index.checked(places[k]);
      out[offset[0] + i * out_stride] = place == kBadIndex ? T() : shared[place];
    }
  }
}

}  // namespace

bool gather_in_rows(const char* name, const Array& x, int dim, const Array& index,
                    const Array& out) {
  constexpr int64_t kManyRows = 64;          // that keep most of a device busy
  constexpr int64_t kMostBytes = 48 * 1024;  // of a row: several blocks fit beside each other
  const int64_t width = x.size(dim), length = out.size(dim);
  const int64_t bytes = ceil_div(width * size_of(x.dtype()), 16) * 16;
  if (x.stride(dim) != 1 || index.stride(dim) == 0 || bytes > kMostBytes || width > 4 * length ||
      out.numel() / length < kManyRows)
    return false;
  const Array first_out = out.slice(dim, 0, 1), first_index = index.slice(dim, 0, 1);
  Array first_x = x;
  for (int d = 0; d < x.dims(); ++d) first_x = first_x.slice(d, 0, d == dim ? 1 : out.size(d));
  const Layout rows = make_layout({&first_out, &first_index, &first_x}, 1);
  visit_bits(x.dtype(), [&]<class T>(T) {
    launch(name, gather_in_rows_kernel<T>, one_block_each(rows.items), kBlock,
           static_cast<size_t>(bytes), rows, IndexReader(index, width), length, index.stride(dim),
           out.stride(dim), device_data<const T>(x), device_data<T>(out));
  });
  return true;
}

}  // namespace binade::kernels::cuda
