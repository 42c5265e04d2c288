#include <binade/core/kernels/cuda/common/radix_sort.h>

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_segmented_radix_sort.cuh>

#include <binade/core/kernels/cuda/common/launch.cuh>

namespace binade::kernels::cuda {

namespace {

struct Times {
  int64_t length;
  __host__ __device__ int64_t operator()(int64_t segment) const { return segment * length; }
};

}  // namespace

template <class Key>
void sort_pairs(const Key* keys, Key* sorted_keys, const uint32_t* values, uint32_t* sorted_values,
                int64_t segments, int64_t length, int bits) {
  const int64_t count = segments * length;
  if (count == 0) return;
  check(count <= INT32_MAX, "cannot sort ", count,
        " elements at once on the GPU; at most 2^31 - 1");
  const auto starts =
      thrust::make_transform_iterator(thrust::make_counting_iterator(int64_t{0}), Times{length});
  const cudaStream_t stream = ::binade::cuda::current_stream();
  const auto sort = [&](void* scratch, size_t& bytes) {
    return segments == 1 ? cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys,
                                                           values, sorted_values,
                                                           static_cast<int>(count), 0, bits, stream)
                         : cub::DeviceSegmentedRadixSort::SortPairs(
                               scratch, bytes, keys, sorted_keys, values, sorted_values,
                               static_cast<int>(count), static_cast<int>(segments), starts,
                               starts + 1, 0, bits, stream);
  };
  size_t bytes = 0;
  ::binade::cuda::check_cuda(sort(nullptr, bytes), "size of a radix sort");
  const Workspace<uint8_t> scratch(static_cast<int64_t>(bytes));
  ::binade::cuda::check_cuda(sort(scratch.data(), bytes), "radix sort");
}

template void sort_pairs(const uint32_t*, uint32_t*, const uint32_t*, uint32_t*, int64_t, int64_t,
                         int);
template void sort_pairs(const uint64_t*, uint64_t*, const uint32_t*, uint32_t*, int64_t, int64_t,
                         int);

}  // namespace binade::kernels::cuda
