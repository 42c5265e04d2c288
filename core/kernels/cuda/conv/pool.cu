// Pooling and interpolation: a thread for each output forward, and one for each input backward,
// which gathers from the windows that cover it in a fixed order (no atomics).
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/image_rules.h>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

struct PoolShape {
  int64_t height, width, out_height, out_width;
  int64_t inputs, outputs;  // elements in all
  PoolParams params;
  __device__ PoolAxis rows() const { return pool_rows(params, height, out_height); }
  __device__ PoolAxis columns() const { return pool_columns(params, width, out_width); }
};

PoolShape shape_of(const Array& x, const Array& y, const PoolParams& params) {
  return {x.size(2), x.size(3), y.size(2), y.size(3), x.numel(), y.numel(), params};
}

// Calls work(y index, plane, window over rows, window over columns) for each output.
template <class Work>
__device__ __forceinline__ void for_each_output(const PoolShape& shape, const Work& work) {
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < shape.outputs; i += step) {
    const int64_t row = i / shape.out_width;
    const int64_t plane = row / shape.out_height;
    work(i, plane, pool_window(shape.rows(), row - plane * shape.out_height),
         pool_window(shape.columns(), i - row * shape.out_width));
  }
}

// dx[i] = Σ gradient(y index, position in the plane) over the outputs that cover input i.
template <class T, class Gradient>
__device__ __forceinline__ void gather(const PoolShape& shape, T* dx, const Gradient& gradient) {
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < shape.inputs; i += step) {
    const int64_t row = i / shape.width;
    const int64_t plane = row / shape.height;
    const int64_t h = row - plane * shape.height, w = i - row * shape.width;
    const PoolCover rows = pool_cover(shape.rows(), h);
    const PoolCover cols = pool_cover(shape.columns(), w);
    ComputeOf<T> sum = 0;
    for (int64_t oh = rows.begin; oh < rows.end; ++oh)
      for (int64_t ow = cols.begin; ow < cols.end; ++ow)
        sum += gradient((plane * shape.out_height + oh) * shape.out_width + ow, oh, ow,
                        h * shape.width + w);
    dx[i] = narrow<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    max_forward(PoolShape shape, const T* x, T* y, int32_t* indices) {
  for_each_output(shape,
                  [&](int64_t i, int64_t plane, const PoolWindow& rows, const PoolWindow& cols) {
                    const T* image = x + plane * shape.height * shape.width;
                    int64_t best = pool_first(rows, cols, shape.width);
                    ComputeOf<T> largest = -static_cast<ComputeOf<T>>(INFINITY);
                    for (int64_t h = rows.begin; h < rows.end; h += rows.step) {
                      for (int64_t w = cols.begin; w < cols.end; w += cols.step) {
                        const ComputeOf<T> value = widen(image[h * shape.width + w]);
                        if (value > largest || value != value) {  // NaN wins
                          largest = value;
                          best = h * shape.width + w;
                        }
                      }
                    }
                    y[i] = narrow<T>(largest);
                    indices[i] = static_cast<int32_t>(best);
                  });
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    max_backward(PoolShape shape, const T* dy, const int32_t* indices, T* dx) {
  using C = ComputeOf<T>;
  gather(shape, dx, [&](int64_t y, int64_t, int64_t, int64_t place) {
    return indices[y] == place ? widen(dy[y]) : C(0);
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock) mean_forward(PoolShape shape, const T* x, T* y) {
  using C = ComputeOf<T>;
  for_each_output(shape, [&](int64_t i, int64_t plane, const PoolWindow& rows,
                             const PoolWindow& cols) {
    const T* image = x + plane * shape.height * shape.width;
    C sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h)
      for (int64_t w = cols.begin; w < cols.end; ++w) sum += widen(image[h * shape.width + w]);
    y[i] = narrow<T>(sum / static_cast<C>(pool_divisor(rows, cols, shape.params.count_padding)));
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock) mean_backward(PoolShape shape, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  gather(shape, dx, [&](int64_t y, int64_t oh, int64_t ow, int64_t) {
    return widen(dy[y]) / static_cast<C>(pool_divisor(pool_window(shape.rows(), oh),
                                                      pool_window(shape.columns(), ow),
                                                      shape.params.count_padding));
  });
}

struct ImageSizes {
  int64_t height, width, out_height, out_width;
};

template <class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_forward(const ImageSizes sizes, const InterpolateParams params, int64_t outputs,
                        const T* x, T* y) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < outputs; i += step) {
    const int64_t row = i / sizes.out_width, plane = row / sizes.out_height;
    const auto rows = interpolation_sample<C>(params, row - plane * sizes.out_height, sizes.height,
                                              sizes.out_height);
    const auto cols =
        interpolation_sample<C>(params, i - row * sizes.out_width, sizes.width, sizes.out_width);
    const T* image = x + plane * sizes.height * sizes.width;
    const T *high = image + rows.at * sizes.width, *low = image + rows.next * sizes.width;
    y[i] = narrow<T>(rows.blend(cols.blend(widen(high[cols.at]), widen(high[cols.next])),
                                cols.blend(widen(low[cols.at]), widen(low[cols.next]))));
  }
}

// What the sample gives to position `i`.
template <class C>
__device__ __forceinline__ C share_of(const Sample<C>& sample, int64_t i) {
  return (sample.at == i ? sample.near : C(0)) + (sample.next == i ? sample.far : C(0));
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_gather(const ImageSizes sizes, const InterpolateParams params, int64_t inputs,
                       const T* dy, T* dx) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < inputs; i += step) {
    const int64_t row = i / sizes.width, plane = row / sizes.height;
    const int64_t h = row - plane * sizes.height, w = i - row * sizes.width;
    const PoolCover rows = interpolation_cover(params, h, sizes.height, sizes.out_height);
    const PoolCover cols = interpolation_cover(params, w, sizes.width, sizes.out_width);
    C sum = 0;
    for (int64_t oh = rows.begin; oh < rows.end; ++oh) {
      const C down =
          share_of(interpolation_sample<C>(params, oh, sizes.height, sizes.out_height), h);
      if (down == C(0)) continue;
      for (int64_t ow = cols.begin; ow < cols.end; ++ow) {
        const C across =
            share_of(interpolation_sample<C>(params, ow, sizes.width, sizes.out_width), w);
        if (across != C(0))
          sum += down * across * widen(dy[(plane * sizes.out_height + oh) * sizes.out_width + ow]);
      }
    }
    dx[i] = narrow<T>(sum);
  }
}

}  // namespace

void max_pool2d(const Array& x, const PoolParams& params, const Array& y, const Array& indices) {
  visit_floating(x.dtype(), "max_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("max_pool2d", max_forward<T>, grid_for(y.numel()), kBlock, 0, shape_of(x, y, params),
           device_data<T>(x), device_data<T>(y), device_data<int32_t>(indices));
  });
}

void max_pool2d_backward(const Array& dy, const Array& indices, const PoolParams& params,
                         const Array& dx) {
  visit_floating(dx.dtype(), "max_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("max_pool2d_backward", max_backward<T>, grid_for(dx.numel()), kBlock, 0,
           shape_of(dx, dy, params), device_data<T>(dy), device_data<int32_t>(indices),
           device_data<T>(dx));
  });
}

void avg_pool2d(const Array& x, const PoolParams& params, const Array& y) {
  visit_floating(x.dtype(), "avg_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("avg_pool2d", mean_forward<T>, grid_for(y.numel()), kBlock, 0, shape_of(x, y, params),
           device_data<T>(x), device_data<T>(y));
  });
}

void avg_pool2d_backward(const Array& dy, const PoolParams& params, const Array& dx) {
  visit_floating(dx.dtype(), "avg_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("avg_pool2d_backward", mean_backward<T>, grid_for(dx.numel()), kBlock, 0,
           shape_of(dx, dy, params), device_data<T>(dy), device_data<T>(dx));
  });
}

void interpolate(const Array& x, const InterpolateParams& params, const Array& y) {
  visit_floating(x.dtype(), "interpolate", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes{x.size(2), x.size(3), y.size(2), y.size(3)};
    launch("interpolate", interpolate_forward<T>, grid_for(y.numel()), kBlock, 0, sizes, params,
           y.numel(), device_data<T>(x), device_data<T>(y));
  });
}

void interpolate_backward(const Array& dy, const InterpolateParams& params, const Array& dx) {
  visit_floating(dx.dtype(), "interpolate_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes{dx.size(2), dx.size(3), dy.size(2), dy.size(3)};
    launch("interpolate_backward", interpolate_gather<T>, grid_for(dx.numel()), kBlock, 0, sizes,
           params, dx.numel(), device_data<T>(dy), device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
