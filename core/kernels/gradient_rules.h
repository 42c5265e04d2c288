// Gradients of the ops of two and three operands, for the kernels of both devices: what of dy goes
// to each operand. Called with a constant op they fold to that op's code.
#pragma once

#include <cmath>

#include <binade/core/host_device.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels {

template <class C>
struct OperandGradients {
  C a, b, c;
};

// √(y² + x²), scaled by the larger one so that no square overflows or vanishes. NaN at the origin.
template <class C>
BINADE_HOST_DEVICE inline C radius_of(C y, C x) {
  const C height = std::fabs(y), width = std::fabs(x);
  const C scale = height > width || height != height ? height : width;
  return scale * std::sqrt(y / scale * (y / scale) + x / scale * (x / scale));
}

// For div, atan2, maximum, minimum and distance.
template <class C>
BINADE_HOST_DEVICE inline OperandGradients<C> binary_gradient(BinaryOp op, C a, C b, C dy) {
  switch (op) {
    case BinaryOp::div:
      return {dy / b, -(dy / b) * (a / b), C(0)};
    case BinaryOp::atan2: {
      // Over the radius twice: its square would leave the range long before the angle does.
      const C radius = radius_of(a, b);
      return {dy * (b / radius) / radius, -(dy * (a / radius) / radius), C(0)};
    }
    // Half where both are equal; a NaN never loses, so that its gradient is not hidden.
    case BinaryOp::maximum: {
      const C share = a == b ? dy * C(0.5) : dy;
      return {a < b ? C(0) : share, a > b ? C(0) : share, C(0)};
    }
    case BinaryOp::minimum: {
      const C share = a == b ? dy * C(0.5) : dy;
      return {a > b ? C(0) : share, a < b ? C(0) : share, C(0)};
    }
    case BinaryOp::distance: {
      const C way = a - b, direction = way > C(0) ? C(1) : way < C(0) ? C(-1) : way;
      return {dy * direction, -(dy * direction), C(0)};
    }
    default:
      return {C(0), C(0), C(0)};
  }
}

template <class C>
BINADE_HOST_DEVICE inline OperandGradients<C> ternary_gradient(TernaryOp op, C a, C b, C c, C value,
                                                               C dy) {
  switch (op) {
    case TernaryOp::lerp:
      return {dy * (C(1) - c * value), dy * (c * value), dy * (b - a) * value};
    case TernaryOp::addcmul:
      return {dy, dy * c * value, dy * b * value};
    case TernaryOp::clamp:  // written so that a NaN of a keeps its gradient
      return {a < b || a > c ? C(0) : dy, a < b && b <= c ? dy : C(0), a > c || c < b ? dy : C(0)};
  }
  return {C(0), C(0), C(0)};
}

// What the gradients of a cosine c of a and b are made of: da = b·across + a·along_a and db =
// a·across
// + b·along_b. Each length counts as at least eps, and passes nothing on where it was raised or is
// 0.
template <class C>
struct CosineScales {
  C across, along_a, along_b;

  BINADE_HOST_DEVICE CosineScales(C dy, C a_length, C b_length, C cosine, C eps)
      : across(dy / raised(a_length, eps) / raised(b_length, eps)),
        along_a(along(dy * cosine, a_length, eps)),
        along_b(along(dy * cosine, b_length, eps)) {}

 private:
  static BINADE_HOST_DEVICE C raised(C length, C eps) { return length < eps ? eps : length; }
  static BINADE_HOST_DEVICE C along(C value, C length, C eps) {
    return length < eps || length == C(0) ? C(0) : -(value / length / length);
  }
};

}  // namespace binade::kernels
