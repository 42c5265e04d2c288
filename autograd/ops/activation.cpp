#include <binade/autograd/ops/activation.h>

#include <cmath>
#include <numbers>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/dropout.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/random.h>
#include <binade/core/kernels/unary_rules.h>
#include <binade/core/random.h>

namespace binade {

using namespace ops;
using kernels::UnaryOp;

namespace {

// op'(x) in public ops, for gradients of gradients; for half types it is computed in f32.
using Derivative = Tensor (*)(const Tensor& x);

Tensor activate(const char* name, UnaryOp op, const Tensor& x, Derivative derivative) {
  check_floating(name, "x", x);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), unary(op, x.array(), y));
  return record(name, {x}, y, [op, x = Saved(x), derivative](const Tensor& dy) -> TensorList {
    if (grad_enabled()) {
      const DType wide = statistics_dtype(dy.dtype());
      const Tensor slope = derivative(to(x.tensor(), wide));
      Tensor arriving = to(dy, wide);
      if (has_flat_places(op)) {
        const Tensor zero = Tensor::scalar(0, wide, dy.device());
        arriving = where(equal(slope, zero), zero, arriving);
      }
      return {to(arriving * slope, dy.dtype())};
    }
    const Array dx = Array::empty(dy.shape(), dy.dtype(), dy.device());
    BINADE_DISPATCH(dy.device(), unary_backward(op, x.array(), dy.array(), dx, 0));
    return {Tensor(dx)};
  });
}

Tensor relu_derivative(const Tensor& x) {
  const auto number = [&](double value) { return Tensor::scalar(value, x.dtype(), x.device()); };
  return where(less_equal(x, number(0)), number(0), number(1));  // 1 at NaN, as in the kernel
}

Tensor sigmoid_derivative(const Tensor& x) {
  const Tensor s = sigmoid(x);
  return s * (1 - s);
}

Tensor tanh_derivative(const Tensor& x) {
  return 1 - square(tanh(x));
}

Tensor silu_derivative(const Tensor& x) {
  const Tensor s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

Tensor gelu_derivative(const Tensor& x) {
  const Tensor phi = exp(square(x) * -0.5) * (std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
  return 0.5 * (1 + erf(x * (std::numbers::sqrt2 / 2))) + x * phi;
}

Tensor gelu_tanh_derivative(const Tensor& x) {
  constexpr double kScale = std::numbers::sqrt2 * std::numbers::inv_sqrtpi, kCubic = 0.044715;
  const Tensor t = tanh(kScale * x * (1 + kCubic * square(x)));
  return 0.5 * (1 + t) + 0.5 * kScale * x * (1 - square(t)) * (1 + 3 * kCubic * square(x));
}

Tensor hardswish_derivative(const Tensor& x) {
  const auto number = [&](double value) { return Tensor::scalar(value, x.dtype(), x.device()); };
  const Tensor inside = where(less(x, number(3)), x / 3.0 + 0.5, number(1));
  return where(less_equal(x, number(-3)), number(0), inside);
}

Tensor logsigmoid_derivative(const Tensor& x) {
  return sigmoid(-x);
}

Tensor mish_derivative(const Tensor& x) {
  const Tensor gate = tanh(softplus(x));
  return gate + x * (1 - square(gate)) * sigmoid(x);
}

// op(x) with the number c; op'(x) in public ops as above.
template <class ShapedDerivative>
Tensor activate_with(const char* name, kernels::ShapedOp op, const Tensor& x, double c,
                     ShapedDerivative derivative) {
  check_floating(name, "x", x);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), shaped(op, x.array(), c, y));
  return record(name, {x}, y, [=, x = Saved(x)](const Tensor& dy) -> TensorList {
    if (grad_enabled()) {
      const DType wide = statistics_dtype(dy.dtype());
      return {to(to(dy, wide) * derivative(to(x.tensor(), wide)), dy.dtype())};
    }
    const Array dx = Array::empty(dy.shape(), dy.dtype(), dy.device());
    BINADE_DISPATCH(dy.device(), shaped_backward(op, x.array(), dy.array(), c, dx, 0));
    return {Tensor(dx)};
  });
}

// below where x is not positive (NaN too), 1 elsewhere.
Tensor one_above_zero(const Tensor& x, const Tensor& below) {
  const auto number = [&](double value) { return Tensor::scalar(value, x.dtype(), x.device()); };
  return where(greater(x, number(0)), number(1), below);
}

struct SwigluPackedGradient {
  Saved rows;
  int64_t hidden;

  void operator()(Backward& backward) const {
    const auto to = backward.slot(0).open();
    const Array x = rows.array(), dy = as_rows(backward.grad());
    const Array dx = rows_to_write(to.array);
    BINADE_DISPATCH(x.device(),
                    swiglu_backward(x.slice(1, 0, hidden), x.slice(1, hidden), dy,
                                    dx.slice(1, 0, hidden), dx.slice(1, hidden), to.beta));
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor x = tape.input(0, rows.array());
    tape.through(swiglu(slice(x, 1, 0, hidden), slice(x, 1, hidden)), tape.grad());
  }
};

}  // namespace

namespace ops {

Tensor dropout_with(const PhiloxKey& key, double probability, const Tensor& x) {
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), dropout(x.array(), key, probability, y, 0));
  return record("dropout", {x}, y, [key, probability](const Tensor& dy) -> TensorList {
    return {dropout_with(key, probability, dy)};
  });
}

}  // namespace ops

Tensor relu(const Tensor& x) {
  return activate("relu", UnaryOp::relu, x, relu_derivative);
}
Tensor sigmoid(const Tensor& x) {
  return activate("sigmoid", UnaryOp::sigmoid, x, sigmoid_derivative);
}
Tensor tanh(const Tensor& x) {
  return activate("tanh", UnaryOp::tanh, x, tanh_derivative);
}
Tensor silu(const Tensor& x) {
  return activate("silu", UnaryOp::silu, x, silu_derivative);
}
Tensor gelu(const Tensor& x) {
  return activate("gelu", UnaryOp::gelu, x, gelu_derivative);
}
Tensor gelu_tanh(const Tensor& x) {
  return activate("gelu_tanh", UnaryOp::gelu_tanh, x, gelu_tanh_derivative);
}
Tensor softplus(const Tensor& x) {
  return activate("softplus", UnaryOp::softplus, x, sigmoid);
}
Tensor softplus(const Tensor& x, double beta) {
  check(beta > 0, "softplus: beta must be above 0, got ", beta);
  return activate_with("softplus", kernels::ShapedOp::softplus, x, beta,
                       [beta](const Tensor& x) { return sigmoid(x * beta); });
}
Tensor leaky_relu(const Tensor& x, double negative_slope) {
  return activate_with("leaky_relu", kernels::ShapedOp::leaky_relu, x, negative_slope,
                       [negative_slope](const Tensor& x) {
                         return one_above_zero(
                             x, Tensor::scalar(negative_slope, x.dtype(), x.device()));
                       });
}
Tensor elu(const Tensor& x, double alpha) {
  return activate_with("elu", kernels::ShapedOp::elu, x, alpha, [alpha](const Tensor& x) {
    // Positive elements are cut: exp would overflow where its value is not used. By relu, whose
    // gradient at 0 is 0.
    return one_above_zero(x, exp(-relu(-x)) * alpha);
  });
}
Tensor hardswish(const Tensor& x) {
  return activate("hardswish", UnaryOp::hardswish, x, hardswish_derivative);
}
Tensor logsigmoid(const Tensor& x) {
  return activate("logsigmoid", UnaryOp::logsigmoid, x, logsigmoid_derivative);
}
Tensor mish(const Tensor& x) {
  return activate("mish", UnaryOp::mish, x, mish_derivative);
}

Tensor swiglu(const Tensor& gate_in, const Tensor& up_in) {
  check_floating("swiglu", "gate", gate_in);
  check_floating("swiglu", "up", up_in);
  check_device("swiglu", {gate_in, up_in});
  check_same_shape("swiglu", gate_in, up_in);
  Tensor gate = gate_in, up = up_in;
  autocast_widest(gate, up);
  const Array y = Array::empty(gate.shape(), gate.dtype(), gate.device());
  BINADE_DISPATCH(y.device(), swiglu(gate.array(), up.array(), y));
  return record(
      "swiglu", {gate, up}, y,
      [gate = Saved(gate), up = Saved(up)](const Tensor& dy) -> TensorList {
        if (grad_enabled()) {
          const DType wide = statistics_dtype(dy.dtype());
          const Tensor g = to(gate.tensor(), wide), u = to(up.tensor(), wide);
          const Tensor d = to(dy, wide);
          return {to(d * u * silu_derivative(g), dy.dtype()), to(d * silu(g), dy.dtype())};
        }
        const Array dgate = Array::empty(dy.shape(), dy.dtype(), dy.device());
        const Array dup = empty_like(dgate);
        BINADE_DISPATCH(dy.device(),
                        swiglu_backward(gate.array(), up.array(), dy.array(), dgate, dup, 0));
        return {Tensor(dgate), Tensor(dup)};
      });
}

Tensor swiglu_packed(const Tensor& gate_up) {
  const char* op = "swiglu_packed";
  check_floating(op, "gate_up", gate_up);
  check(gate_up.dims() >= 1 && gate_up.size(-1) % 2 == 0, op, ": gate_up must be (…, 2H), got ",
        Kind{gate_up});
  const int64_t hidden = gate_up.size(-1) / 2;
  const Array rows = as_rows(gate_up.array());
  const auto activate = [shape = with_last(gate_up.shape(), hidden), hidden](const Array& rows) {
    const Array y = Array::empty(shape, rows.dtype(), rows.device());
    BINADE_DISPATCH(y.device(),
                    swiglu(rows.slice(1, 0, hidden), rows.slice(1, hidden), rows_to_write(y)));
    return y;
  };
  const Tensor result =
      record(op, {gate_up}, activate(rows), SwigluPackedGradient{Saved(rows), hidden});
  if (recomputes(Recompute::activations) && result.requires_grad())
    attach_recipe(result, [rows = Saved(rows), activate] { return activate(rows.array()); });
  return result;
}

Tensor dropout(const Tensor& x, double probability, bool training) {
  check_floating("dropout", "x", x);
  check(probability >= 0 && probability <= 1, "dropout: probability must be in [0, 1], got ",
        probability);
  if (!training || probability == 0) return x;
  RandomState& random = RandomState::current();
  const PhiloxKey key{random.seed(), random.step_on(x.device()), random.next_place()};
  return dropout_with(key, probability, x);
}

}  // namespace binade
