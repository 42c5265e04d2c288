// Reductions and scans along one dimension.
#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {
namespace {

// Position of the first largest of x[0 .. count); a NaN is larger than everything.
template <class C>
int64_t arg_max(const C* x, int64_t count) {
  if (has_nan(x, count)) return std::find_if(x, x + count, [](C v) { return v != v; }) - x;
  return std::find(x, x + count, max_of(x, count)) - x;
}
template <class C>
int64_t arg_min(const C* x, int64_t count) {
  if (has_nan(x, count)) return std::find_if(x, x + count, [](C v) { return v != v; }) - x;
  return std::find(x, x + count, min_of(x, count)) - x;
}

}  // namespace

void arg_reduce(bool largest, const Array& x, int dim, const Array& out) {
  visit_compute(x.dtype(), [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(dim), stride = x.stride(dim) * size_of(x.dtype());
    LineLoop({out, x}, dim, length).for_each([&] {
      return [&, reader = RowReader<C>()](const auto& line) mutable {
        const C* values = reader.read(line[1], stride, x.dtype(), length);
        const int64_t at = largest ? arg_max(values, length) : arg_min(values, length);
        *reinterpret_cast<int64_t*>(line[0]) = at;
      };
    });
  });
}

void logsumexp(const Array& x, int dim, const Array& out) {
  visit_real(x.dtype(), "logsumexp", [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(dim), stride = x.stride(dim) * size_of(x.dtype());
    LineLoop({out, x}, dim, length).for_each([&] {
      return [&, reader = RowReader<C>()](const auto& line) mutable {
        const double value = log_sum_exp(reader.read(line[1], stride, x.dtype(), length), length);
        convert(&value, DType::f64, line[0], out.dtype(), 1);
      };
    });
  });
}

void cumsum(const Array& x, int dim, bool reverse, const Array& out) {
  visit_compute(out.dtype(), [&](auto zero) {
    using C = decltype(zero);
    using Total = std::conditional_t<std::is_integral_v<C>, uint64_t, double>;
    const int64_t length = x.size(dim);
    const int64_t x_stride = x.stride(dim) * size_of(x.dtype());
    const int64_t out_stride = out.stride(dim) * size_of(out.dtype());
    LineLoop({out, x}, dim, length).for_each([&] {
      return [&, reader = RowReader<C>(), writer = RowWriter<C>()](const auto& line) mutable {
        const C* values = reader.read(line[1], x_stride, x.dtype(), length);
        C* sums = writer.target(line[0], out_stride, out.dtype(), length);
        Total total = 0;
        for (int64_t i = 0; i < length; ++i) {
          const int64_t at = reverse ? length - 1 - i : i;
          total += static_cast<Total>(values[at]);
          sums[at] = static_cast<C>(total);
        }
        writer.store();
      };
    });
  });
}

}  // namespace binade::kernels::cpu
