// Keys of which each query sees its own alone. A warp takes a row; a lane has every 32nd element of
// it.
#include <binade/core/kernels/attention.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kShare = 8;  // elements of a lane: D ≤ 256
constexpr int kWarps = kBlock / kWarp;

// (B, H, T, D), the last dimension contiguous.
template <class T>
struct View {
  T* data;
  int64_t batch, head, time;  // strides

  __device__ T* row(int64_t b, int64_t h, int64_t t) const {
    return data + b * batch + h * head + t * time;
  }
};

template <class T>
View<T> view_of(const Array& x) {
  return {device_data<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
struct Columns {
  View<T> keys[kMostAttentionColumns], values[kMostAttentionColumns];
};

template <class T>
Columns<T> columns_of(const AttentionColumns& columns) {
  Columns<T> result{};
  for (size_t c = 0; c < columns.keys.size(); ++c) {
    result.keys[c] = view_of<T>(columns.keys[c]);
    result.values[c] = view_of<T>(columns.values[c]);
  }
  return result;
}

struct Sizes {
  int64_t rows;  // B · (query or key heads) · T
  int64_t heads, times;
  int dim, count, group;
};

// What a warp's rows are of.
struct Place {
  int64_t batch, head, time;
  __device__ Place(const Sizes& sizes, int64_t row)
      : batch(row / sizes.times / sizes.heads),
        head(row / sizes.times % sizes.heads),
        time(row % sizes.times) {}
  __device__ int64_t among(int64_t heads, int64_t h, int64_t times) const {
    return (batch * heads + h) * times + time;
  }
};

__device__ int64_t first_row() {
  return int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
}

// A lane's elements of a row; zeros behind its end.
template <class C>
struct Part {
  C value[kShare];

  __device__ Part() {
#pragma unroll
    for (int i = 0; i < kShare; ++i) value[i] = C(0);
  }
  template <class T>
  __device__ Part(const T* row, int dim) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int d = i * kWarp + static_cast<int>(threadIdx.x % kWarp);
      value[i] = d < dim ? widen(row[d]) : C(0);
    }
  }
  template <class T>
  __device__ void store(T* row, int dim) const {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int d = i * kWarp + static_cast<int>(threadIdx.x % kWarp);
      if (d < dim) row[d] = narrow<T>(value[i]);
    }
  }
  __device__ void add(C factor, const Part& other) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) value[i] += factor * other.value[i];
  }
  __device__ void scale(C factor) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) value[i] *= factor;
  }
  __device__ C dot(const Part& other) const {
    C sum = 0;
#pragma unroll
    for (int i = 0; i < kShare; ++i) sum += value[i] * other.value[i];
    return warp_reduce(sum, Sum());
  }
};

template <class T>
__global__ void __launch_bounds__(kBlock)
    attend(Sizes sizes, View<const T> q, Columns<const T> columns, ComputeOf<T> scale, View<T> out,
           ComputeOf<T>* logsumexp) {
  using C = ComputeOf<T>;
  for (int64_t row = first_row(); row < sizes.rows; row += int64_t{gridDim.x} * kWarps) {
    const Place at(sizes, row);
    const int64_t key_head = at.head / sizes.group;
    const Part<C> query(q.row(at.batch, at.head, at.time), sizes.dim);
    const C before = logsumexp[row];
    C largest = before, total = C(1);
    T* const target = out.row(at.batch, at.head, at.time);
    Part<C> sum(target, sizes.dim);
    for (int c = 0; c < sizes.count; ++c) {
      const Part<C> key(columns.keys[c].row(at.batch, key_head, at.time), sizes.dim);
      const C score = scale * query.dot(key);
      const C larger = score > largest ? score : largest;
      const C kept = exp(largest - larger), weight = exp(score - larger);
      sum.scale(kept);
      total = total * kept + weight;
      largest = larger;
      sum.add(weight, Part<C>(columns.values[c].row(at.batch, key_head, at.time), sizes.dim));
    }
    sum.scale(C(1) / total);
    sum.store(target, sizes.dim);
    if (threadIdx.x % kWarp == 0) logsumexp[row] = largest + log(total);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    differentiate(Sizes sizes, View<const T> q, Columns<const T> columns, ComputeOf<T> scale,
                  const ComputeOf<T>* logsumexp, const ComputeOf<T>* inner, View<const T> dout,
                  View<T> dq, Columns<T> gradients) {
  using C = ComputeOf<T>;
  for (int64_t row = first_row(); row < sizes.rows; row += int64_t{gridDim.x} * kWarps) {
    const Place at(sizes, row);
    for (int c = 0; c < sizes.count; ++c) {
      const Part<C> key(columns.keys[c].row(at.batch, at.head, at.time), sizes.dim);
      const Part<C> value(columns.values[c].row(at.batch, at.head, at.time), sizes.dim);
      Part<C> dkey, dvalue;
      for (int g = 0; g < sizes.group; ++g) {
        const int64_t head = at.head * sizes.group + g;
        const int64_t place = at.among(sizes.heads * sizes.group, head, sizes.times);
        const Part<C> query(q.row(at.batch, head, at.time), sizes.dim);
        const Part<C> dy(dout.row(at.batch, head, at.time), sizes.dim);
        const C p = exp(scale * query.dot(key) - logsumexp[place]);
        const C ds = scale * p * (dy.dot(value) - inner[place]);
        dkey.add(ds, query);
        dvalue.add(p, dy);
      }
      dkey.store(gradients.keys[c].row(at.batch, at.head, at.time), sizes.dim);
      dvalue.store(gradients.values[c].row(at.batch, at.head, at.time), sizes.dim);
    }
    // Once more by query, so that its gradient is rounded once.
    for (int g = 0; g < sizes.group; ++g) {
      const int64_t head = at.head * sizes.group + g;
      const int64_t place = at.among(sizes.heads * sizes.group, head, sizes.times);
      const Part<C> query(q.row(at.batch, head, at.time), sizes.dim);
      const Part<C> dy(dout.row(at.batch, head, at.time), sizes.dim);
      T* const target = dq.row(at.batch, head, at.time);
      Part<C> sum(target, sizes.dim);
      for (int c = 0; c < sizes.count; ++c) {
        const Part<C> key(columns.keys[c].row(at.batch, at.head, at.time), sizes.dim);
        const Part<C> value(columns.values[c].row(at.batch, at.head, at.time), sizes.dim);
        const C p = exp(scale * query.dot(key) - logsumexp[place]);
        sum.add(scale * p * (dy.dot(value) - inner[place]), key);
      }
      sum.store(target, sizes.dim);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    inner_products(Sizes sizes, View<const T> out, View<const T> dout, ComputeOf<T>* inner) {
  using C = ComputeOf<T>;
  for (int64_t row = first_row(); row < sizes.rows; row += int64_t{gridDim.x} * kWarps) {
    const Place at(sizes, row);
    const C sum = Part<C>(out.row(at.batch, at.head, at.time), sizes.dim)
                      .dot(Part<C>(dout.row(at.batch, at.head, at.time), sizes.dim));
    if (threadIdx.x % kWarp == 0) inner[row] = sum;
  }
}

Sizes sizes_of(const Array& rows, size_t columns, int64_t group) {
  check(rows.size(3) <= kShare * kWarp, "attention's columns on a GPU have heads of up to ",
        kShare * kWarp, " elements, got ", rows.size(3));
  return {rows.size(0) * rows.size(1) * rows.size(2),
          rows.size(1),
          rows.size(2),
          static_cast<int>(rows.size(3)),
          static_cast<int>(columns),
          static_cast<int>(group)};
}

unsigned grid_of(const Sizes& sizes) {
  return grid_for(sizes.rows * kWarp);
}

}  // namespace

void attend_columns(const Array& q, const AttentionColumns& columns, double scale, const Array& out,
                    const Array& logsumexp) {
  visit_floating(q.dtype(), "attend_columns", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const Sizes sizes = sizes_of(q, columns.keys.size(), q.size(1) / columns.keys.front().size(1));
    launch("attend_columns", attend<T>, grid_of(sizes), kBlock, 0, sizes, view_of<const T>(q),
           columns_of<const T>(columns), static_cast<C>(scale), view_of<T>(out),
           device_data<C>(logsumexp));
  });
}

void attention_inner(const Array& out, const Array& dout, const Array& inner) {
  visit_floating(out.dtype(), "attention_inner", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const Sizes sizes = sizes_of(out, 0, 1);
    launch("attention_inner", inner_products<T>, grid_of(sizes), kBlock, 0, sizes,
           view_of<const T>(out), view_of<const T>(dout), device_data<ComputeOf<T>>(inner));
  });
}

void attend_columns_backward(const Array& q, const AttentionColumns& columns, double scale,
                             const Array& logsumexp, const Array& inner, const Array& dout,
                             const Array& dq, const AttentionColumns& gradients) {
  visit_floating(q.dtype(), "attend_columns_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const Sizes sizes = sizes_of(columns.keys.front(), columns.keys.size(),
                                 q.size(1) / columns.keys.front().size(1));
    launch("attend_columns_backward", differentiate<T>, grid_of(sizes), kBlock, 0, sizes,
           view_of<const T>(q), columns_of<const T>(columns), static_cast<C>(scale),
           device_data<const C>(logsumexp), device_data<const C>(inner), view_of<const T>(dout),
           view_of<T>(dq), columns_of<T>(gradients));
  });
}

}  // namespace binade::kernels::cuda
