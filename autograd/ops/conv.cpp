#include <binade/autograd/ops/conv.h>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/conv_gradients.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/norm_on_tape.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/ops/windows.h>
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

void check_image(const char* op, const Tensor& x) {
  check_floating(op, "x", x);
  check(x.dims() == 4, op, ": x must be (N, C, H, W), got ", Kind{x});
}

void check_pooled_image(const char* op, const Tensor& x) {
  check_image(op, x);
  check(x.size(2) > 0 && x.size(3) > 0, op, ": the images of x ", Kind{x},
        " have no elements, so a window has none");
}

Shape pooled_shape(const char* op, const Tensor& x, const Pool2dOptions& options) {
  check_pooled_image(op, x);
  Shape shape = x.shape();
  for (int i : {0, 1}) {
    const size_t j = static_cast<size_t>(i);
    const Window window{options.kernel[j], options.stride[j], options.padding[j],
                        options.dilation[j]};
    check_window(op, window);
    check(2 * options.padding[j] <= options.kernel[j], op,
          ": padding must not exceed half the kernel, got padding ", options.padding[j],
          " and kernel ", options.kernel[j]);
    const int64_t size = x.size(2 + i);
    int64_t& positions = shape[2 + i];
    positions = window_positions(op, x, size, window);
    // One window more where elements are left over, if it begins in x or the padding before it.
    const int64_t left = (size + 2 * options.padding[j] - window.extent()) % options.stride[j];
    if (options.ceil_mode && left > 0 && positions * options.stride[j] < size + options.padding[j])
      ++positions;
  }
  return shape;
}

Pool2dOptions with_stride(Pool2dOptions options) {
  for (const size_t i : {size_t{0}, size_t{1}})
    if (options.stride[i] == 0) options.stride[i] = options.kernel[i];
  return options;
}

kernels::PoolParams pool_params(const Pool2dOptions& options) {
  kernels::PoolParams params;
  params.kernel_h = options.kernel[0];
  params.kernel_w = options.kernel[1];
  params.stride_h = options.stride[0];
  params.stride_w = options.stride[1];
  params.padding_h = options.padding[0];
  params.padding_w = options.padding[1];
  params.dilation_h = options.dilation[0];
  params.dilation_w = options.dilation[1];
  params.count_padding = options.count_include_pad;
  return params;
}

Shape adaptive_shape(const char* op, const Tensor& x, const std::array<int64_t, 2>& size) {
  check_pooled_image(op, x);
  check(size[0] > 0 && size[1] > 0, op, ": size must be above 0, got ", size[0], " and ", size[1]);
  return {x.size(0), x.size(1), size[0], size[1]};
}

constexpr std::array<int64_t, 2> kOneWindow = {1, 1};

kernels::PoolParams adaptive_params() {
  kernels::PoolParams params;
  params.adaptive = true;
  return params;
}

// What conv2d and its gradients are where there is nothing to multiply, which the kernels and the
// libraries behind them do not take: y is the bias alone.
void bias_alone(const Array& bias, const Array& y) {
  if (bias.defined())
    y.copy_from(bias.view({bias.numel(), 1, 1}).expand(y.shape()));
  else
    y.zero();
}
void bias_alone_backward(const Array& dy, const GradSlot::Destination& dx,
                         const GradSlot::Destination& dweight, const GradSlot::Destination& dbias) {
  for (const auto& to : {dx, dweight})
    if (to && to.beta == 0) to.array.zero();
  if (dbias)
    BINADE_DISPATCH(dy.device(), reduce(kernels::ReduceOp::sum, dy,
                                        dbias.array.view({1, dy.size(1), 1, 1}), dbias.beta));
}

struct Conv2dGradient {
  Saved x, weight;
  kernels::ConvParams params;

  void operator()(Backward& backward) const {
    const auto dx = backward.slot(0).open(), dw = backward.slot(1).open(),
               db = backward.slot(2).open();
    const Array dy = backward.grad().contiguous();
    if (x.array().numel() == 0 || weight.array().numel() == 0 || dy.numel() == 0)
      return bias_alone_backward(dy, dx, dw, db);
    BINADE_DISPATCH(dy.device(), conv2d_backward(x.array(), weight.array(), dy, params, dx.array,
                                                 dx.beta, dw.array, dw.beta, db.array, db.beta));
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor images = tape.input(0, x.array()), filters = tape.input(1, weight.array());
    const Tensor& dy = tape.grad();
    if (tape.needed(0)) tape.give(0, conv2d_input_gradient(dy, filters, params, images.shape()));
    if (tape.needed(1)) tape.give(1, conv2d_weight_gradient(images, dy, params, filters.shape()));
    if (tape.needed(2)) tape.give(2, conv_bias_gradient(dy));
  }
};

// The gradient of max_over_windows(): dy at the positions of the maxima.
Tensor max_gradient(const char* op, const Tensor& dy_in, const Array& indices, const Shape& shape,
                    const kernels::PoolParams& params) {
  const Array dy = dy_in.array().contiguous();
  const Array dx = Array::empty(shape, dy.dtype(), dy.device());
  BINADE_DISPATCH(dy.device(), max_pool2d_backward(dy, indices, params, dx));
  return record(op, {dy_in}, dx, [indices](const Tensor& ddx) -> TensorList {
    const Shape windows = indices.shape();
    const Tensor at(indices.reshape({windows[0], windows[1], windows[2] * windows[3]}));
    const Tensor nowhere = less(at, Tensor::scalar(0, at.dtype(), at.device()));
    const Tensor planes = reshape(ddx, {ddx.size(0), ddx.size(1), ddx.size(2) * ddx.size(3)});
    const Tensor found = gather(planes, 2, masked_fill(at, nowhere, 0));
    return {reshape(masked_fill(found, nowhere, 0), windows)};
  });
}

Tensor max_over_windows(const char* op, const Tensor& x, const Shape& shape,
                        const kernels::PoolParams& params) {
  const Array y = Array::empty(shape, x.dtype(), x.device());
  const Array indices = Array::empty(shape, DType::i32, x.device());
  BINADE_DISPATCH(x.device(), max_pool2d(x.array().contiguous(), params, y, indices));
  return record(op, {x}, y,
                [op, indices, params, shape = x.shape()](const Tensor& dy) -> TensorList {
                  return {max_gradient(op, dy, indices, shape, params)};
                });
}

Tensor mean_over_windows(const char* op, const Tensor& x, const Shape& shape,
                         const kernels::PoolParams& params);

// The gradient of mean_over_windows(), which is linear: each is the other's gradient.
Tensor mean_gradient(const char* op, const Tensor& dy, const Shape& shape,
                     const kernels::PoolParams& params) {
  const Array dx = Array::empty(shape, dy.dtype(), dy.device());
  BINADE_DISPATCH(dy.device(), avg_pool2d_backward(dy.array().contiguous(), params, dx));
  return record(op, {dy}, dx, [op, params, windows = dy.shape()](const Tensor& ddx) -> TensorList {
    return {mean_over_windows(op, ddx, windows, params)};
  });
}

Tensor mean_over_windows(const char* op, const Tensor& x, const Shape& shape,
                         const kernels::PoolParams& params) {
  const Array y = Array::empty(shape, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), avg_pool2d(x.array().contiguous(), params, y));
  return record(op, {x}, y, [op, params, from = x.shape()](const Tensor& dy) -> TensorList {
    return {mean_gradient(op, dy, from, params)};
  });
}

// The gradient of interpolated(), which is linear: each is the other's gradient.
Tensor interpolation_gradient(const Tensor& dy, const Shape& shape,
                              const kernels::InterpolateParams& params);

Tensor interpolated(const Tensor& x, const Shape& shape, const kernels::InterpolateParams& params) {
  const Array y = Array::empty(shape, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), interpolate(x.array().contiguous(), params, y));
  return record("interpolate", {x}, y, [params, from = x.shape()](const Tensor& dy) -> TensorList {
    return {interpolation_gradient(dy, from, params)};
  });
}

Tensor interpolation_gradient(const Tensor& dy, const Shape& shape,
                              const kernels::InterpolateParams& params) {
  const Array dx = Array::empty(shape, dy.dtype(), dy.device());
  BINADE_DISPATCH(dy.device(), interpolate_backward(dy.array().contiguous(), params, dx));
  return record("interpolate_gradient", {dy}, dx,
                [params, from = dy.shape()](const Tensor& ddx) -> TensorList {
                  return {interpolated(ddx, from, params)};
                });
}

// A vector over the channels, as it broadcasts to (N, C, H, W).
Tensor per_channel(const Tensor& x) {
  return reshape(x, {x.numel(), 1, 1});
}

// In training, by the statistics of the batch.
struct BatchNormGradient {
  Saved x, weight;
  Array mean, rstd;  // (C)
  double eps;

  void operator()(Backward& backward) const {
    const Array dy = backward.grad().contiguous();
    const Array dx = empty_like(dy), dweight = empty_like(mean), dbias = empty_like(mean);
    BINADE_DISPATCH(dy.device(), batch_norm_backward(dy, x.array(), weight.array(), mean, rstd, dx,
                                                     dweight, dbias));
    backward.slot(0).add(dx);
    backward.slot(1).add(dweight);
    backward.slot(2).add(dbias);
  }
  void operator()(BackwardOnTape& tape) const {
    const NormOnTape norm{{0, 2, 3}, {0, 2, 3}, eps};
    norm(tape, tape.input(0, x.array()), per_channel(tape.input(1, weight.array())), 1, 2,
         tape.grad());
  }
};

}  // namespace

Tensor conv2d(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
              const Conv2dOptions& options) {
  check_image("conv2d", x_in);
  check_floating("conv2d", "weight", weight_in);
  check_device("conv2d", {x_in, weight_in, bias_in});
  const int64_t groups = options.groups;
  check(weight_in.dims() == 4 && groups > 0 && x_in.size(1) == weight_in.size(1) * groups &&
            weight_in.size(0) % groups == 0,
        "conv2d: weight must be (K, C/groups, R, S) for x (N, C, H, W), got x ", Kind{x_in},
        ", weight ", Kind{weight_in}, " and ", groups, " groups");
  check(!bias_in.defined() || bias_in.shape() == Shape{weight_in.size(0)}, "conv2d: bias must be (",
        weight_in.size(0), "), got ", Kind{bias_in});
  const Tensor x = autocast(PrecisionClass::half, x_in);
  const Tensor weight = autocast(PrecisionClass::half, weight_in);
  const Tensor bias = bias_in.defined() ? autocast(PrecisionClass::half, bias_in) : bias_in;
  check_same_dtype("conv2d", x, weight);
  if (bias.defined()) check_same_dtype("conv2d", weight, bias);

  Shape shape = x.shape();
  shape[1] = weight.size(0);
  for (int i : {0, 1}) {
    const size_t j = static_cast<size_t>(i);
    const Window window{weight.size(2 + i), options.stride[j], options.padding[j],
                        options.dilation[j]};
    shape[2 + i] = window_positions("conv2d", x, x.size(2 + i), window);
  }
  const kernels::ConvParams params{options.stride[0],
                                   options.stride[1],
                                   options.padding[0],
                                   options.padding[1],
                                   options.dilation[0],
                                   options.dilation[1],
                                   groups};
  const Array images = x.array().contiguous(), filters = weight.array().contiguous();
  const Array offsets = bias.defined() ? bias.array().contiguous() : Array();
  const Array y = Array::empty(shape, x.dtype(), x.device());
  if (images.numel() == 0 || filters.numel() == 0)
    bias_alone(offsets, y);
  else
    BINADE_DISPATCH(x.device(), conv2d(images, filters, offsets, params, y));
  return record("conv2d", {x, weight, bias}, y,
                Conv2dGradient{Saved(images), Saved(filters), params});
}

Tensor max_pool2d(const Tensor& x, const Pool2dOptions& given) {
  const Pool2dOptions options = with_stride(given);
  return max_over_windows("max_pool2d", x, pooled_shape("max_pool2d", x, options),
                          pool_params(options));
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& given) {
  const Pool2dOptions options = with_stride(given);
  check(options.dilation == std::array<int64_t, 2>{1, 1},
        "avg_pool2d: means have no dilation, got ", options.dilation[0], " and ",
        options.dilation[1]);
  return mean_over_windows("avg_pool2d", x, pooled_shape("avg_pool2d", x, options),
                           pool_params(options));
}

// One window is a reduction of whole planes, which many threads share on the GPU; of a window there
// each has its own.
Tensor adaptive_max_pool2d(const Tensor& x, const std::array<int64_t, 2>& size) {
  const Shape shape = adaptive_shape("adaptive_max_pool2d", x, size);
  if (size == kOneWindow) {
    const Tensor planes = reshape(x, {x.size(0), x.size(1), x.size(2) * x.size(3)});
    return reshape(max_with_indices(planes, 2).first, shape);
  }
  return max_over_windows("adaptive_max_pool2d", x, shape, adaptive_params());
}

Tensor adaptive_avg_pool2d(const Tensor& x, const std::array<int64_t, 2>& size) {
  const Shape shape = adaptive_shape("adaptive_avg_pool2d", x, size);
  if (size == kOneWindow) return to(mean(x, {2, 3}, true), x.dtype());
  return mean_over_windows("adaptive_avg_pool2d", x, shape, adaptive_params());
}

Tensor interpolate(const Tensor& x, const std::array<int64_t, 2>& size, Interpolation mode,
                   bool align_corners) {
  const Shape shape = adaptive_shape("interpolate", x, size);
  const bool linear = mode == Interpolation::bilinear;
  check(linear || !align_corners, "interpolate: align_corners says nothing about nearest elements");
  return interpolated(x, shape, {linear, align_corners});
}

Tensor batch_norm(const Tensor& x_in, const Tensor& weight, const Tensor& bias,
                  const Tensor& running_mean, const Tensor& running_var,
                  const BatchNormOptions& options) {
  check_floating("batch_norm", "x", x_in);
  check(x_in.dims() >= 2, "batch_norm: x must be (N, C, …), got ", Kind{x_in});
  if (x_in.dims() != 4) {  // (N, C, S, 1) has the same channels
    const int64_t columns = x_in.size(0) * x_in.size(1);
    const Tensor image =
        reshape(x_in, {x_in.size(0), x_in.size(1), columns > 0 ? x_in.numel() / columns : 1, 1});
    return reshape(batch_norm(image, weight, bias, running_mean, running_var, options),
                   x_in.shape());
  }
  const Tensor& x = x_in;
  check_device("batch_norm", {x, weight, bias, running_mean, running_var});
  const DType dtype = statistics_dtype(x.dtype());
  for (const Tensor& vector : {weight, bias, running_mean, running_var})
    check(vector.defined() && vector.shape() == Shape{x.size(1)} && vector.dtype() == dtype,
          "batch_norm: weight, bias, running_mean and running_var must be (", x.size(1), ") ",
          dtype, " for x ", Kind{x}, ", got ", Kind{vector});
  check_constant("batch_norm", "running_mean", running_mean);
  check_constant("batch_norm", "running_var", running_var);
  if (!options.training) {
    const Tensor scale = weight * rsqrt(running_var + options.eps);
    const Tensor shift = bias - running_mean * scale;
    return to(x * per_channel(scale) + per_channel(shift), x.dtype());
  }

  const int64_t values = x.size(0) * x.size(2) * x.size(3);
  check(values > 1, "batch_norm: x ", Kind{x}, " has ", values,
        " values a channel; in training it takes at least two values a channel, whose mean and "
        "variance move the running ones");
  check(running_mean.array().is_contiguous() && running_var.array().is_contiguous(),
        "batch_norm: running_mean and running_var are moved in place and must be contiguous");
  const Array images = x.array().contiguous(), gain = weight.array().contiguous();
  const Array y = empty_like(images);
  const Array mean = Array::empty(weight.shape(), dtype, x.device());
  const Array rstd = empty_like(mean);
  BINADE_DISPATCH(x.device(),
                  batch_norm(images, gain, bias.array().contiguous(), options.eps, options.momentum,
                             running_mean.array(), running_var.array(), y, mean, rstd));
  running_mean.array().bump_version();
  running_var.array().bump_version();
  return record("batch_norm", {x, weight, bias}, y,
                BatchNormGradient{Saved(images), Saved(gain), mean, rstd, options.eps});
}

}  // namespace binade
