// Norms over channels. A block takes a chunk of a channel that its threads hold in registers, so
// that the mean and then the squared deviations from it cost one read; a second kernel joins the
// chunks of a channel (Chan et al. 1979), a third one writes. Every sum has one order, by the shape
// alone.
#include <binade/core/kernels/norm.h>

#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kHeld = 8;                    // items that a thread holds
constexpr int64_t kChunk = kBlock * kHeld;  // items of a block

// A per-channel vector of runtime dtype; null: not there.
struct PerChannel {
  void* data = nullptr;
  DType dtype = DType::f32;

  PerChannel() = default;
  PerChannel(const Array& array) {
    if (!array.defined()) return;
    data = device_pointer(array);
    dtype = array.dtype();
  }
  template <class C>
  __device__ C at(int64_t channel) const {
    return load_as<C>(data, channel, dtype);
  }
  template <class C>
  __device__ void set(int64_t channel, C value) const {
    store_as(data, channel, dtype, value);
  }
};

// The images of a batch as their channels see them, in items of `vec` neighbours of a plane.
struct ChannelShape {
  int64_t channels, plane, count;  // channels, items of H·W, items of N·H·W
  int64_t chunks;                  // of a channel
  int vec;
  FastDivisor by_plane, by_channels;
  bool narrow;  // all items are few enough for the fast division

  ChannelShape(const Array& x, int widest, bool aligned)
      : channels(x.size(1)), plane(x.numel() / (x.size(0) * x.size(1))), vec(1) {
    if (aligned && plane % widest == 0) vec = widest;
    plane /= vec;
    count = x.size(0) * plane;
    check(count <= INT32_MAX, "batch_norm: ", x.shape(), " has too many values a channel");
    chunks = ceil_div(count, kChunk);
    by_plane = FastDivisor::of(plane);
    by_channels = FastDivisor::of(channels);
    narrow = count * channels <= INT32_MAX;
  }
  double values() const { return static_cast<double>(count) * vec; }

  static __device__ __forceinline__ uint32_t divide(uint32_t n, FastDivisor divisor) {
    return (__umulhi(n, divisor.multiplier) + n) >> divisor.shift;
  }
  // Where item `e` of a channel begins.
  __device__ __forceinline__ int64_t offset(int64_t channel, int64_t e) const {
    const uint32_t image = divide(static_cast<uint32_t>(e), by_plane);
    return ((image * channels + channel) * plane + (e - image * plane)) * vec;
  }
  // The channel of item `item` of the whole batch.
  __device__ __forceinline__ int64_t channel_of(int64_t item) const {
    if (!narrow) return item / plane % channels;
    const uint32_t all = divide(static_cast<uint32_t>(item), by_plane);
    return all - divide(all, by_channels) * static_cast<uint32_t>(channels);
  }
};

// How many numbers, their mean, and the sum of their squared deviations from it.
template <class C>
struct Moments {
  C count, mean, squares;
};
template <class C>
struct JoinMoments {
  __device__ Moments<C> operator()(const Moments<C>& a, const Moments<C>& b) const {
    const C count = a.count + b.count;
    if (count == C(0)) return a;
    const C way = b.mean - a.mean;
    return {count, a.mean + way * (b.count / count),
            a.squares + b.squares + way * way * (a.count * b.count / count)};
  }
};

template <class C>
struct TwoSums {
  C first, second;
};
template <class C>
struct AddSums {
  __device__ TwoSums<C> operator()(const TwoSums<C>& a, const TwoSums<C>& b) const {
    return {a.first + b.first, a.second + b.second};
  }
};

// Block channel · chunks + chunk.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    chunk_moments(const ChannelShape shape, const T* x, Moments<ComputeOf<T>>* chunks) {
  using C = ComputeOf<T>;
  const int64_t channel = blockIdx.x / shape.chunks;
  const int64_t begin = (blockIdx.x - channel * shape.chunks) * kChunk;
  const int64_t first = begin + threadIdx.x;
  Vec<T, kVec> held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t e = first + k * kBlock;
    if (e < shape.count) held[k] = load_vec<kVec>(x + shape.offset(channel, e));
  }
  const auto sum_of = [&](const auto& term) {
    C sum = 0;
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (first + k * kBlock >= shape.count) break;
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum += term(widen(held[k][i]));
    }
    return block_reduce<kBlock>(sum, Sum(), C(0));
  };
  const int64_t items = min(kChunk, shape.count - begin);
  const C count = static_cast<C>(items * kVec);
  const C rounded = sum_of([](C v) { return v; }) / count;
  // What the sum's rounding left of the deviations is taken out of the mean: in a constant channel
  // 1/√eps would make something of it.
  const C left = sum_of([=](C v) { return v - rounded; }) / count;
  const C mean = rounded + left;
  const C squares = sum_of([=](C v) { return (v - mean) * (v - mean); });
  if (threadIdx.x == 0) chunks[blockIdx.x] = {count, mean, squares};
}

// What all channels share beside their chunks.
template <class C>
struct Running {
  C eps, momentum;
  PerChannel mean, variance;  // may not be there
};

// A block a channel.
template <class C>
__global__ void __launch_bounds__(kBlock)
    finish_moments(const ChannelShape shape, const Moments<C>* chunks, const Running<C> running,
                   PerChannel saved_mean, PerChannel saved_rstd) {
  const int64_t channel = blockIdx.x;
  Moments<C> all{0, 0, 0};
  for (int64_t i = threadIdx.x; i < shape.chunks; i += kBlock)
    all = JoinMoments<C>()(all, chunks[channel * shape.chunks + i]);
  all = block_reduce<kBlock>(all, JoinMoments<C>(), Moments<C>{0, 0, 0});
  if (threadIdx.x != 0) return;
  saved_mean.set(channel, all.mean);
  saved_rstd.set(channel, C(1) / sqrt(all.squares / all.count + running.eps));
  const auto move = [&](PerChannel to, C value) {
    if (to.data)
      to.set(channel, (C(1) - running.momentum) * to.at<C>(channel) + running.momentum * value);
  };
  move(running.mean, all.mean);
  move(running.variance, all.squares / (all.count > C(1) ? all.count - C(1) : C(1)));
}

// y = (x − center)·scale·factor + shift; factor may not be there.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    affine(const ChannelShape shape, const T* x, PerChannel center, PerChannel scale,
           PerChannel factor, PerChannel shift, T* y) {
  using C = ComputeOf<T>;
  const int64_t items = shape.count * shape.channels, step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < items; item += step) {
    const int64_t channel = shape.channel_of(item);
    const C middle = center.at<C>(channel), added = shift.at<C>(channel);
    const C by = factor.data ? scale.at<C>(channel) * factor.at<C>(channel) : scale.at<C>(channel);
    Vec<T, kVec> values = load_vec<kVec>(x + item * kVec);
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[i] = narrow<T>((widen(values[i]) - middle) * by + added);
    store_vec(y + item * kVec, values);
  }
}

// Σ dy and Σ dy·(x − mean) of a chunk. Block channel · chunks + chunk.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    chunk_sums(const ChannelShape shape, const T* dy, const T* x, PerChannel saved_mean,
               TwoSums<ComputeOf<T>>* chunks) {
  using C = ComputeOf<T>;
  const int64_t channel = blockIdx.x / shape.chunks;
  const C mean = saved_mean.at<C>(channel);
  const int64_t first = (blockIdx.x - channel * shape.chunks) * kChunk + threadIdx.x;
  TwoSums<C> sums{0, 0};
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t e = first + k * kBlock;
    if (e >= shape.count) break;
    const int64_t offset = shape.offset(channel, e);
    const Vec<T, kVec> gradients = load_vec<kVec>(dy + offset), values = load_vec<kVec>(x + offset);
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const C d = widen(gradients[i]);
      sums.first += d;
      sums.second += d * (widen(values[i]) - mean);
    }
  }
  sums = block_reduce<kBlock>(sums, AddSums<C>(), TwoSums<C>{0, 0});
  if (threadIdx.x == 0) chunks[blockIdx.x] = sums;
}

// dx = dy·slope − offset − (x − mean)·along: three vectors of one channel each.
struct GradientTerms {
  PerChannel slope, offset, along;
};

// The sums of a channel, and the terms that follow from them and `weight` in batch norm; a block a
// channel. values: how many a channel has.
template <class C>
__global__ void __launch_bounds__(kBlock)
    finish_sums(const ChannelShape shape, const TwoSums<C>* chunks, PerChannel weight,
                PerChannel saved_rstd, C values, PerChannel products, PerChannel sums,
                GradientTerms terms) {
  const int64_t channel = blockIdx.x;
  TwoSums<C> all{0, 0};
  for (int64_t i = threadIdx.x; i < shape.chunks; i += kBlock)
    all = AddSums<C>()(all, chunks[channel * shape.chunks + i]);
  all = block_reduce<kBlock>(all, AddSums<C>(), TwoSums<C>{0, 0});
  if (threadIdx.x != 0) return;
  const C rstd = saved_rstd.at<C>(channel);
  all.second *= rstd;  // once, not in every term
  if (products.data) products.set(channel, all.second);
  if (sums.data) sums.set(channel, all.first);
  if (!terms.slope.data) return;
  const C slope = weight.at<C>(channel) * rstd;
  terms.slope.set(channel, slope);
  terms.offset.set(channel, slope * (all.first / values));
  terms.along.set(channel, slope * rstd * (all.second / values));
}

template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    gradient(const ChannelShape shape, const T* dy, const T* x, PerChannel saved_mean,
             const GradientTerms terms, T* dx) {
  using C = ComputeOf<T>;
  const int64_t items = shape.count * shape.channels, step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < items; item += step) {
    const int64_t channel = shape.channel_of(item);
    const C mean = saved_mean.at<C>(channel), slope = terms.slope.at<C>(channel);
    const C offset = terms.offset.at<C>(channel), along = terms.along.at<C>(channel);
    const Vec<T, kVec> d = load_vec<kVec>(dy + item * kVec), v = load_vec<kVec>(x + item * kVec);
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      result[i] = narrow<T>(widen(d[i]) * slope - offset - (widen(v[i]) - mean) * along);
    store_vec(dx + item * kVec, result);
  }
}

bool is_aligned(const Array& array) {
  return !array.defined() || rows_aligned(array.data(), 0, 1);
}

template <class T>
void run_moments(const Array& x, const Running<ComputeOf<T>>& running, const Array& mean,
                 const Array& rstd) {
  using C = ComputeOf<T>;
  constexpr int kVec = kVecWidth<T>;
  const ChannelShape shape(x, kVec, is_aligned(x));
  const Workspace<Moments<C>> chunks(shape.channels * shape.chunks);
  launch("channel_moments", shape.vec == kVec ? chunk_moments<kVec, T> : chunk_moments<1, T>,
         one_block_each(shape.channels * shape.chunks), kBlock, 0, shape, device_data<const T>(x),
         chunks.data());
  launch("channel_moments", finish_moments<C>, one_block_each(shape.channels), kBlock, 0, shape,
         chunks.data(), running, PerChannel(mean), PerChannel(rstd));
}

template <class T>
void run_affine(const Array& x, const Array& center, const Array& scale, const Array& factor,
                const Array& shift, const Array& y) {
  constexpr int kVec = kVecWidth<T>;
  const ChannelShape shape(x, kVec, is_aligned(x) && is_aligned(y));
  launch("channel_affine", shape.vec == kVec ? affine<kVec, T> : affine<1, T>,
         grid_for(shape.count * shape.channels), kBlock, 0, shape, device_data<const T>(x),
         PerChannel(center), PerChannel(scale), PerChannel(factor), PerChannel(shift),
         device_data<T>(y));
}

// The sums, and the terms of batch norm's gradient if they are asked for.
template <class T>
void run_sums(const Array& dy, const Array& x, const Array& weight, const Array& mean,
              const Array& rstd, const Array& products, const Array& sums,
              const GradientTerms& terms) {
  using C = ComputeOf<T>;
  constexpr int kVec = kVecWidth<T>;
  const ChannelShape shape(x, kVec, is_aligned(x) && is_aligned(dy));
  const Workspace<TwoSums<C>> chunks(shape.channels * shape.chunks);
  launch("channel_sums", shape.vec == kVec ? chunk_sums<kVec, T> : chunk_sums<1, T>,
         one_block_each(shape.channels * shape.chunks), kBlock, 0, shape, device_data<const T>(dy),
         device_data<const T>(x), PerChannel(mean), chunks.data());
  launch("channel_sums", finish_sums<C>, one_block_each(shape.channels), kBlock, 0, shape,
         chunks.data(), PerChannel(weight), PerChannel(rstd), static_cast<C>(shape.values()),
         PerChannel(products), PerChannel(sums), terms);
}

template <class T>
void run_gradient(const Array& dy, const Array& x, const Array& mean, const GradientTerms& terms,
                  const Array& dx) {
  constexpr int kVec = kVecWidth<T>;
  const ChannelShape shape(x, kVec, is_aligned(x) && is_aligned(dy) && is_aligned(dx));
  launch("channel_gradient", shape.vec == kVec ? gradient<kVec, T> : gradient<1, T>,
         grid_for(shape.count * shape.channels), kBlock, 0, shape, device_data<const T>(dy),
         device_data<const T>(x), PerChannel(mean), terms, device_data<T>(dx));
}

}  // namespace

void channel_moments(const Array& x, double eps, const Array& mean, const Array& rstd) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "channel_moments", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    run_moments<T>(x, Running<C>{static_cast<C>(eps), C(0), {}, {}}, mean, rstd);
  });
}

void channel_affine(const Array& x, const Array& center, const Array& scale, const Array& shift,
                    const Array& y) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "channel_affine", [&](auto element) {
    run_affine<DeviceOf<decltype(element)>>(x, center, scale, {}, shift, y);
  });
}

void channel_sums(const Array& dy, const Array& x, const Array& mean, const Array& rstd,
                  const Array& products, const Array& sums) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "channel_sums", [&](auto element) {
    run_sums<DeviceOf<decltype(element)>>(dy, x, {}, mean, rstd, products, sums, {});
  });
}

void channel_gradient(const Array& dy, const Array& x, const Array& mean, const Array& slope,
                      const Array& offset, const Array& along, const Array& dx) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "channel_gradient", [&](auto element) {
    run_gradient<DeviceOf<decltype(element)>>(dy, x, mean, {slope, offset, along}, dx);
  });
}

void batch_norm(const Array& x, const Array& weight, const Array& bias, double eps, double momentum,
                const Array& running_mean, const Array& running_var, const Array& y,
                const Array& mean, const Array& rstd) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "batch_norm", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const Running<C> running{static_cast<C>(eps), static_cast<C>(momentum), running_mean,
                             running_var};
    run_moments<T>(x, running, mean, rstd);
    run_affine<T>(x, mean, weight, rstd, bias, y);
  });
}

void batch_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, const Array& dweight,
                         const Array& dbias) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "batch_norm_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const auto vector = [&] { return Array::empty(mean.shape(), mean.dtype(), mean.device()); };
    const Array slope = vector(), offset = vector(), along = vector();
    const GradientTerms terms{slope, offset, along};
    run_sums<T>(dy, x, weight, mean, rstd, dweight, dbias, terms);
    if (dx.defined()) run_gradient<T>(dy, x, mean, terms, dx);
  });
}

}  // namespace binade::kernels::cuda
