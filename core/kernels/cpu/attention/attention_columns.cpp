// Keys of which each query sees its own alone: a row of queries is a few dot products.
#include <binade/core/kernels/attention.h>

#include <cmath>
#include <limits>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

namespace {

constexpr int64_t kRowsPerTask = 16;

// Row (b, h, t) of an array (B, H, T, D).
std::byte* row_of(const Array& array, int64_t b, int64_t h, int64_t t) {
  const int64_t offset = b * array.stride(0) + h * array.stride(1) + t * array.stride(2);
  return static_cast<std::byte*>(array.data()) + offset * size_of(array.dtype());
}

template <class T>
void load(const Array& array, int64_t b, int64_t h, int64_t t, T* row) {
  load_row(row_of(array, b, h, t), array.dtype(), array.stride(3), array.size(3), row);
}
template <class T>
void store(const T* row, const Array& array, int64_t b, int64_t h, int64_t t) {
  store_row(row, array.size(3), row_of(array, b, h, t), array.dtype(), array.stride(3));
}

// Element (b, h, t) of a contiguous array (B, H, T) of T.
template <class T>
T& number(const Array& array, int64_t b, int64_t h, int64_t t) {
  return static_cast<T*>(array.data())[(b * array.size(1) + h) * array.size(2) + t];
}

template <class T>
T dot(const T* a, const T* b, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < count; ++d) sum += a[d] * b[d];
  return sum;
}

template <class T>
void add(T factor, const T* x, int64_t count, T* sum) {
#pragma omp simd
  for (int64_t d = 0; d < count; ++d) sum[d] += factor * x[d];
}

// body(b, h, t) for every row of `heads` heads.
template <class Body>
void for_each_row(int64_t batch, int64_t heads, int64_t rows, const Body& body) {
  parallel_for(batch * heads * rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / rows / heads, i / rows % heads, i % rows);
  });
}

template <class T>
void attend(const Array& q, const AttentionColumns& columns, T scale, const Array& out,
            const Array& logsumexp) {
  const int64_t dim = q.size(3), group = q.size(1) / columns.keys[0].size(1);
  for_each_row(q.size(0), q.size(1), q.size(2), [&](int64_t b, int64_t h, int64_t t) {
    thread_local Workspace<T> query_row, sum_row, row;
    T *query = query_row.reserve(dim), *sum = sum_row.reserve(dim), *line = row.reserve(dim);
    T scores[kMostAttentionColumns];
    T& lse = number<T>(logsumexp, b, h, t);
    T largest = lse;
    load(q, b, h, t, query);
    for (size_t c = 0; c < columns.keys.size(); ++c) {
      load(columns.keys[c], b, h / group, t, line);
      scores[c] = scale * dot(query, line, dim);
      largest = std::max(largest, scores[c]);
    }
    T total = std::exp(lse - largest);
    load(out, b, h, t, sum);
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) sum[d] *= total;
    for (size_t c = 0; c < columns.keys.size(); ++c) {
      const T weight = std::exp(scores[c] - largest);
      load(columns.values[c], b, h / group, t, line);
      add(weight, line, dim, sum);
      total += weight;
    }
    const T share = T(1) / total;
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) sum[d] *= share;
    store(sum, out, b, h, t);
    lse = largest + std::log(total);
  });
}

template <class T>
void differentiate(const Array& q, const AttentionColumns& columns, T scale, const Array& logsumexp,
                   const Array& inner, const Array& dout, const Array& dq,
                   const AttentionColumns& gradients) {
  const int64_t dim = q.size(3), key_heads = columns.keys[0].size(1), group = q.size(1) / key_heads;
  for_each_row(q.size(0), key_heads, q.size(2), [&](int64_t b, int64_t key_head, int64_t t) {
    thread_local Workspace<T> query_rows, dout_rows, dq_rows, rows;
    T *query = query_rows.reserve(group * dim), *dy = dout_rows.reserve(group * dim),
      *sum = dq_rows.reserve(group * dim), *key = rows.reserve(4 * dim);
    T *value = key + dim, *dkey = value + dim, *dvalue = dkey + dim;
    for (int64_t g = 0; g < group; ++g) {
      load(q, b, key_head * group + g, t, query + g * dim);
      load(dout, b, key_head * group + g, t, dy + g * dim);
      load(dq, b, key_head * group + g, t, sum + g * dim);
    }
    for (size_t c = 0; c < columns.keys.size(); ++c) {
      load(columns.keys[c], b, key_head, t, key);
      load(columns.values[c], b, key_head, t, value);
      std::fill_n(dkey, 2 * dim, T(0));
      for (int64_t g = 0; g < group; ++g) {
        const int64_t h = key_head * group + g;
        const T score = scale * dot(query + g * dim, key, dim);
        const T p = std::exp(score - number<T>(logsumexp, b, h, t));
        const T ds = scale * p * (dot(dy + g * dim, value, dim) - number<T>(inner, b, h, t));
        add(ds, key, dim, sum + g * dim);
        add(ds, query + g * dim, dim, dkey);
        add(p, dy + g * dim, dim, dvalue);
      }
      store(dkey, gradients.keys[c], b, key_head, t);
      store(dvalue, gradients.values[c], b, key_head, t);
    }
    for (int64_t g = 0; g < group; ++g) store(sum + g * dim, dq, b, key_head * group + g, t);
  });
}

template <class T>
void inner_products(const Array& out, const Array& dout, const Array& inner) {
  const int64_t dim = out.size(3);
  for_each_row(out.size(0), out.size(1), out.size(2), [&](int64_t b, int64_t h, int64_t t) {
    thread_local Workspace<T> rows;
    T *y = rows.reserve(2 * dim), *dy = y + dim;
    load(out, b, h, t, y);
    load(dout, b, h, t, dy);
    number<T>(inner, b, h, t) = dot(y, dy, dim);
  });
}

}  // namespace

void attend_columns(const Array& q, const AttentionColumns& columns, double scale, const Array& out,
                    const Array& logsumexp) {
  if (q.dtype() == DType::f64)
    attend<double>(q, columns, scale, out, logsumexp);
  else
    attend<float>(q, columns, static_cast<float>(scale), out, logsumexp);
}

void attention_inner(const Array& out, const Array& dout, const Array& inner) {
  if (out.dtype() == DType::f64)
    inner_products<double>(out, dout, inner);
  else
    inner_products<float>(out, dout, inner);
}

void attend_columns_backward(const Array& q, const AttentionColumns& columns, double scale,
                             const Array& logsumexp, const Array& inner, const Array& dout,
                             const Array& dq, const AttentionColumns& gradients) {
  if (q.dtype() == DType::f64)
    differentiate<double>(q, columns, scale, logsumexp, inner, dout, dq, gradients);
  else
    differentiate<float>(q, columns, static_cast<float>(scale), logsumexp, inner, dout, dq,
                         gradients);
}

}  // namespace binade::kernels::cpu
