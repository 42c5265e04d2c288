// Functions with a number and their derivatives, and SwiGLU.
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>

namespace binade::kernels::cuda {

namespace {

// The op is known when the kernel is compiled.
template <class T, ShapedOp kOp>
struct Shaped {
  ComputeOf<T> c;
  __device__ __forceinline__ T operator()(T x) const {
    return narrow<T>(shaped_value<MathFor<T>>(kOp, widen(x), c));
  }
};
template <class T, ShapedOp kOp>
struct ShapedBackward {
  ComputeOf<T> c;
  bool accumulate;
  __device__ bool reads_out() const { return accumulate; }
  __device__ __forceinline__ T operator()(T old, T x, T dy) const {
    return narrow<T>(widen(old) + widen(dy) * shaped_slope<MathFor<T>>(kOp, widen(x), c));
  }
};

// Calls visitor(std::integral_constant) with the op as a constant.
template <class Visitor>
void visit_shaped(ShapedOp op, const Visitor& visitor) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return visitor(std::integral_constant<ShapedOp, ShapedOp::leaky_relu>());
    case ShapedOp::elu:
      return visitor(std::integral_constant<ShapedOp, ShapedOp::elu>());
    case ShapedOp::softplus:
      return visitor(std::integral_constant<ShapedOp, ShapedOp::softplus>());
  }
}

template <class T>
struct SwiGlu {
  __device__ __forceinline__ T operator()(T gate, T up) const {
    const ComputeOf<T> x = widen(gate);
    return narrow<T>(x * sigmoid_value<MathFor<T>>(x) * widen(up));
  }
};

// Operands of the layout: dgate, dup, gate, up, dout.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    swiglu_backward_kernel(const __grid_constant__ Layout layout, bool accumulate, T* dgate, T* dup,
                           const T* gate, const T* up, const T* dout) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[5];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    const Vec<T, kVec> g = load_item<kVec>(layout, 2, gate, offset[2], count);
    const Vec<T, kVec> u = load_item<kVec>(layout, 3, up, offset[3], count);
    const Vec<T, kVec> d = load_item<kVec>(layout, 4, dout, offset[4], count);
    Vec<T, kVec> to_gate, to_up;
#pragma unroll
    for (int i = 0; i < kVec; ++i) to_gate[i] = to_up[i] = T();
    if (accumulate) {
      to_gate = load_item<kVec>(layout, 0, dgate, offset[0], count);
      to_up = load_item<kVec>(layout, 1, dup, offset[1], count);
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const C x = widen(g[i]), grad = widen(d[i]);
      const C s = sigmoid_value<MathFor<T>>(x);
      to_gate[i] = narrow<T>(widen(to_gate[i]) + grad * widen(u[i]) * s * (C(1) + x * (C(1) - s)));
      to_up[i] = narrow<T>(widen(to_up[i]) + grad * x * s);
    }
    store_item(dgate, offset[0], count, to_gate);
    store_item(dup, offset[1], count, to_up);
  }
}

}  // namespace

void shaped(ShapedOp op, const Array& x, double c, const Array& out) {
  visit_floating(x.dtype(), "shaped", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    visit_shaped(op, [&](auto fixed) {
      const Shaped<T, decltype(fixed)::value> f{static_cast<ComputeOf<T>>(c)};
      elementwise("shaped", Operands<T, T>(), f, f, out, x);
    });
  });
}

void shaped_backward(ShapedOp op, const Array& x, const Array& dy, double c, const Array& dx,
                     float beta) {
  visit_floating(x.dtype(), "shaped_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    visit_shaped(op, [&](auto fixed) {
      const ShapedBackward<T, decltype(fixed)::value> f{static_cast<ComputeOf<T>>(c), beta != 0};
      elementwise("shaped_backward", Operands<T, T, T>(), f, f, dx, x, dy);
    });
  });
}

void swiglu(const Array& gate, const Array& up, const Array& out) {
  visit_floating(out.dtype(), "swiglu", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    elementwise("swiglu", Operands<T, T, T>(), SwiGlu<T>(), SwiGlu<T>(), out, gate, up);
  });
}

void swiglu_backward(const Array& gate, const Array& up, const Array& dout, const Array& dgate,
                     const Array& dup, float beta) {
  if (dgate.numel() == 0) return;
  visit_floating(gate.dtype(), "swiglu_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    constexpr int kVec = kVecWidth<T>;
    const Layout layout = make_layout({&dgate, &dup, &gate, &up, &dout}, kVec);
    launch("swiglu_backward",
           layout.vec == kVec ? swiglu_backward_kernel<kVec, T> : swiglu_backward_kernel<1, T>,
           grid_for(layout.items), kBlock, 0, layout, beta != 0, device_data<T>(dgate),
           device_data<T>(dup), device_data<T>(gate), device_data<T>(up), device_data<T>(dout));
  });
}

}  // namespace binade::kernels::cuda
