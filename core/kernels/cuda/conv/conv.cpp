// Convolution through cuDNN. Algorithms are cuDNN's first suggestion that is deterministic: of the
// same problem the same one is chosen every time, and its sums have one order.
#include <binade/core/kernels/conv.h>

#include <array>
#include <map>

#include <binade/core/cuda/libraries.h>
#include <binade/core/cuda/library_handles.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>

namespace binade::kernels::cuda {

using binade::cuda::check_cudnn;
using binade::cuda::cudnn_handle;

namespace {

constexpr int kSuggestions = 8;

using TensorHandle = binade::cuda::Handle<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;
using FilterHandle = binade::cuda::Handle<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor>;
using ConvHandle =
    binade::cuda::Handle<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor>;

cudnnDataType_t cudnn_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDNN_DATA_DOUBLE;
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    case DType::f16:
      return CUDNN_DATA_HALF;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    default:
      fail("conv2d needs a floating-point dtype, got ", name_of(dtype));
  }
}

cudnnMathType_t math_type(DType dtype) {
  if (is_half(dtype)) return CUDNN_TENSOR_OP_MATH;
  if (dtype == DType::f32 && !binade::cuda::allow_tf32()) return CUDNN_FMA_MATH;
  return CUDNN_DEFAULT_MATH;
}

int to_int(int64_t value) {
  check(value <= INT32_MAX, "conv2d takes sizes up to 2^31 - 1, got ", value);
  return static_cast<int>(value);
}

// A factor of cuDNN's: double for f64, float otherwise.
class Factor {
 public:
  Factor(double value, DType dtype) : f64_(value), f32_(static_cast<float>(value)), dtype_(dtype) {}
  const void* data() const {
    return dtype_ == DType::f64 ? static_cast<const void*>(&f64_) : &f32_;
  }

 private:
  double f64_;
  float f32_;
  DType dtype_;
};

struct Algorithm {
  int number;  // of the pass's own enum
  size_t workspace_bytes;
};

// cuDNN's descriptors of one convolution.
class Convolution {
 public:
  Convolution(const Array& x, const Array& weight, const Array& y, const ConvParams& params)
      : dtype_(x.dtype()) {
    const cudnnDataType_t type = cudnn_type(dtype_);
    set_tensor(x_, x, type);
    set_tensor(y_, y, type);
    check_cudnn(cudnnCreateFilterDescriptor(weight_.put()), "cudnnCreateFilterDescriptor");
    check_cudnn(cudnnSetFilter4dDescriptor(weight_.get(), type, CUDNN_TENSOR_NCHW,
                                           to_int(weight.size(0)), to_int(weight.size(1)),
                                           to_int(weight.size(2)), to_int(weight.size(3))),
                "cudnnSetFilter4dDescriptor");
    check_cudnn(cudnnCreateConvolutionDescriptor(conv_.put()), "cudnnCreateConvolutionDescriptor");
    check_cudnn(cudnnSetConvolution2dDescriptor(
                    conv_.get(), to_int(params.padding_h), to_int(params.padding_w),
                    to_int(params.stride_h), to_int(params.stride_w), to_int(params.dilation_h),
                    to_int(params.dilation_w), CUDNN_CROSS_CORRELATION,
                    dtype_ == DType::f64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT),
                "cudnnSetConvolution2dDescriptor");
    check_cudnn(cudnnSetConvolutionGroupCount(conv_.get(), to_int(params.groups)),
                "cudnnSetConvolutionGroupCount");
    check_cudnn(cudnnSetConvolutionMathType(conv_.get(), math_type(dtype_)),
                "cudnnSetConvolutionMathType");
    key_ = {0,
            static_cast<int64_t>(dtype_),
            math_type(dtype_),
            binade::cuda::current_device(),
            x.size(0),
            x.size(1),
            x.size(2),
            x.size(3),
            weight.size(0),
            weight.size(2),
            weight.size(3),
            params.stride_h,
            params.stride_w,
            params.padding_h,
            params.padding_w,
            params.dilation_h,
            params.dilation_w,
            params.groups};
  }

  void forward(const void* x, const void* weight, void* y) {
    const Algorithm algorithm = choose<cudnnConvolutionFwdAlgoPerf_t>(
        0,
        [&](auto... results) {
          return cudnnGetConvolutionForwardAlgorithm_v7(cudnn_handle(), x_.get(), weight_.get(),
                                                        conv_.get(), y_.get(), results...);
        },
        [&](auto number, size_t* bytes) {
          return cudnnGetConvolutionForwardWorkspaceSize(cudnn_handle(), x_.get(), weight_.get(),
                                                         conv_.get(), y_.get(), number, bytes);
        });
    const Array scratch = binade::cuda::workspace(static_cast<int64_t>(algorithm.workspace_bytes));
    check_cudnn(cudnnConvolutionForward(cudnn_handle(), Factor(1, dtype_).data(), x_.get(), x,
                                        weight_.get(), weight, conv_.get(),
                                        static_cast<cudnnConvolutionFwdAlgo_t>(algorithm.number),
                                        scratch.data(), algorithm.workspace_bytes,
                                        Factor(0, dtype_).data(), y_.get(), y),
                "cudnnConvolutionForward");
  }

  void backward_data(const void* weight, const void* dy, void* dx, float beta) {
    const Algorithm algorithm = choose<cudnnConvolutionBwdDataAlgoPerf_t>(
        1,
        [&](auto... results) {
          return cudnnGetConvolutionBackwardDataAlgorithm_v7(
              cudnn_handle(), weight_.get(), y_.get(), conv_.get(), x_.get(), results...);
        },
        [&](auto number, size_t* bytes) {
          return cudnnGetConvolutionBackwardDataWorkspaceSize(
              cudnn_handle(), weight_.get(), y_.get(), conv_.get(), x_.get(), number, bytes);
        });
    const Array scratch = binade::cuda::workspace(static_cast<int64_t>(algorithm.workspace_bytes));
    check_cudnn(
        cudnnConvolutionBackwardData(
            cudnn_handle(), Factor(1, dtype_).data(), weight_.get(), weight, y_.get(), dy,
            conv_.get(), static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm.number),
            scratch.data(), algorithm.workspace_bytes, Factor(beta, dtype_).data(), x_.get(), dx),
        "cudnnConvolutionBackwardData");
  }

  void backward_weight(const void* x, const void* dy, void* dweight, float beta) {
    const Algorithm algorithm = choose<cudnnConvolutionBwdFilterAlgoPerf_t>(
        2,
        [&](auto... results) {
          return cudnnGetConvolutionBackwardFilterAlgorithm_v7(
              cudnn_handle(), x_.get(), y_.get(), conv_.get(), weight_.get(), results...);
        },
        [&](auto number, size_t* bytes) {
          return cudnnGetConvolutionBackwardFilterWorkspaceSize(
              cudnn_handle(), x_.get(), y_.get(), conv_.get(), weight_.get(), number, bytes);
        });
    const Array scratch = binade::cuda::workspace(static_cast<int64_t>(algorithm.workspace_bytes));
    check_cudnn(
        cudnnConvolutionBackwardFilter(
            cudnn_handle(), Factor(1, dtype_).data(), x_.get(), x, y_.get(), dy, conv_.get(),
            static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm.number), scratch.data(),
            algorithm.workspace_bytes, Factor(beta, dtype_).data(), weight_.get(), dweight),
        "cudnnConvolutionBackwardFilter");
  }

 private:
  using Key = std::array<int64_t, 18>;

  static void set_tensor(TensorHandle& handle, const Array& array, cudnnDataType_t type) {
    check_cudnn(cudnnCreateTensorDescriptor(handle.put()), "cudnnCreateTensorDescriptor");
    check_cudnn(cudnnSetTensor4dDescriptor(handle.get(), CUDNN_TENSOR_NCHW, type,
                                           to_int(array.size(0)), to_int(array.size(1)),
                                           to_int(array.size(2)), to_int(array.size(3))),
                "cudnnSetTensor4dDescriptor");
  }

  // The algorithm of one pass; asked for once per problem and thread.
  template <class Suggestion, class Suggest, class WorkspaceSize>
  Algorithm choose(int64_t pass, const Suggest& suggest, const WorkspaceSize& workspace_size) {
    thread_local std::map<Key, Algorithm> chosen;
    key_[0] = pass;
    const auto found = chosen.find(key_);
    if (found != chosen.end()) return found->second;
    std::array<Suggestion, kSuggestions> suggestions;
    int count = 0;
    check_cudnn(suggest(kSuggestions, &count, suggestions.data()), "cuDNN's choice of algorithms");
    for (int i = 0; i < count; ++i) {
      const Suggestion& suggestion = suggestions[static_cast<size_t>(i)];
      size_t bytes = 0;
      // The workspace is asked for in the math that the descriptor allows, not the suggestion's.
      if (suggestion.status == CUDNN_STATUS_SUCCESS &&
          suggestion.determinism == CUDNN_DETERMINISTIC &&
          workspace_size(suggestion.algo, &bytes) == CUDNN_STATUS_SUCCESS)
        return chosen.emplace(key_, Algorithm{suggestion.algo, bytes}).first->second;
    }
    fail("cuDNN has no deterministic algorithm for this convolution of dtype ", name_of(dtype_));
  }

  DType dtype_;
  TensorHandle x_, y_;
  FilterHandle weight_;
  ConvHandle conv_;
  Key key_{};
};

// Calls write(destination, beta) for a gradient of the convolution's dtype; another dtype is
// converted from it.
template <class Write>
void write_gradient(const Array& gradient, float beta, DType dtype, const Write& write) {
  if (gradient.dtype() == dtype) {
    write(gradient, beta);
    return;
  }
  const Array computed = Array::empty(gradient.shape(), dtype, gradient.device());
  write(computed, 0.0f);
  if (beta == 0) {
    copy(computed, gradient);
  } else {
    axpy(1, computed, gradient);
  }
}

Array as_channels(const Array& vector) {
  return vector.view({1, vector.size(0), 1, 1});
}

}  // namespace

void conv2d(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
            const Array& y) {
  if (y.numel() == 0) return;
  Convolution(x, weight, y, params)
      .forward(device_pointer(x), device_pointer(weight), device_pointer(y));
  if (bias.defined())
    binary(BinaryOp::add, y, as_channels(bias.to(y.dtype())).expand(y.shape()), y);
}

void conv2d_backward(const Array& x, const Array& weight, const Array& dy, const ConvParams& params,
                     const Array& dx, float dx_beta, const Array& dweight, float dweight_beta,
                     const Array& dbias, float dbias_beta) {
  if (dy.numel() == 0) {
    if (dx.defined() && dx_beta == 0) fill(dx, 0);
    if (dweight.defined() && dweight_beta == 0) fill(dweight, 0);
    if (dbias.defined() && dbias_beta == 0) fill(dbias, 0);
    return;
  }
  Convolution convolution(x, weight, dy, params);
  if (dx.defined())
    write_gradient(dx, dx_beta, x.dtype(), [&](const Array& out, float beta) {
      convolution.backward_data(device_pointer(weight), device_pointer(dy), device_pointer(out),
                                beta);
    });
  if (dweight.defined())
    write_gradient(dweight, dweight_beta, x.dtype(), [&](const Array& out, float beta) {
      convolution.backward_weight(device_pointer(x), device_pointer(dy), device_pointer(out), beta);
    });
  if (dbias.defined()) reduce(ReduceOp::sum, dy, as_channels(dbias), dbias_beta);
}

}  // namespace binade::kernels::cuda
