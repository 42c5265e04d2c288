// Rotary position embedding: each thread turns a run of pairs, or copies a run of what is not
// turned.
#include <binade/core/kernels/attention.h>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct View {
  T* data;
  int64_t batch, head, time, dim;  // strides
};

template <class T>
struct Rope {
  View<const T> x;
  View<T> out;
  const float* cos;
  const float* sin;
  int64_t heads, times, pairs;
  int64_t chunks;  // of kRun pairs or tail elements, in a row
  int64_t total;   // chunks in all
  float sin_sign;  // −1 for the inverse
};

// kRun > 1 asks for contiguous, aligned runs in x, out, cos and sin.
template <class T, int kRun>
__global__ void __launch_bounds__(kBlock) rotate(Rope<T> a) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < a.total; item += step) {
    const int64_t row = item / a.chunks;
    const int64_t first = (item - row * a.chunks) * kRun;
    const int64_t time = row % a.times;
    const int64_t head = row / a.times % a.heads;
    const int64_t batch = row / a.times / a.heads;
    const T* x = a.x.data + batch * a.x.batch + head * a.x.head + time * a.x.time;
    T* out = a.out.data + batch * a.out.batch + head * a.out.head + time * a.out.time;
    C low[kRun], high[kRun], cos[kRun], sin[kRun];
    if (first >= a.pairs) {  // what is not turned
      const int64_t place = a.pairs + first;
      detail::load_run<kRun>(x + place * a.x.dim, low);
      detail::store_run<kRun>(out + place * a.out.dim, low);
      continue;
    }
    detail::load_run<kRun>(x + first * a.x.dim, low);
    detail::load_run<kRun>(x + (first + a.pairs) * a.x.dim, high);
    detail::load_run<kRun>(a.cos + time * a.pairs + first, cos);
    detail::load_run<kRun>(a.sin + time * a.pairs + first, sin);
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const C s = sin[j] * C(a.sin_sign), old = low[j];
      low[j] = old * cos[j] - high[j] * s;
      high[j] = high[j] * cos[j] + old * s;
    }
    detail::store_run<kRun>(out + first * a.out.dim, low);
    detail::store_run<kRun>(out + (first + a.pairs) * a.out.dim, high);
  }
}

// Whether every run of `run` elements along the last dimension is contiguous and aligned.
bool has_aligned_runs(const Array& x, int run) {
  const int64_t bytes = std::min<int64_t>(16, run * size_of(x.dtype()));
  bool aligned = x.stride(3) == 1;
  for (int dim = 0; dim < 3; ++dim)
    aligned = aligned && rows_aligned(x.data(), x.stride(dim), size_of(x.dtype()), bytes);
  return aligned;
}

}  // namespace

void rope(const Array& x, const Array& cos, const Array& sin, bool inverse, const Array& out) {
  visit_floating(x.dtype(), "rope", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kRun = kVecWidth<T>;
    const int64_t pairs = cos.size(1);
    const int64_t rows = x.size(0) * x.size(1) * x.size(2);
    const int64_t tail = x.data() == out.data() ? 0 : x.size(3) - 2 * pairs;
    const bool wide = pairs % kRun == 0 && tail % kRun == 0 && has_aligned_runs(x, kRun) &&
                      has_aligned_runs(out, kRun) && is_run_aligned(cos, kRun) &&
                      is_run_aligned(sin, kRun);
    const int64_t chunks = (pairs + tail) / (wide ? kRun : 1);
    const Rope<T> args{
        {device_data<const T>(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)},
        {device_data<T>(out), out.stride(0), out.stride(1), out.stride(2), out.stride(3)},
        device_data<const float>(cos),
        device_data<const float>(sin),
        x.size(1),
        x.size(2),
        pairs,
        chunks,
        rows * chunks,
        inverse ? -1.0f : 1.0f};
    launch("rope", wide ? rotate<T, kRun> : rotate<T, 1>, grid_for(args.total), kBlock, 0, args);
  });
}

}  // namespace binade::kernels::cuda
