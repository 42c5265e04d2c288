// Positions by several indices, by class and by order.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct FlatIndex {
  int64_t size, stride;
  bool accumulate;
  uint32_t* fault;
  __device__ bool reads_out() const { return accumulate; }
  __device__ __forceinline__ int64_t operator()(int64_t out, T index) const {
    const int64_t position = index < 0 ? index + size : index;
    if (position < 0 || position >= size) {
      note_fault(fault, DeviceFault::index_out_of_range);
      return kBadIndex;
    }
    if (!accumulate) return stride * position;
    return out == kBadIndex ? kBadIndex : out + stride * position;
  }
};

__global__ void __launch_bounds__(kBlock)
    one_hot_kernel(IndexReader index, int64_t index_stride, int64_t count, void* out, DType dtype) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t n = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; n < count; n += step) {
    const int64_t at = index.at(n * index_stride);
    if (at != kBadIndex) store_as(out, n * index.size + at, dtype, 1.0f);
  }
}

extern __shared__ uint64_t staged_list[];

// Element i of a staged list: steps of powers of two lie in different banks.
__host__ __device__ constexpr int64_t staged_place(int64_t i) {
  return i + i / kWarp;
}

// kStaged: all values are sought in one list, which a block keeps in shared memory.
template <bool kStaged, class T>
__global__ void __launch_bounds__(kBlock)
    searchsorted_kernel(const T* sorted, int64_t length, bool one_list, const T* values,
                        int64_t width, int64_t count, bool right, int64_t* out) {
  using Position = std::conditional_t<kStaged, int32_t, int64_t>;
  T* const staged = reinterpret_cast<T*>(staged_list);
  if constexpr (kStaged) {
    for (int i = threadIdx.x; i < length; i += kBlock) staged[staged_place(i)] = sorted[i];
    __syncthreads();
  }
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const T* list = kStaged ? staged : one_list ? sorted : sorted + i / width * length;
    const ComputeOf<T> value = widen(values[i]);
    Position begin = 0, end = static_cast<Position>(length);
    while (begin < end) {
      const Position middle = begin + (end - begin) / 2;
      const ComputeOf<T> element = widen(list[kStaged ? staged_place(middle) : middle]);
      const bool lies_before = right ? !(element > value) : !(element >= value);
      if (lies_before)
        begin = middle + 1;
      else
        end = middle;
    }
    out[i] = begin;
  }
}

}  // namespace

void flat_index(const Array& index, int64_t size, int64_t stride, const Array& out, float beta) {
  const auto run = [&]<class T>(T) {
    const FlatIndex<T> f{size, stride, beta != 0, ::binade::cuda::fault_word()};
    elementwise("flat_index", Operands<int64_t, T>(), f, f, out, index);
  };
  index.dtype() == DType::i64 ? run(int64_t{}) : run(int32_t{});
}

void one_hot(const Array& index, const Array& out) {
  if (out.numel() == 0) return;
  fill(out, 0);
  launch("one_hot", one_hot_kernel, grid_for(index.numel()), kBlock, 0,
         IndexReader(index, out.size(1)), index.stride(0), index.numel(), device_pointer(out),
         out.dtype());
}

void searchsorted(const Array& sorted, const Array& values, bool right, const Array& out) {
  if (out.numel() == 0) return;
  visit_all(values.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    constexpr size_t kMostBytes = 24 * 1024;  // of a list: as many blocks run as otherwise
    const bool one_list = sorted.size(0) == 1;
    const size_t bytes = static_cast<size_t>(staged_place(sorted.size(1)) + 1) * sizeof(T);
    const bool staged = one_list && bytes <= kMostBytes && out.numel() >= 16 * sorted.size(1);
    // Blocks that stage a list have many values each.
    const unsigned grid = grid_for(out.numel());
    launch("searchsorted", staged ? searchsorted_kernel<true, T> : searchsorted_kernel<false, T>,
           staged ? std::max(grid / 8, 1u) : grid, kBlock, staged ? bytes : 0,
           device_data<const T>(sorted), sorted.size(1), one_list, device_data<const T>(values),
           values.size(1), out.numel(), right, device_data<int64_t>(out));
  });
}

}  // namespace binade::kernels::cuda
