#include <algorithm>
#include <limits>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/cpu/common/parallel.h>

namespace binade::kernels::cpu {

namespace {

// Positions [begin, end) of one dimension that a window covers, padding left out.
struct Range {
  int64_t begin, end;
};
Range window(int64_t position, int64_t kernel, int64_t stride, int64_t padding, int64_t size) {
  const int64_t start = position * stride - padding;
  return {std::max<int64_t>(start, 0), std::min(start + kernel, size)};
}

// The (H, W) planes of an (N, C, H, W) array.
struct Planes {
  explicit Planes(const Array& array)
      : count(array.size(0) * array.size(1)),
        height(array.size(2)),
        width(array.size(3)),
        dtype(array.dtype()),
        data(static_cast<std::byte*>(array.data())) {}

  int64_t size() const { return height * width; }
  template <class T>
  void load(int64_t plane, T* values) const {
    load_row(data + plane * size() * size_of(dtype), dtype, 1, size(), values);
  }
  template <class T>
  void store(int64_t plane, const T* values) const {
    store_row(values, size(), data + plane * size() * size_of(dtype), dtype, 1);
  }

  int64_t count, height, width;
  DType dtype;
  std::byte* data;
};

// Calls body(output position, rows, columns) for every window.
template <class Body>
void for_each_window(const PoolParams& params, const Planes& x, const Planes& y, const Body& body) {
  for (int64_t h = 0; h < y.height; ++h) {
    const Range rows = window(h, params.kernel_h, params.stride_h, params.padding_h, x.height);
    for (int64_t w = 0; w < y.width; ++w)
      body(h * y.width + w, rows,
           window(w, params.kernel_w, params.stride_w, params.padding_w, x.width));
  }
}

// Calls body(plane, x values, y values) with buffers of the compute type for every plane.
template <class T, class Body>
void for_each_plane(const Planes& x, const Planes& y, const Body& body) {
  constexpr int64_t kGrain = 1 << 14;  // elements of x a task reads
  parallel_for(x.count, kGrain / std::max<int64_t>(x.size(), 1), [&](int64_t begin, int64_t end) {
    thread_local Workspace<T> x_plane, y_plane;
    T* const x_values = x_plane.reserve(x.size());
    T* const y_values = y_plane.reserve(y.size());
    for (int64_t plane = begin; plane < end; ++plane) body(plane, x_values, y_values);
  });
}

template <class Visitor>
void visit_compute_type(DType dtype, const char* op, Visitor&& visitor) {
  check(is_floating(dtype), op, " needs a floating-point dtype, got ", name_of(dtype));
  if (dtype == DType::f64) return visitor(double{});
  visitor(float{});
}

}  // namespace

void max_pool2d(const Array& x_array, const PoolParams& params, const Array& y_array,
                const Array& indices) {
  const Planes x(x_array), y(y_array);
  int32_t* const positions = indices.data<int32_t>();
  visit_compute_type(x.dtype, "max_pool2d", [&](auto zero) {
    using T = decltype(zero);
    for_each_plane<T>(x, y, [&](int64_t plane, T* from, T* to) {
      x.load(plane, from);
      for_each_window(params, x, y, [&](int64_t position, Range rows, Range columns) {
        T largest = -std::numeric_limits<T>::infinity();
        int64_t where = rows.begin * x.width + columns.begin;
        for (int64_t h = rows.begin; h < rows.end; ++h)
          for (int64_t w = columns.begin; w < columns.end; ++w) {
            const T value = from[h * x.width + w];
            if (value > largest || value != value) {  // NaN wins
              largest = value;
              where = h * x.width + w;
            }
          }
        to[position] = largest;
        positions[plane * y.size() + position] = static_cast<int32_t>(where);
      });
      y.store(plane, to);
    });
  });
}

void max_pool2d_backward(const Array& dy_array, const Array& indices, const PoolParams&,
                         const Array& dx_array) {
  const Planes dx(dx_array), dy(dy_array);
  const int32_t* const positions = indices.data<int32_t>();
  visit_compute_type(dx.dtype, "max_pool2d_backward", [&](auto zero) {
    using T = decltype(zero);
    for_each_plane<T>(dx, dy, [&](int64_t plane, T* to, T* from) {
      dy.load(plane, from);
      std::fill_n(to, dx.size(), T(0));
      for (int64_t i = 0; i < dy.size(); ++i) to[positions[plane * dy.size() + i]] += from[i];
      dx.store(plane, to);
    });
  });
}

void avg_pool2d(const Array& x_array, const PoolParams& params, const Array& y_array) {
  const Planes x(x_array), y(y_array);
  visit_compute_type(x.dtype, "avg_pool2d", [&](auto zero) {
    using T = decltype(zero);
    for_each_plane<T>(x, y, [&](int64_t plane, T* from, T* to) {
      x.load(plane, from);
      for_each_window(params, x, y, [&](int64_t position, Range rows, Range columns) {
        T sum = 0;
        for (int64_t h = rows.begin; h < rows.end; ++h)
          for (int64_t w = columns.begin; w < columns.end; ++w) sum += from[h * x.width + w];
        to[position] =
            sum / static_cast<T>((rows.end - rows.begin) * (columns.end - columns.begin));
      });
      y.store(plane, to);
    });
  });
}

void avg_pool2d_backward(const Array& dy_array, const PoolParams& params, const Array& dx_array) {
  const Planes dx(dx_array), dy(dy_array);
  visit_compute_type(dx.dtype, "avg_pool2d_backward", [&](auto zero) {
    using T = decltype(zero);
    for_each_plane<T>(dx, dy, [&](int64_t plane, T* to, T* from) {
      dy.load(plane, from);
      std::fill_n(to, dx.size(), T(0));
      for_each_window(params, dx, dy, [&](int64_t position, Range rows, Range columns) {
        const T share = from[position] /
                        static_cast<T>((rows.end - rows.begin) * (columns.end - columns.begin));
        for (int64_t h = rows.begin; h < rows.end; ++h)
          for (int64_t w = columns.begin; w < columns.end; ++w) to[h * dx.width + w] += share;
      });
      dx.store(plane, to);
    });
  });
}

}  // namespace binade::kernels::cpu
