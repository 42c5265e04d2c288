#include <binade/autograd/ops/conv_gradients.h>

#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/conv.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>

namespace binade::ops {

Tensor conv2d_input_gradient(const Tensor& dy, const Tensor& weight,
                             const kernels::ConvParams& params, const Shape& shape) {
  const Array given = dy.array().contiguous(), filters = weight.array().contiguous();
  const Array dx = Array::empty(shape, dy.dtype(), dy.device());
  if (given.numel() == 0 || filters.numel() == 0)
    dx.zero();
  else  // of its first argument it reads the sizes
    BINADE_DISPATCH(dx.device(), conv2d_backward(dx, filters, given, params, dx, 0, {}, 0, {}, 0));
  return record("conv2d_input_gradient", {dy, weight}, dx,
                [dy = Saved(dy), weight = Saved(weight), params](const Tensor& ddx) -> TensorList {
                  const Tensor w = weight.tensor();
                  return {convolved(ddx, w, params),
                          conv2d_weight_gradient(ddx, dy.tensor(), params, w.shape())};
                });
}

Tensor conv2d_weight_gradient(const Tensor& x, const Tensor& dy, const kernels::ConvParams& params,
                              const Shape& shape) {
  const Array images = x.array().contiguous(), given = dy.array().contiguous();
  const Array dw = Array::empty(shape, dy.dtype(), dy.device());
  if (images.numel() == 0 || given.numel() == 0 || dw.numel() == 0)
    dw.zero();
  else  // of its second argument it reads the sizes
    BINADE_DISPATCH(dw.device(), conv2d_backward(images, dw, given, params, {}, 0, dw, 0, {}, 0));
  return record("conv2d_weight_gradient", {x, dy}, dw,
                [x = Saved(x), dy = Saved(dy), params](const Tensor& ddw) -> TensorList {
                  const Tensor in = x.tensor();
                  return {conv2d_input_gradient(dy.tensor(), ddw, params, in.shape()),
                          convolved(in, ddw, params)};
                });
}

Tensor convolved(const Tensor& x, const Tensor& weight, const kernels::ConvParams& params) {
  return conv2d(x, weight, {},
                {.stride = {params.stride_h, params.stride_w},
                 .padding = {params.padding_h, params.padding_w},
                 .dilation = {params.dilation_h, params.dilation_w},
                 .groups = params.groups});
}

Tensor conv_bias_gradient(const Tensor& dy) {
  return sum(to(dy, statistics_dtype(dy.dtype())), {0, 2, 3});
}

}  // namespace binade::ops
