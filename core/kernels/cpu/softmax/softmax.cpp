#include <cmath>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/softmax.h>

namespace binade::kernels::cpu {
namespace {

// function(x row, y row), which writes y, for all rows of arrays of one shape.
template <class C, class RowFunction>
void map_rows(const Array& x, const Array& y, const RowFunction& function) {
  const int64_t length = x.size(-1);
  LineLoop({y, x}, -1, length).for_each([&] {
    return [&, reader = RowReader<C>(), writer = RowWriter<C>()](const auto& line) mutable {
      const C* in = reader.read(line[1], x.dtype(), length);
      C* out = writer.target(line[0], y.dtype(), length);
      function(in, out);
      writer.store();
    };
  });
}

// dx = beta·dx + gradient(row)(y, dy), where row_gradient makes the row's function of its elements.
template <class C, class RowGradient>
void backward_rows(const Array& y, const Array& dy, const Array& dx, float beta,
                   const RowGradient& row_gradient) {
  const int64_t length = y.size(-1);
  LineLoop({dx, y, dy}, -1, length).for_each([&] {
    return [&, readers = std::array<RowReader<C>, 3>(),
            writer = RowWriter<C>()](const auto& line) mutable {
      const C* value = readers[0].read(line[1], y.dtype(), length);
      const C* gradient = readers[1].read(line[2], dy.dtype(), length);
      const C* old = beta == 0 ? nullptr : readers[2].read(line[0], dx.dtype(), length);
      C* out = writer.target(line[0], dx.dtype(), length);
      const auto function = row_gradient(value, gradient);
      if (beta == 0) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) out[i] = function(value[i], gradient[i]);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i) out[i] = old[i] + function(value[i], gradient[i]);
      }
      writer.store();
    };
  });
}

}  // namespace

void softmax(const Array& x, const Array& y) {
  visit_real(x.dtype(), "softmax", [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(-1);
    map_rows<C>(x, y, [=](const C* in, C* out) {
      const C largest = max_of(in, length);
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) out[i] = fast_exp(in[i] - largest);
      const C factor =
          static_cast<C>(1 / long_sum_of<C>(length, [=](int64_t i) { return out[i]; }));
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) out[i] *= factor;
    });
  });
}

void log_softmax(const Array& x, const Array& y) {
  visit_real(x.dtype(), "log_softmax", [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(-1);
    map_rows<C>(x, y, [=](const C* in, C* out) {
      const C largest = max_of(in, length);
      const C log_sum = static_cast<C>(
          std::log(long_sum_of<C>(length, [=](int64_t i) { return fast_exp(in[i] - largest); })));
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) out[i] = in[i] - largest - log_sum;
    });
  });
}

void softmax_backward(const Array& y, const Array& dy, const Array& dx, float beta) {
  visit_real(y.dtype(), "softmax_backward", [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = y.size(-1);
    backward_rows<C>(y, dy, dx, beta, [=](const C* value, const C* gradient) {
      const C mean =
          static_cast<C>(long_sum_of<C>(length, [=](int64_t i) { return value[i] * gradient[i]; }));
      return [=](C v, C d) { return v * (d - mean); };
    });
  });
}

void log_softmax_backward(const Array& y, const Array& dy, const Array& dx, float beta) {
  visit_real(y.dtype(), "log_softmax_backward", [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = y.size(-1);
    backward_rows<C>(y, dy, dx, beta, [=](const C*, const C* gradient) {
      const C total =
          static_cast<C>(long_sum_of<C>(length, [=](int64_t i) { return gradient[i]; }));
      return [=](C v, C d) { return d - fast_exp(v) * total; };
    });
  });
}

}  // namespace binade::kernels::cpu
