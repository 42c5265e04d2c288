#include <algorithm>
#include <limits>
#include <vector>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/image_rules.h>

namespace binade::kernels::cpu {

namespace {

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
  const PoolAxis rows = pool_rows(params, x.height, y.height);
  const PoolAxis columns = pool_columns(params, x.width, y.width);
  for (int64_t h = 0; h < y.height; ++h)
    for (int64_t w = 0; w < y.width; ++w)
      body(h * y.width + w, pool_window(rows, h), pool_window(columns, w));
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

// The samples of one dimension.
template <class T>
class Samples {
 public:
  Samples(const InterpolateParams& params, int64_t size, int64_t outputs) {
    for (int64_t o = 0; o < outputs; ++o)
      samples_.push_back(interpolation_sample<T>(params, o, size, outputs));
  }
  const Sample<T>& operator[](int64_t o) const { return samples_[static_cast<size_t>(o)]; }

 private:
  std::vector<Sample<T>> samples_;
};

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
      for_each_window(params, x, y,
                      [&](int64_t position, const PoolWindow& rows, const PoolWindow& columns) {
                        T largest = -std::numeric_limits<T>::infinity();
                        int64_t where = pool_first(rows, columns, x.width);
                        for (int64_t h = rows.begin; h < rows.end; h += rows.step)
                          for (int64_t w = columns.begin; w < columns.end; w += columns.step) {
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
      for (int64_t i = 0; i < dy.size(); ++i)
        if (const int32_t at = positions[plane * dy.size() + i]; at >= 0) to[at] += from[i];
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
      for_each_window(
          params, x, y, [&](int64_t position, const PoolWindow& rows, const PoolWindow& columns) {
            T sum = 0;
            for (int64_t h = rows.begin; h < rows.end; ++h)
              for (int64_t w = columns.begin; w < columns.end; ++w) sum += from[h * x.width + w];
            to[position] = sum / static_cast<T>(pool_divisor(rows, columns, params.count_padding));
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
      for_each_window(
          params, dx, dy, [&](int64_t position, const PoolWindow& rows, const PoolWindow& columns) {
            const T share =
                from[position] / static_cast<T>(pool_divisor(rows, columns, params.count_padding));
            for (int64_t h = rows.begin; h < rows.end; ++h)
              for (int64_t w = columns.begin; w < columns.end; ++w) to[h * dx.width + w] += share;
          });
      dx.store(plane, to);
    });
  });
}

void interpolate(const Array& x_array, const InterpolateParams& params, const Array& y_array) {
  const Planes x(x_array), y(y_array);
  visit_compute_type(x.dtype, "interpolate", [&](auto zero) {
    using T = decltype(zero);
    const Samples<T> rows(params, x.height, y.height), columns(params, x.width, y.width);
    for_each_plane<T>(x, y, [&](int64_t plane, T* from, T* to) {
      x.load(plane, from);
      for (int64_t h = 0; h < y.height; ++h) {
        const Sample<T>& row = rows[h];
        const T *high = from + row.at * x.width, *low = from + row.next * x.width;
        for (int64_t w = 0; w < y.width; ++w) {
          const Sample<T>& column = columns[w];
          to[h * y.width + w] = row.blend(column.blend(high[column.at], high[column.next]),
                                          column.blend(low[column.at], low[column.next]));
        }
      }
      y.store(plane, to);
    });
  });
}

void interpolate_backward(const Array& dy_array, const InterpolateParams& params,
                          const Array& dx_array) {
  const Planes dx(dx_array), dy(dy_array);
  visit_compute_type(dx.dtype, "interpolate_backward", [&](auto zero) {
    using T = decltype(zero);
    const Samples<T> rows(params, dx.height, dy.height), columns(params, dx.width, dy.width);
    for_each_plane<T>(dx, dy, [&](int64_t plane, T* to, T* from) {
      dy.load(plane, from);
      std::fill_n(to, dx.size(), T(0));
      for (int64_t h = 0; h < dy.height; ++h) {
        const auto& [above, below, upper, lower] = rows[h];
        T *high = to + above * dx.width, *low = to + below * dx.width;
        for (int64_t w = 0; w < dy.width; ++w) {
          const auto& [left, right, near, far] = columns[w];
          const auto add = [given = from[h * dy.width + w]](T& sum, T down, T across) {
            if (down != T(0) && across != T(0)) sum += given * down * across;
          };
          add(high[left], upper, near);
          add(high[right], upper, far);
          add(low[left], lower, near);
          add(low[right], lower, far);
        }
      }
      dx.store(plane, to);
    });
  });
}

}  // namespace binade::kernels::cpu
