// Gradients of products and of running products, a block a row (product_maps.cuh). A warp takes
// pieces of 32 vectors of a row. First each piece says what it makes of what is behind it; then
// these are joined; then each piece is read again, most of it from the cache, and written.
#include <binade/core/kernels/cuda/reduce/product_columns.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/warp_scan.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/reduce/product_maps.cuh>

namespace binade::kernels::cuda {

namespace {

struct Multiply {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a * b;
  }
};

// Map: Affine, or Scaling where dy is the last position's alone.
template <class Map, class T>
struct ProductRows {
  using C = ComputeOf<T>;
  const T *x, *dy;
  T* dx;
  const void* last;  // of each row the last position's dy, where that is all
  DType last_dtype;
  int64_t length, pieces;
  Map* maps;          // (rows, pieces)
  Around<C>* around;  // (rows, pieces)
};

// 16 bytes of x and, where maps take it, of dy. Beyond the row stands what changes nothing.
template <class Map, class T>
struct ProductVector {
  using C = ComputeOf<T>;
  static constexpr int kVec = kVecWidth<T>;
  Vec<T, kVec> x, dy;

  // whole: it lies in the row.
  __device__ __forceinline__ ProductVector(const T* x_row, const T* dy_row, int64_t start,
                                           int64_t length, bool whole) {
    if (whole) {
      x = load_vec<kVec>(x_row + start);
      if constexpr (Map::kTakesGradients) dy = load_vec<kVec>(dy_row + start);
    } else {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        x[i] = start + i < length ? x_row[start + i] : narrow<T>(C(1));
        if constexpr (Map::kTakesGradients)
          dy[i] = start + i < length ? dy_row[start + i] : narrow<T>(C(0));
      }
    }
  }
  __device__ __forceinline__ C factor(int i) const {
    return widen(x[i]);
  }
  __device__ __forceinline__ C given(int i) const {
    return Map::kTakesGradients ? widen(dy[i]) : C(0);
  }
  __device__ __forceinline__ Map map() const {
    Map all = Map::identity();
#pragma unroll
    for (int i = kVec - 1; i >= 0; --i) all = all.behind(factor(i), given(i));
    return all;
  }
};

// layout: dx, x and dy, cut to their first element along the dimension.
template <class Map, class T>
__global__ void __launch_bounds__(kBlock)
    product_gradient_kernel(const __grid_constant__ Layout layout, const ProductRows<Map, T> rows) {
  using C = ComputeOf<T>;
  using Vector = ProductVector<Map, T>;
  constexpr int kVec = kVecWidth<T>, kWarps = kBlock / kWarp;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int64_t offset[3];
  locate(layout, blockIdx.x, offset);
  const T* const x = rows.x + offset[1];
  const T* const dy = Map::kTakesGradients ? rows.dy + offset[2] : nullptr;
  Map* const maps = rows.maps + blockIdx.x * rows.pieces;
  Around<C>* const around = rows.around + blockIdx.x * rows.pieces;
  const int64_t whole_pieces = rows.length / (kWarp * kVec);

  constexpr int kAhead = 4;  // pieces whose loads do not wait for each other
  for (int64_t first = warp; first < rows.pieces; first += kWarps * kAhead) {
    Map map[kAhead];
    const auto read = [&](bool whole) {
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        map[k] =
            Vector(x, dy, ((first + k * kWarps) * kWarp + lane) * kVec, rows.length, whole).map();
    };
    first + (kAhead - 1) * kWarps < whole_pieces ? read(true) : read(false);
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
#pragma unroll
      for (int distance = 1; distance < kWarp; distance *= 2)
        map[k] = JoinMaps()(map[k], shuffle_down(map[k], distance));  // lane 0's is of all lanes
      const int64_t piece = first + k * kWarps;
      if (lane == 0 && piece < rows.pieces) maps[piece] = map[k];
    }
  }
  __syncthreads();
  if (warp == 0) {  // from the front
    C carry(1);
    for (int64_t first = 0; first < rows.pieces; first += kWarp) {
      const int64_t piece = first + lane;
      const C through = warp_scan(piece < rows.pieces ? maps[piece].slope : C(1), Multiply());
      const C before = shuffle_up(through, 1);
      if (piece < rows.pieces) around[piece].before = lane == 0 ? carry : carry * before;
      carry *= __shfl_sync(0xffffffffu, through, kWarp - 1);
    }
  } else if (warp == 1) {  // from the back
    C carry(0);
    if constexpr (!Map::kTakesGradients) carry = load_as<C>(rows.last, offset[2], rows.last_dtype);
    for (int64_t left = rows.pieces; left > 0; left -= kWarp) {
      const int64_t piece = left - kWarp + lane;
      const Map own = piece >= 0 ? maps[piece] : Map::identity();
      const C at = warp_scan_back(own, JoinMaps())(carry), behind = shuffle_down(at, 1);
      if (piece >= 0) around[piece].behind = lane == kWarp - 1 ? carry : behind;
      carry = __shfl_sync(0xffffffffu, at, 0);
    }
  }
  __syncthreads();
#pragma unroll 2
  for (int64_t piece = warp; piece < rows.pieces; piece += kWarps) {
    const int64_t start = (piece * kWarp + lane) * kVec;
    const Vector own(x, dy, start, rows.length, piece < whole_pieces);
    const auto [before_piece, behind_piece] = around[piece];
    const Map map = own.map();
    const C before_lane = shuffle_up(warp_scan(map.slope, Multiply()), 1);
    const C at = warp_scan_back(map, JoinMaps())(behind_piece), behind_lane = shuffle_down(at, 1);
    C u = lane == kWarp - 1 ? behind_piece : behind_lane, sums[kVec];
#pragma unroll
    for (int i = kVec - 1; i >= 0; --i) {
      sums[i] = own.given(i) + u;
      u = own.factor(i) * sums[i];
    }
    C before = lane == 0 ? before_piece : before_piece * before_lane;
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      result[i] = narrow<T>(before * sums[i]);
      before *= own.factor(i);
    }
    const int64_t left = rows.length - start;
    if (left > 0)
      store_item(rows.dx, offset[0] + start, static_cast<int>(min(left, int64_t{kVec})), result);
  }
}

bool has_vector_rows(const Array& array, int dim, int vec) {
  bool whole = array.stride(dim) == 1 && rows_aligned(array.data(), 0, 1);
  for (int d = 0; d < array.dims(); ++d)
    whole &= d == dim || array.size(d) == 1 || array.stride(d) % vec == 0;
  return whole;
}

// An array of this shape with rows of vectors along `dim`, not filled.
Array empty_vector_rows(const Array& like, int dim, int vec) {
  Shape shape = like.shape();
  const int last = shape.dims() - 1;
  std::swap(shape[dim], shape[last]);
  const int64_t length = shape[last];
  shape[last] = ceil_div(length, vec) * vec;
  return Array::empty(shape, like.dtype(), like.device())
      .slice(last, 0, length)
      .transpose(dim, last);
}

Array with_vector_rows(const Array& array, int dim, int vec) {
  if (has_vector_rows(array, dim, vec)) return array;
  const Array rows = empty_vector_rows(array, dim, vec);
  copy(array, rows);
  return rows;
}

// Map, of C: dy is as x, or of size 1 along `dim`, the last position's.
template <template <class> class MapOf>
void products_backward(const char* name, const Array& x_in, const Array& dy_in, int dim,
                       const Array& dx_in) {
  if (x_in.numel() == 0) return;
  visit_floating(x_in.dtype(), name, [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    using Map = MapOf<C>;
    constexpr int kVec = kVecWidth<T>;
    constexpr bool kOfLast = !Map::kTakesGradients;
    const bool direct = has_vector_rows(dx_in, dim, kVec);
    const Array x = with_vector_rows(x_in, dim, kVec),
                dy = kOfLast ? dy_in : with_vector_rows(dy_in, dim, kVec),
                dx = direct ? dx_in : empty_vector_rows(dx_in, dim, kVec);
    const int64_t length = x.size(dim), pieces = ceil_div(length, kWarp * kVec);
    const Array first_dx = dx.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1),
                first_dy = dy.slice(dim, 0, 1);
    const Layout layout = make_layout({&first_dx, &first_x, &first_dy}, 1);
    const Workspace<Map> maps(layout.items * pieces);
    const Workspace<Around<C>> around(layout.items * pieces);
    const ProductRows<Map, T> rows{device_data<T>(x),
                                   kOfLast ? nullptr : device_data<const T>(dy),
                                   device_data<T>(dx),
                                   kOfLast ? device_pointer(dy) : nullptr,
                                   dy.dtype(),
                                   length,
                                   pieces,
                                   maps.data(),
                                   around.data()};
    launch(name, product_gradient_kernel<Map, T>, one_block_each(layout.items), kBlock, 0, layout,
           rows);
    if (!direct) copy(dx, dx_in);
  });
}

}  // namespace

void cumprod_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  if (x.numel() > 0 && dx.stride(dim) != 1 && x.stride(dim) != 1)
    return cumprod_columns_backward(x, dy, dim, dx);
  products_backward<Affine>("cumprod_backward", x, dy, dim, dx);
}

void prod_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  products_backward<Scaling>("prod_backward", x, dy, dim, dx);
}

}  // namespace binade::kernels::cuda
