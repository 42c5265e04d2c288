#include <binade/autograd/ops/conv_variants.h>

#include <algorithm>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/conv.h>
#include <binade/autograd/ops/conv_gradients.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/ops/windows.h>
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

// What an op on images refuses, under the name of the op that is made of it.
template <class OnImages>
Tensor as_images(const char* op, const OnImages& on_images) {
  try {
    return on_images();
  } catch (const Error& error) {
    fail(op, ", as ", error.what());
  }
}

// A convolution of sequences (N, C, L) by that of images: they are images of one row. `rows` has
// the options that only one of the convolutions knows.
template <class Convolution, class Options, class RowOptions>
Tensor of_sequences(const char* op, const Convolution& of_images, const Tensor& x,
                    const Tensor& weight, const Tensor& bias, const Options& options,
                    RowOptions rows) {
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check(x.dims() == 3 && weight.dims() == 3, op,
        ": x must be (N, C, L) and weight of three dimensions, got x ", Kind{x}, " and weight ",
        Kind{weight});
  rows.stride[1] = options.stride;
  rows.padding[1] = options.padding;
  rows.dilation[1] = options.dilation;
  rows.groups = options.groups;
  return as_images(
      op, [&] { return squeeze(of_images(unsqueeze(x, 2), unsqueeze(weight, 2), bias, rows), 2); });
}

// The same of pooling.
template <class Pooling, class Options>
Tensor pooled_sequences(const char* op, const Pooling& of_images, const Tensor& x,
                        const Options& options) {
  check_floating(op, "x", x);
  check(x.dims() == 3, op, ": x must be (N, C, L), got ", Kind{x});
  return as_images(op, [&] { return squeeze(of_images(unsqueeze(x, 2), options), 2); });
}

Pool2dOptions of_one_row(const Pool1dOptions& options) {
  return {.kernel = {1, options.kernel},
          .stride = {1, options.stride},
          .padding = {0, options.padding},
          .dilation = {1, options.dilation},
          .ceil_mode = options.ceil_mode,
          .count_include_pad = options.count_include_pad};
}

kernels::ConvParams params_of(const ConvTranspose2dOptions& options) {
  return {options.stride[0],   options.stride[1],   options.padding[0], options.padding[1],
          options.dilation[0], options.dilation[1], options.groups};
}

void check_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options) {
  const char* op = "conv_transpose2d";
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, bias});
  check(x.dims() == 4 && weight.dims() == 4 && options.groups > 0 && x.size(1) == weight.size(0) &&
            x.size(1) % options.groups == 0,
        op, ": weight must be (C, K/groups, R, S) for x (N, C, H, W), got x ", Kind{x}, ", weight ",
        Kind{weight}, " and ", options.groups, " groups");
  check(x.numel() > 0 && weight.numel() > 0, op, ": x and weight must have elements, got x ",
        Kind{x}, " and weight ", Kind{weight});
  check(!bias.defined() || bias.shape() == Shape{weight.size(1) * options.groups}, op,
        ": bias must be (", weight.size(1) * options.groups, "), got ", Kind{bias});
  for (size_t i : {0, 1}) {
    check_window(op, {weight.size(2 + static_cast<int>(i)), options.stride[i], options.padding[i],
                      options.dilation[i]});
    const int64_t most = std::max(options.stride[i], options.dilation[i]);
    check(options.output_padding[i] >= 0 && options.output_padding[i] < most, op,
          ": output_padding must be below stride or dilation and not below 0, got ",
          options.output_padding[i], " for a stride of ", options.stride[i], " and a dilation of ",
          options.dilation[i]);
  }
}

// No convolution takes an image with a whole stride more behind to x: such rows and columns are
// cut, or filled, from the result without padding.
bool pads_by_strides(const ConvTranspose2dOptions& options) {
  return options.output_padding[0] >= options.stride[0] ||
         options.output_padding[1] >= options.stride[1];
}
Tensor padded_by_strides(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const ConvTranspose2dOptions& options) {
  ConvTranspose2dOptions whole = options;
  whole.padding = whole.output_padding = {0, 0};
  const auto [height, width] = options.padding;
  const auto [rows, columns] = options.output_padding;
  const Tensor y = pad(conv_transpose2d(x, weight, {}, whole),
                       {-width, columns - width, -height, rows - height});
  return bias.defined() ? y + reshape(to(bias, y.dtype()), {bias.numel(), 1, 1}) : y;
}

Shape transposed_shape(const Tensor& x, const Tensor& weight,
                       const ConvTranspose2dOptions& options) {
  Shape shape = x.shape();
  shape[1] = weight.size(1) * options.groups;
  for (int i : {0, 1}) {
    const size_t j = static_cast<size_t>(i);
    shape[2 + i] = (x.size(2 + i) - 1) * options.stride[j] - 2 * options.padding[j] +
                   options.dilation[j] * (weight.size(2 + i) - 1) + options.output_padding[j] + 1;
    check(shape[2 + i] > 0, "conv_transpose2d: the padding of ", options.padding[j],
          " leaves nothing of x ", Kind{x}, " and weight ", Kind{weight});
  }
  return shape;
}

// Of conv_transpose2d: x is a gradient to the convolution with these parameters, y its input's.
struct TransposedGradient {
  Saved x, weight;
  kernels::ConvParams params;

  void operator()(Backward& backward) const {
    const Array dy = backward.grad().contiguous();
    if (backward.needed(0)) {
      const Array dx = empty_like(x.array());
      BINADE_DISPATCH(dy.device(), conv2d(dy, weight.array(), {}, params, dx));
      backward.slot(0).add(dx);
    }
    if (const auto dw = backward.slot(1).open())
      BINADE_DISPATCH(dy.device(), conv2d_backward(dy, weight.array(), x.array(), params, {}, 0,
                                                   dw.array, dw.beta, {}, 0));
    if (const auto db = backward.slot(2).open())
      BINADE_DISPATCH(dy.device(), reduce(kernels::ReduceOp::sum, dy,
                                          db.array.view({1, dy.size(1), 1, 1}), db.beta));
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor images = tape.input(0, x.array()), filters = tape.input(1, weight.array());
    const Tensor& dy = tape.grad();
    if (tape.needed(0)) tape.give(0, convolved(dy, filters, params));
    if (tape.needed(1)) tape.give(1, conv2d_weight_gradient(dy, images, params, filters.shape()));
    if (tape.needed(2)) tape.give(2, conv_bias_gradient(dy));
  }
};

}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv1dOptions& options) {
  return of_sequences("conv1d", conv2d, x, weight, bias, options, Conv2dOptions());
}

Tensor max_pool1d(const Tensor& x, const Pool1dOptions& options) {
  return pooled_sequences("max_pool1d", max_pool2d, x, of_one_row(options));
}
Tensor avg_pool1d(const Tensor& x, const Pool1dOptions& options) {
  return pooled_sequences("avg_pool1d", avg_pool2d, x, of_one_row(options));
}
Tensor adaptive_max_pool1d(const Tensor& x, int64_t size) {
  return pooled_sequences("adaptive_max_pool1d", adaptive_max_pool2d, x,
                          std::array<int64_t, 2>{1, size});
}
Tensor adaptive_avg_pool1d(const Tensor& x, int64_t size) {
  return pooled_sequences("adaptive_avg_pool1d", adaptive_avg_pool2d, x,
                          std::array<int64_t, 2>{1, size});
}

Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv3dOptions& options) {
  const char* op = "conv3d";
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, bias});
  const auto [depth_stride, height_stride, width_stride] = options.stride;
  const auto [depth_padding, height_padding, width_padding] = options.padding;
  const auto [depth_dilation, height_dilation, width_dilation] = options.dilation;
  check(x.dims() == 5 && weight.dims() == 5 && options.groups > 0 &&
            x.size(1) == weight.size(1) * options.groups && weight.size(0) % options.groups == 0,
        op, ": x must be (N, C, D, H, W) and weight (K, C/groups, Q, R, S), got x ", Kind{x},
        ", weight ", Kind{weight}, " and ", options.groups, " groups");
  check(x.numel() > 0 && weight.numel() > 0, op, ": x and weight must have elements, got x ",
        Kind{x}, " and weight ", Kind{weight});
  const int64_t planes = weight.size(2);
  const int64_t depth =
      window_positions(op, x, x.size(2), {planes, depth_stride, depth_padding, depth_dilation});

  const Tensor padded = depth_padding > 0 ? pad(x, {0, 0, 0, 0, depth_padding, depth_padding}) : x;
  std::vector<Tensor> taps;  // (N, C, Do, H, W), one a plane of the filters
  for (int64_t plane = 0; plane < planes; ++plane) {
    const int64_t first = plane * depth_dilation;
    taps.push_back(slice(padded, 2, first, first + (depth - 1) * depth_stride + 1, depth_stride));
  }
  const Tensor images = reshape(permute(stack(taps, 2), {0, 3, 1, 2, 4, 5}),
                                {x.size(0) * depth, x.size(1) * planes, x.size(3), x.size(4)});
  const Tensor filters =
      reshape(weight, {weight.size(0), weight.size(1) * planes, weight.size(3), weight.size(4)});
  const Tensor y = as_images(op, [&] {
    return conv2d(images, filters, bias,
                  {.stride = {height_stride, width_stride},
                   .padding = {height_padding, width_padding},
                   .dilation = {height_dilation, width_dilation},
                   .groups = options.groups});
  });
  return transpose(reshape(y, {x.size(0), depth, y.size(1), y.size(2), y.size(3)}), 1, 2);
}

Tensor conv_transpose2d(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias_in,
                        const ConvTranspose2dOptions& options) {
  check_transposed(x_in, weight_in, bias_in, options);
  const Shape shape = transposed_shape(x_in, weight_in, options);
  if (pads_by_strides(options)) return padded_by_strides(x_in, weight_in, bias_in, options);
  const Tensor x = autocast(PrecisionClass::half, x_in);
  const Tensor weight = autocast(PrecisionClass::half, weight_in);
  const Tensor bias = bias_in.defined() ? autocast(PrecisionClass::half, bias_in) : bias_in;
  check_same_dtype("conv_transpose2d", x, weight);
  if (bias.defined()) check_same_dtype("conv_transpose2d", weight, bias);
  const kernels::ConvParams params = params_of(options);
  const Array images = x.array().contiguous(), filters = weight.array().contiguous();
  const Array y = Array::empty(shape, x.dtype(), x.device());
  // What the convolution from y's shape to x's would make of a gradient x; of y it reads the sizes.
  BINADE_DISPATCH(y.device(), conv2d_backward(y, filters, images, params, y, 0, {}, 0, {}, 0));
  if (bias.defined())
    BINADE_DISPATCH(y.device(),
                    axpy(1, bias.array().reshape({y.size(1), 1, 1}).expand(y.shape()), y));
  return record("conv_transpose2d", {x, weight, bias}, y,
                TransposedGradient{Saved(images), Saved(filters), params});
}

Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose1dOptions& options) {
  ConvTranspose2dOptions rows;
  rows.output_padding[1] = options.output_padding;
  return of_sequences("conv_transpose1d", conv_transpose2d, x, weight, bias, options, rows);
}

}  // namespace binade
