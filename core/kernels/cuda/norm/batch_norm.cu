// Batch norm: a block for each channel, so that every sum has one order.
#include <binade/core/kernels/norm.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kChannelBlock = 512;

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

// The images of a batch as their channels see them.
struct ChannelShape {
  int64_t channels, plane, count;  // channels, H·W, N·H·W

  explicit ChannelShape(const Array& x)
      : channels(x.size(1)), plane(x.size(2) * x.size(3)), count(x.size(0) * plane) {
    check(count <= INT32_MAX, "batch_norm takes up to 2^31 - 1 values of a channel, got ", count);
  }
  // Calls work(offset) for this thread's share of the block's channel.
  template <class Work>
  __device__ __forceinline__ void for_each(const Work& work) const {
    const unsigned size = static_cast<unsigned>(plane);
    for (unsigned e = threadIdx.x; e < count; e += kChannelBlock) {
      const unsigned image = e / size;
      work((image * channels + blockIdx.x) * plane + (e - image * size));
    }
  }
};

template <class C>
__device__ __forceinline__ C channel_sum(C value) {
  return block_reduce<kChannelBlock>(value, Sum(), C(0));
}

template <class T>
__global__ void __launch_bounds__(kChannelBlock)
    normalise(ChannelShape shape, const T* x, PerChannel weight, PerChannel bias, ComputeOf<T> eps,
              ComputeOf<T> momentum, PerChannel running_mean, PerChannel running_var, T* y,
              PerChannel saved_mean, PerChannel saved_rstd) {
  using C = ComputeOf<T>;
  const int64_t channel = blockIdx.x;
  const C count = static_cast<C>(shape.count);
  C sum = 0;
  shape.for_each([&](int64_t i) { sum += widen(x[i]); });
  const C rounded_mean = channel_sum(sum) / count;
  // What the sum's rounding left of the deviations is taken out of the mean: in a constant channel
  // 1/√eps would make something of it.
  C deviations = 0, squares = 0;
  shape.for_each([&](int64_t i) {
    const C deviation = widen(x[i]) - rounded_mean;
    deviations += deviation;
    squares += deviation * deviation;
  });
  deviations = channel_sum(deviations);
  squares = channel_sum(squares);
  const C mean = rounded_mean + deviations / count;
  squares -= deviations * (deviations / count);
  if (squares < C(0)) squares = C(0);
  const C rstd = C(1) / sqrt(squares / count + eps);
  const C scale = weight.at<C>(channel) * rstd, shift = bias.at<C>(channel);
  shape.for_each([&](int64_t i) { y[i] = narrow<T>((widen(x[i]) - mean) * scale + shift); });
  if (threadIdx.x != 0) return;
  saved_mean.set(channel, mean);
  saved_rstd.set(channel, rstd);
  const auto move = [&](PerChannel running, C value) {
    if (running.data)
      running.set(channel, (C(1) - momentum) * running.at<C>(channel) + momentum * value);
  };
  move(running_mean, mean);
  move(running_var, squares / (count > C(1) ? count - C(1) : C(1)));
}

template <class T>
__global__ void __launch_bounds__(kChannelBlock)
    normalise_backward(ChannelShape shape, const T* dy, const T* x, PerChannel weight,
                       PerChannel saved_mean, PerChannel saved_rstd, T* dx, PerChannel dweight,
                       PerChannel dbias) {
  using C = ComputeOf<T>;
  const int64_t channel = blockIdx.x;
  const C mean = saved_mean.at<C>(channel), rstd = saved_rstd.at<C>(channel);
  C sum = 0, product = 0;  // Σ dy, Σ dy · normalised x
  shape.for_each([&](int64_t i) {
    const C d = widen(dy[i]);
    sum += d;
    product += d * (widen(x[i]) - mean);
  });
  sum = channel_sum(sum);
  product = channel_sum(product) * rstd;  // once, not in every term
  if (threadIdx.x == 0) {
    if (dweight.data) dweight.set(channel, product);
    if (dbias.data) dbias.set(channel, sum);
  }
  if (!dx) return;
  const C count = static_cast<C>(shape.count);
  const C scale = weight.at<C>(channel) * rstd;
  const C mean_d = sum / count, mean_product = product / count;
  shape.for_each([&](int64_t i) {
    const C normed = (widen(x[i]) - mean) * rstd;
    dx[i] = narrow<T>(scale * (widen(dy[i]) - mean_d - normed * mean_product));
  });
}

}  // namespace

void batch_norm(const Array& x, const Array& weight, const Array& bias, double eps, double momentum,
                const Array& running_mean, const Array& running_var, const Array& y,
                const Array& mean, const Array& rstd) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "batch_norm", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    launch("batch_norm", normalise<T>, one_block_each(x.size(1)), kChannelBlock, 0, ChannelShape(x),
           device_data<T>(x), PerChannel(weight), PerChannel(bias), static_cast<C>(eps),
           static_cast<C>(momentum), PerChannel(running_mean), PerChannel(running_var),
           device_data<T>(y), PerChannel(mean), PerChannel(rstd));
  });
}

void batch_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, const Array& dweight,
                         const Array& dbias) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "batch_norm_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("batch_norm_backward", normalise_backward<T>, one_block_each(x.size(1)), kChannelBlock,
           0, ChannelShape(x), device_data<T>(dy), device_data<T>(x), PerChannel(weight),
           PerChannel(mean), PerChannel(rstd), dx.defined() ? device_data<T>(dx) : nullptr,
           PerChannel(dweight), PerChannel(dbias));
  });
}

}  // namespace binade::kernels::cuda
