// Pooling: a thread for each output forward, and one for each input backward, which gathers from
// the windows that cover it in a fixed order (no atomics).
#include <binade/core/kernels/conv.h>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

struct PoolShape {
  int64_t height, width, out_height, out_width;
  int64_t inputs, outputs;  // elements in all
  PoolParams params;
};

PoolShape shape_of(const Array& x, const Array& y, const PoolParams& params) {
  return {x.size(2), x.size(3), y.size(2), y.size(3), x.numel(), y.numel(), params};
}

// Positions [begin, end) of the input that output `o` covers along one dimension.
struct Window {
  int64_t begin, end;
  __device__ Window(int64_t o, int64_t kernel, int64_t stride, int64_t padding, int64_t size) {
    const int64_t start = o * stride - padding;
    begin = max(start, int64_t{0});
    end = min(start + kernel, size);
  }
};

// Outputs [begin, end) whose window covers input `i` along one dimension.
struct Cover {
  int64_t begin, end;
  __device__ Cover(int64_t i, int64_t kernel, int64_t stride, int64_t padding, int64_t outputs) {
    const int64_t last = i + padding;  // the window that starts here, were the stride 1
    begin = last < kernel ? 0 : (last - kernel) / stride + 1;
    end = min(last / stride + 1, outputs);
  }
};

// Calls work(y index, plane, window over rows, window over columns) for each output.
template <class Work>
__device__ __forceinline__ void for_each_output(const PoolShape& shape, const Work& work) {
  const PoolParams& p = shape.params;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < shape.outputs; i += step) {
    const int64_t row = i / shape.out_width;
    const int64_t plane = row / shape.out_height;
    work(i, plane,
         Window(row - plane * shape.out_height, p.kernel_h, p.stride_h, p.padding_h, shape.height),
         Window(i - row * shape.out_width, p.kernel_w, p.stride_w, p.padding_w, shape.width));
  }
}

// dx[i] = Σ gradient(y index, position in the plane) over the outputs that cover input i.
template <class T, class Gradient>
__device__ __forceinline__ void gather(const PoolShape& shape, T* dx, const Gradient& gradient) {
  const PoolParams& p = shape.params;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < shape.inputs; i += step) {
    const int64_t row = i / shape.width;
    const int64_t plane = row / shape.height;
    const int64_t h = row - plane * shape.height, w = i - row * shape.width;
    const Cover rows(h, p.kernel_h, p.stride_h, p.padding_h, shape.out_height);
    const Cover cols(w, p.kernel_w, p.stride_w, p.padding_w, shape.out_width);
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
  for_each_output(shape, [&](int64_t i, int64_t plane, Window rows, Window cols) {
    const T* image = x + plane * shape.height * shape.width;
    int64_t best = rows.begin * shape.width + cols.begin;
    ComputeOf<T> largest = widen(image[best]);
    for (int64_t h = rows.begin; h < rows.end; ++h) {
      for (int64_t w = cols.begin; w < cols.end; ++w) {
        const ComputeOf<T> value = widen(image[h * shape.width + w]);
        if (value > largest || value != value) {  // NaN wins
          largest = value;
          best = h * shape.width + w;
        }
      }
    }
    y[i] = image[best];
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
  for_each_output(shape, [&](int64_t i, int64_t plane, Window rows, Window cols) {
    const T* image = x + plane * shape.height * shape.width;
    C sum = 0;
    for (int64_t h = rows.begin; h < rows.end; ++h)
      for (int64_t w = cols.begin; w < cols.end; ++w) sum += widen(image[h * shape.width + w]);
    y[i] = narrow<T>(sum / static_cast<C>((rows.end - rows.begin) * (cols.end - cols.begin)));
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock) mean_backward(PoolShape shape, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  const PoolParams& p = shape.params;
  gather(shape, dx, [&](int64_t y, int64_t oh, int64_t ow, int64_t) {
    const Window rows(oh, p.kernel_h, p.stride_h, p.padding_h, shape.height);
    const Window cols(ow, p.kernel_w, p.stride_w, p.padding_w, shape.width);
    return widen(dy[y]) / static_cast<C>((rows.end - rows.begin) * (cols.end - cols.begin));
  });
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

}  // namespace binade::kernels::cuda
