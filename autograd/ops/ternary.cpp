// Ops of three operands, from arithmetic.h.
#include <array>
#include <cmath>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

using namespace ops;
using kernels::TernaryOp;

namespace {

struct Operand {
  const char* name;
  Tensor tensor;
};

// Three operands in one floating dtype, and the shape they broadcast to.
struct Operands3 {
  Tensor a, b, c;
  Shape shape;

  Operands3(const char* op, const Operand& first, const Operand& second, const Operand& third)
      : a(first.tensor), b(second.tensor), c(third.tensor) {
    for (const Operand* operand : {&first, &second, &third})
      check_floating(op, operand->name, operand->tensor);
    check_device(op, {a, b, c});
    shape = broadcast(broadcast(a.shape(), b.shape(), op), c.shape(), op);
    const DType dtype = promote(promote(a.dtype(), b.dtype()), c.dtype());
    for (Tensor* tensor : {&a, &b, &c}) *tensor = to(*tensor, dtype);
  }
};

// The gradients in one pass, where none has to be summed; otherwise nothing.
TensorList fused_gradients(TernaryOp op, double value, const std::array<Saved, 3>& operands,
                           const std::array<bool, 3>& needs, const Tensor& dy) {
  std::array<Array, 3> in, out;
  for (size_t i = 0; i < 3; ++i) {
    in[i] = operands[i].array();
    if (!needs[i]) continue;
    if (in[i].shape() != dy.shape()) return {};
    out[i] = Array::empty(dy.shape(), dy.dtype(), dy.device());
  }
  for (Array& operand : in) operand = operand.expand(dy.shape());
  BINADE_DISPATCH(dy.device(), ternary_backward(op, in[0], in[1], in[2], value, dy.array(), out[0],
                                                out[1], out[2]));
  TensorList gradients;
  for (const Array& gradient : out)
    gradients.push_back(gradient.defined() ? Tensor(gradient) : Tensor());
  return gradients;
}

// Records op(a, b, c). `gradients` gives those of a, b and c in dy's shape from dy and the saved
// operands, in f32 for half types, so that each is rounded once; what nobody needs is not asked
// for.
template <class Gradient>
Tensor record_ternary(const char* op, TernaryOp kind, const Operands3& x, double value,
                      Gradient gradient) {
  const Array y = Array::empty(x.shape, x.a.dtype(), x.a.device());
  BINADE_DISPATCH(y.device(),
                  ternary(kind, x.a.array().expand(x.shape), x.b.array().expand(x.shape),
                          x.c.array().expand(x.shape), value, y));
  return record(op, {x.a, x.b, x.c}, y,
                [kind, value, gradient, saved = std::array{Saved(x.a), Saved(x.b), Saved(x.c)},
                 needs = std::array{x.a.requires_grad(), x.b.requires_grad(), x.c.requires_grad()}](
                    const Tensor& dy) -> TensorList {
                  if (!grad_enabled()) {
                    TensorList fused = fused_gradients(kind, value, saved, needs, dy);
                    if (!fused.empty()) return fused;
                  }
                  const DType dtype = dy.dtype(), wide = statistics_dtype(dtype);
                  const Tensor given = to(dy, wide);
                  TensorList in, gradients(3);
                  for (const Saved& operand : saved) in.push_back(to(operand.tensor(), wide));
                  for (size_t i = 0; i < 3; ++i)
                    if (needs[i])
                      gradients[i] = to(
                          sum_to(gradient(static_cast<int>(i), given, in), in[i].shape()), dtype);
                  return gradients;
                });
}

// a + factor·weight·(b − a).
Tensor lerp_with(const Tensor& a, const Tensor& b, const Tensor& weight, double factor) {
  const Operands3 x("lerp", {"a", a}, {"b", b}, {"weight", weight});
  return record_ternary("lerp", TernaryOp::lerp, x, factor,
                        [factor](int operand, const Tensor& dy, const TensorList& in) {
                          const Tensor way = in[2] * factor;
                          if (operand == 0) return dy * (1 - way);
                          return operand == 1 ? dy * way : dy * (in[1] - in[0]) * factor;
                        });
}

}  // namespace

Tensor lerp(const Tensor& a, const Tensor& b, const Tensor& weight) {
  return lerp_with(a, b, weight, 1);
}

Tensor lerp(const Tensor& a, const Tensor& b, double weight) {
  check_floating("lerp", "a", a);
  // Beside halves a tensor could only hold the rounded weight.
  return lerp_with(a, b, Tensor::scalar(1, a.dtype(), a.device()), weight);
}

Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b, double value) {
  const Operands3 in("addcmul", {"x", x}, {"a", a}, {"b", b});
  return record_ternary("addcmul", TernaryOp::addcmul, in, value,
                        [value](int operand, const Tensor& dy, const TensorList& in) {
                          if (operand == 0) return dy;
                          return dy * in[operand == 1 ? 2 : 1] * value;
                        });
}

Tensor clamp(const Tensor& x, const Tensor& low, const Tensor& high) {
  check_floating("clamp", "x", x);
  check(low.defined() || high.defined(), "clamp: give low, high or both");
  const auto bound = [&](const Tensor& given, double nothing) {
    return given.defined() ? given : Tensor::scalar(nothing, x.dtype(), x.device());
  };
  const Operands3 in("clamp", {"x", x}, {"low", bound(low, -INFINITY)},
                     {"high", bound(high, INFINITY)});
  return record_ternary(
      "clamp", TernaryOp::clamp, in, 0, [](int operand, const Tensor& dy, const TensorList& in) {
        const Tensor& x = in[0];
        const Tensor &low = in[1], &high = in[2];
        const Tensor zero = Tensor::scalar(0, dy.dtype(), dy.device());
        if (operand == 0) {  // written so that a NaN of x keeps its gradient
          const Tensor outside = logical_or(less(x, low), greater(x, high));
          return where(outside, zero, dy);
        }
        if (operand == 1) return where(logical_and(less(x, low), less_equal(low, high)), dy, zero);
        return where(logical_or(greater(x, high), less(high, low)), dy, zero);
      });
}

}  // namespace binade
