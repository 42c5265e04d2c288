// The triangles of matrices.
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

struct Triangle {
  int64_t rows, columns, diagonal;
  bool lower;
  bool narrow;  // few enough elements for the fast division
  FastDivisor by_columns, by_rows;

  __device__ __forceinline__ int64_t divide(int64_t n, FastDivisor divisor, int64_t by) const {
    if (!narrow) return n / by;
    const auto value = static_cast<uint32_t>(n);
    return (__umulhi(value, divisor.multiplier) + value) >> divisor.shift;
  }
};

// Items in row-major order; T is as wide as an element, whatever the bits mean.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    triangle_kernel(const __grid_constant__ Layout layout, const Triangle triangle, const T* x,
                    T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[2];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    int64_t row = triangle.divide(item * kVec, triangle.by_columns, triangle.columns);
    const int64_t column = item * kVec - row * triangle.columns;
    row -= triangle.divide(row, triangle.by_rows, triangle.rows) * triangle.rows;
    Vec<T, kVec> result;
    if (column + kVec <= triangle.columns) {  // of one row: `limit` of its elements come first
      const int64_t border = row + triangle.diagonal + (triangle.lower ? 1 : 0);
      const int limit = static_cast<int>(min(max(border - column, int64_t{0}), int64_t{kVec}));
      const bool needed = triangle.lower ? limit > 0 : limit < kVec;
      if (needed) result = load_item<kVec>(layout, 1, x, offset[1], count);
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (!needed || (i < limit) != triangle.lower) result[i] = T(0);
    } else {
      result = load_item<kVec>(layout, 1, x, offset[1], count);
      int64_t at = column;
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        const int64_t place = at - row;
        const bool kept = triangle.lower ? place <= triangle.diagonal : place >= triangle.diagonal;
        if (!kept) result[i] = T(0);
        if (++at == triangle.columns) {
          at = 0;
          if (++row == triangle.rows) row = 0;
        }
      }
    }
    store_item(out, offset[0], count, result);
  }
}

template <class T>
void typed_triangle(const Array& x, const Triangle& triangle, const Array& out) {
  constexpr int kVec = 16 / static_cast<int>(sizeof(T));
  const Layout layout = make_layout({&out, &x}, kVec, Order::row_major);
  launch("triangle", layout.vec == kVec ? triangle_kernel<kVec, T> : triangle_kernel<1, T>,
         grid_for(layout.items), kBlock, 0, layout, triangle, device_data<T>(x),
         device_data<T>(out));
}

}  // namespace

void triangle(const Array& x, int64_t diagonal, bool lower, const Array& out) {
  if (out.numel() == 0) return;
  const Triangle parts{.rows = out.size(-2),
                       .columns = out.size(-1),
                       .diagonal = std::clamp(diagonal, -out.size(-2), out.size(-1)),
                       .lower = lower,
                       .narrow = out.numel() <= INT32_MAX,
                       .by_columns = FastDivisor::of(out.size(-1)),
                       .by_rows = FastDivisor::of(out.size(-2))};
  visit_bits(out.dtype(), [&]<class T>(T) { typed_triangle<T>(x, parts, out); });
}

}  // namespace binade::kernels::cuda
