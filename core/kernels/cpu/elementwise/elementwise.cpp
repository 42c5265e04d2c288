#include <binade/core/kernels/elementwise.h>

#include <atomic>
#include <cmath>
#include <limits>

#include <binade/core/kernels/cpu/elementwise/map.h>

namespace binade::kernels::cpu {
namespace {

// Arithmetic that wraps instead of being undefined.
int64_t wrap(uint64_t value) {
  return static_cast<int64_t>(value);
}

template <class C>
struct Add {
  C operator()(C a, C b) const {
    if constexpr (std::is_integral_v<C>) return wrap(static_cast<uint64_t>(a) + b);
    return a + b;
  }
};
template <class C>
struct Sub {
  C operator()(C a, C b) const {
    if constexpr (std::is_integral_v<C>) return wrap(static_cast<uint64_t>(a) - b);
    return a - b;
  }
};
template <class C>
struct Mul {
  C operator()(C a, C b) const {
    if constexpr (std::is_integral_v<C>) return wrap(static_cast<uint64_t>(a) * b);
    return a * b;
  }
};
template <class C>
struct Div {  // integers: the divisor was found not to be 0
  C operator()(C a, C b) const {
    if constexpr (std::is_integral_v<C>) return b == -1 ? wrap(-static_cast<uint64_t>(a)) : a / b;
    return a / b;
  }
};
template <class C>
struct Pow {
  C operator()(C a, C b) const { return std::pow(a, b); }
};
template <class C>
struct Atan2 {
  C operator()(C a, C b) const { return std::atan2(a, b); }
};
template <class C>
struct Distance {
  C operator()(C a, C b) const { return std::abs(a - b); }
};
// A NaN in either operand gives NaN.
template <class C>
struct Maximum {
  C operator()(C a, C b) const { return a > b || a != a ? a : b; }
};
template <class C>
struct Minimum {
  C operator()(C a, C b) const { return a < b || a != a ? a : b; }
};

void check_divisor(const View& divisor) {
  std::atomic<bool> zero = false;
  StridedLoop({divisor}).for_each([&](const Run& run) {
    TileReader<int64_t> reader;
    const int64_t* values = reader.read(run, 0, divisor.dtype);
    if (std::find(values, values + run.count, 0) != values + run.count) zero = true;
  });
  check(!zero, "integer division by zero");
}

// Calls visitor(functor) with the functor of an operation in C.
template <class C, class Visitor>
void visit_binary(BinaryOp op, Visitor&& visitor) {
  switch (op) {
    case BinaryOp::add:
      return visitor(Add<C>{});
    case BinaryOp::sub:
      return visitor(Sub<C>{});
    case BinaryOp::mul:
      return visitor(Mul<C>{});
    case BinaryOp::div:
      return visitor(Div<C>{});
    case BinaryOp::pow:
      if constexpr (std::is_integral_v<C>) fail("pow needs a floating-point dtype");
      return visitor(Pow<C>{});
    case BinaryOp::atan2:
      if constexpr (std::is_integral_v<C>) fail("atan2 needs a floating-point dtype");
      return visitor(Atan2<C>{});
    case BinaryOp::maximum:
      return visitor(Maximum<C>{});
    case BinaryOp::minimum:
      return visitor(Minimum<C>{});
    case BinaryOp::distance:
      if constexpr (std::is_integral_v<C>) fail("distance needs a floating-point dtype");
      return visitor(Distance<C>{});
  }
}

template <class C>
void binary_views(BinaryOp op, const View& a, const View& b, const View& out) {
  if (std::is_integral_v<C> && op == BinaryOp::div) check_divisor(b);
  visit_binary<C>(op, [&](auto functor) { map<C>(functor, out, a, b); });
}

// A double as C; integers saturate.
template <class C>
C scalar_as(double value) {
  if constexpr (std::is_integral_v<C>) {
    if (value >= 0x1p63) return std::numeric_limits<C>::max();
    if (value < -0x1p63) return std::numeric_limits<C>::min();
  }
  return static_cast<C>(value);
}

template <class C>
void compare_as(CompareOp op, const Array& a, const Array& b, const Array& out) {
  const auto apply = [&](auto test) { map<C, bool>(test, out, a, b); };
  switch (op) {
    case CompareOp::eq:
      return apply([](C x, C y) { return x == y; });
    case CompareOp::ne:
      return apply([](C x, C y) { return x != y; });
    case CompareOp::lt:
      return apply([](C x, C y) { return x < y; });
    case CompareOp::le:
      return apply([](C x, C y) { return x <= y; });
    case CompareOp::gt:
      return apply([](C x, C y) { return x > y; });
    case CompareOp::ge:
      return apply([](C x, C y) { return x >= y; });
    case CompareOp::logical_and:
      return apply([](C x, C y) { return (x != 0) & (y != 0); });
    case CompareOp::logical_or:
      return apply([](C x, C y) { return (x != 0) | (y != 0); });
  }
}

template <class C>
void test_as(TestOp op, const Array& x, const Array& out) {
  const auto apply = [&](auto test) { map<C, bool>(test, out, x); };
  constexpr C kInf = std::numeric_limits<C>::infinity();  // 0 for integers, which never ask
  constexpr bool kInteger = std::is_integral_v<C>;
  switch (op) {
    case TestOp::is_finite:
      return apply([](C v) { return kInteger || std::abs(v) < kInf; });
    case TestOp::is_nan:
      return apply([](C v) { return v != v; });
    case TestOp::is_inf:
      return apply([](C v) { return !kInteger && std::abs(v) == kInf; });
    case TestOp::logical_not:
      return apply([](C v) { return v == 0; });
  }
}

}  // namespace

void binary(BinaryOp op, const Array& a, const Array& b, const Array& out) {
  visit_compute(out.dtype(), [&](auto zero) { binary_views<decltype(zero)>(op, a, b, out); });
}

void binary_scalar(BinaryOp op, const Array& a, double value, bool value_first, const Array& out) {
  visit_compute(out.dtype(), [&](auto zero) {
    using C = decltype(zero);
    if (op == BinaryOp::pow && value == 2 && !value_first) {
      map<C>([](C x) { return x * x; }, out, a);
      return;
    }
    C scalar = scalar_as<C>(value);
    const View expanded = View::of_value(scalar, out.shape());
    if (value_first)
      binary_views<C>(op, expanded, a, out);
    else
      binary_views<C>(op, a, expanded, out);
  });
}

void compare(CompareOp op, const Array& a, const Array& b, const Array& out) {
  visit_compute(a.dtype(), [&](auto zero) { compare_as<decltype(zero)>(op, a, b, out); });
}

void test(TestOp op, const Array& x, const Array& out) {
  visit_compute(x.dtype(), [&](auto zero) { test_as<decltype(zero)>(op, x, out); });
}

void ternary(TernaryOp op, const Array& a, const Array& b, const Array& c, double value,
             const Array& out) {
  visit_real(out.dtype(), "ternary", [&](auto zero) {
    using C = decltype(zero);
    const C factor = static_cast<C>(value);
    switch (op) {
      case TernaryOp::lerp:  // from the nearer end, so that weights 0 and 1 give a and b
        return map<C>(
            [=](C from, C to, C share) {
              const C way = to - from, weight = factor * share;
              return weight < C(0.5) ? from + weight * way : to - way * (1 - weight);
            },
            out, a, b, c);
      case TernaryOp::addcmul:
        return map<C>([=](C x, C left, C right) { return x + factor * left * right; }, out, a, b,
                      c);
      case TernaryOp::clamp:
        return map<C>([](C x, C low, C high) { return Minimum<C>()(Maximum<C>()(x, low), high); },
                      out, a, b, c);
    }
  });
}

void where(const Array& condition, const Array& a, const Array& b, const Array& out) {
  visit_compute(out.dtype(), [&](auto zero) {
    using C = decltype(zero);
    StridedLoop({out, a, b, condition}).for_each([&](const Run& run) {
      TileReader<C> a_reader, b_reader;
      TileReader<bool> condition_reader;
      TileWriter<C> writer;
      const C* a_tile = a_reader.read(run, 1, a.dtype());
      const C* b_tile = b_reader.read(run, 2, b.dtype());
      const bool* mask = condition_reader.read(run, 3, DType::boolean);
      C* out_tile = writer.target(run, 0, out.dtype());
#pragma omp simd
      for (int64_t i = 0; i < run.count; ++i) out_tile[i] = mask[i] ? a_tile[i] : b_tile[i];
      writer.store(run.count);
    });
  });
}

void clamp(const Array& x, double low, double high, const Array& out) {
  visit_compute(out.dtype(), [&](auto zero) {
    using C = decltype(zero);
    const C lowest = scalar_as<C>(low), highest = scalar_as<C>(high);
    map<C>(
        [=](C value) {
          const C raised = value < lowest ? lowest : value;  // keeps NaN
          return raised > highest ? highest : raised;
        },
        out, x);
  });
}

void axpy(double alpha, const Array& x, const Array& y) {
  const DType widest = x.dtype() == DType::f64 ? x.dtype() : y.dtype();
  visit_real(widest, "axpy", [&](auto zero) {
    using C = decltype(zero);
    const C factor = static_cast<C>(alpha);
    map<C>([=](C old, C value) { return old + factor * value; }, y, y, x);
  });
}

void scale(const Array& x, const Array& factor, const Array& out, float beta) {
  visit_real(x.dtype(), "scale", [&](auto zero) {
    using C = decltype(zero);
    const C by = factor.data<C>()[0];
    if (beta != 0) return map<C>([=](C old, C value) { return old + by * value; }, out, out, x);
    if (x.data() != out.data() || by != 1) map<C>([=](C value) { return by * value; }, out, x);
  });
}

}  // namespace binade::kernels::cpu
