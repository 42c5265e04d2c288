#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

namespace {

// Turns the pairs (row[i], row[i + count]) by their angles; `sign` −1 turns backward.
template <class T>
void rotate(T* row, const float* cos, const float* sin, T sign, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T a = row[i], b = row[i + count];
    const T c = static_cast<T>(cos[i]), s = sign * static_cast<T>(sin[i]);
    row[i] = a * c - b * s;
    row[i + count] = b * c + a * s;
  }
}

template <class T>
void rotate_all(const Array& x, const Array& cos, const Array& sin, bool inverse,
                const Array& out) {
  constexpr int64_t kRowsPerTask = 64;
  const int64_t heads = x.size(1), positions = x.size(2), dim = x.size(3), pairs = cos.size(1);
  const float *cosines = cos.data<float>(), *sines = sin.data<float>();
  const auto row_of = [](const Array& array, int64_t batch, int64_t head, int64_t position) {
    const int64_t offset =
        batch * array.stride(0) + head * array.stride(1) + position * array.stride(2);
    return static_cast<std::byte*>(array.data()) + offset * size_of(array.dtype());
  };
  parallel_for(x.size(0) * heads * positions, kRowsPerTask, [&](int64_t begin, int64_t end) {
    thread_local Workspace<T> buffer;
    T* row = buffer.reserve(dim);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / positions / heads, head = i / positions % heads;
      const int64_t position = i % positions;
      load_row(row_of(x, batch, head, position), x.dtype(), x.stride(3), dim, row);
      rotate(row, cosines + position * pairs, sines + position * pairs, inverse ? T(-1) : T(1),
             pairs);
      store_row(row, dim, row_of(out, batch, head, position), out.dtype(), out.stride(3));
    }
  });
}

}  // namespace

void rope(const Array& x, const Array& cos, const Array& sin, bool inverse, const Array& out) {
  if (x.dtype() == DType::f64)
    rotate_all<double>(x, cos, sin, inverse, out);
  else
    rotate_all<float>(x, cos, sin, inverse, out);
}

}  // namespace binade::kernels::cpu
