// Sorting: elements become unsigned keys of the same order, which a stable radix sort orders
// together with their positions; values are then fetched by position.
#include <binade/core/kernels/cuda/common/radix_sort.h>
#include <binade/core/kernels/sort.h>
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
using KeyOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

// Ascending like the elements; equal for both zeros; NaN above everything.
template <class T>
__device__ KeyOf<T> key_of(T element) {
  using Key = KeyOf<T>;
  constexpr Key kSign = Key(1) << (8 * sizeof(Key) - 1);
  const ComputeOf<T> x = widen(element);
  if constexpr (std::is_floating_point_v<ComputeOf<T>>) {
    if (x != x) return ~Key(0);
    if (x == 0) return kSign;
    Key bits;
    if constexpr (sizeof(Key) == 8)
      bits = static_cast<Key>(__double_as_longlong(x));
    else
      bits = __float_as_uint(x);
    return bits & kSign ? ~bits : bits | kSign;
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<Key>(x) ^ kSign;
  } else {
    return static_cast<Key>(x);
  }
}

// rows: x cut to its first element along the dimension.
template <class T>
__global__ void __launch_bounds__(kBlock)
    make_keys_kernel(const __grid_constant__ Layout rows, int64_t length, int64_t stride,
                     bool descending, const T* x, KeyOf<T>* keys, uint32_t* positions) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, count = rows.items * length;
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < count; e += step) {
    const int64_t row = e / length, i = e - row * length;
    int64_t offset[1];
    locate(rows, row, offset);
    const KeyOf<T> key = key_of(x[offset[0] + i * stride]);
    keys[e] = descending ? ~key : key;
    positions[e] = static_cast<uint32_t>(i);
  }
}

// rows: values, indices and x, cut to their first elements along the dimension.
template <class T>
__global__ void __launch_bounds__(kBlock)
    fetch_kernel(const __grid_constant__ Layout rows, int64_t length, int64_t kept,
                 int64_t values_stride, int64_t indices_stride, int64_t x_stride,
                 const uint32_t* positions, const T* x, T* values, int64_t* indices) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, count = rows.items * kept;
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < count; e += step) {
    const int64_t row = e / kept, i = e - row * kept;
    int64_t offset[3];
    locate(rows, row, offset);
    const int64_t position = positions[row * length + i];
    values[offset[0] + i * values_stride] = x[offset[2] + position * x_stride];
    indices[offset[1] + i * indices_stride] = position;
  }
}

// The first `kept` of each row in order.
void sort_rows(const Array& x, int dim, bool descending, int64_t kept, const Array& values,
               const Array& indices) {
  if (values.numel() == 0) return;
  const int64_t length = x.size(dim), count = x.numel();
  check(count <= INT32_MAX, "cannot sort an array of shape ", x.shape(),
        " at once on the GPU: more than 2^31 - 1 elements");
  const Array first_x = x.slice(dim, 0, 1);
  const Array first_values = values.slice(dim, 0, 1), first_indices = indices.slice(dim, 0, 1);
  // Both in row-major order, so that row r is the same everywhere.
  const Layout rows = make_layout({&first_x}, 1, Order::row_major);
  const Layout fetched =
      make_layout({&first_values, &first_indices, &first_x}, 1, Order::row_major);

  const Workspace<uint32_t> positions(count), sorted_positions(count);
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using Key = KeyOf<T>;
    constexpr int kBits = sizeof(T) == 1 ? 8 : 8 * static_cast<int>(sizeof(Key));
    const Workspace<Key> keys(count), sorted_keys(count);
    launch("sort_keys", make_keys_kernel<T>, grid_for(count), kBlock, 0, rows, length,
           x.stride(dim), descending, device_data<T>(x), keys.data(), positions.data());
    sort_pairs<Key>(keys.data(), sorted_keys.data(), positions.data(), sorted_positions.data(),
                    rows.items, length, kBits);
  });
  const auto fetch = [&]<class T>(T) {  // bits, whatever they mean
    launch("sort_fetch", fetch_kernel<T>, grid_for(fetched.items * kept), kBlock, 0, fetched,
           length, kept, values.stride(dim), indices.stride(dim), x.stride(dim),
           sorted_positions.data(), device_data<T>(x), device_data<T>(values),
           device_data<int64_t>(indices));
  };
  visit_bits(x.dtype(), fetch);
}

}  // namespace

void sort(const Array& x, int dim, bool descending, const Array& values, const Array& indices) {
  sort_rows(x, dim, descending, x.size(dim), values, indices);
}

void topk(const Array& x, int64_t k, int dim, const Array& values, const Array& indices,
          bool largest) {
  sort_rows(x, dim, largest, k, values, indices);
}

}  // namespace binade::kernels::cuda
