// Gradients of ops of two and three operands, an operand at a time, and through statistics.
#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/gradient_rules.h>

namespace binade::kernels::cpu {
namespace {

template <BinaryOp kOp>
void binary_gradients(const Array& a, const Array& b, const Array& dy, const Array& da,
                      const Array& db) {
  visit_real(dy.dtype(), "binary_backward", [&](auto zero) {
    using C = decltype(zero);
    if (da.defined())
      map<C>([](C d, C x, C y) { return binary_gradient(kOp, x, y, d).a; }, da, dy, a, b);
    if (db.defined())
      map<C>([](C d, C x, C y) { return binary_gradient(kOp, x, y, d).b; }, db, dy, a, b);
  });
}

template <TernaryOp kOp>
void ternary_gradients(const Array& a, const Array& b, const Array& c, double value,
                       const Array& dy, const Array& da, const Array& db, const Array& dc) {
  visit_real(dy.dtype(), "ternary_backward", [&](auto zero) {
    using C = decltype(zero);
    const C v = static_cast<C>(value);
    const auto run = [&](const Array& out, auto pick) {
      if (!out.defined()) return;
      map<C>([=](C d, C x, C y, C z) { return pick(ternary_gradient(kOp, x, y, z, v, d)); }, out,
             dy, a, b, c);
    };
    run(da, [](const OperandGradients<C>& g) { return g.a; });
    run(db, [](const OperandGradients<C>& g) { return g.b; });
    run(dc, [](const OperandGradients<C>& g) { return g.c; });
  });
}

}  // namespace

void binary_backward(BinaryOp op, const Array& a, const Array& b, const Array& dy, const Array& da,
                     const Array& db) {
  switch (op) {
    case BinaryOp::div:
      return binary_gradients<BinaryOp::div>(a, b, dy, da, db);
    case BinaryOp::atan2:
      return binary_gradients<BinaryOp::atan2>(a, b, dy, da, db);
    case BinaryOp::maximum:
      return binary_gradients<BinaryOp::maximum>(a, b, dy, da, db);
    case BinaryOp::minimum:
      return binary_gradients<BinaryOp::minimum>(a, b, dy, da, db);
    case BinaryOp::distance:
      return binary_gradients<BinaryOp::distance>(a, b, dy, da, db);
    default:
      fail("binary_backward: not for this op");
  }
}

void ternary_backward(TernaryOp op, const Array& a, const Array& b, const Array& c, double value,
                      const Array& dy, const Array& da, const Array& db, const Array& dc) {
  switch (op) {
    case TernaryOp::lerp:
      return ternary_gradients<TernaryOp::lerp>(a, b, c, value, dy, da, db, dc);
    case TernaryOp::addcmul:
      return ternary_gradients<TernaryOp::addcmul>(a, b, c, value, dy, da, db, dc);
    case TernaryOp::clamp:
      return ternary_gradients<TernaryOp::clamp>(a, b, c, value, dy, da, db, dc);
  }
}

void clamp_backward(const Array& x, double low, double high, const Array& dy, const Array& dx) {
  visit_real(dy.dtype(), "clamp_backward", [&](auto zero) {
    using C = decltype(zero);
    const C lowest = static_cast<C>(low), highest = static_cast<C>(high);
    map<C>([=](C value, C d) { return value < lowest || value > highest ? C{0} : d; }, dx, x, dy);
  });
}

void weighted_sum(const Array& x, const Array& center, const Array& a, const Array& y,
                  const Array& b, const Array& out) {
  visit_real(out.dtype(), "weighted_sum", [&](auto zero) {
    using C = decltype(zero);
    if (y.defined())
      map<C>([](C v, C p, C w, C q) { return v * p + w * q; }, out, x, a, y, b);
    else if (center.defined())
      map<C>([](C v, C c, C p) { return (v - c) * p; }, out, x, center, a);
    else
      map<C>([](C v, C p) { return v * p; }, out, x, a);
  });
}

}  // namespace binade::kernels::cpu
