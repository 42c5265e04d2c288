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

template <class C>
using Running = std::conditional_t<std::is_integral_v<C>, uint64_t, double>;

// out[i] = join(…join(start, x[0])…, x[i]) along `dim`, from the back if `reverse`.
template <class Join>
void scan(const Array& x, int dim, bool reverse, int start, const Array& out, const Join& join) {
  visit_compute(out.dtype(), [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(dim);
    const int64_t x_stride = x.stride(dim) * size_of(x.dtype());
    const int64_t out_stride = out.stride(dim) * size_of(out.dtype());
    LineLoop({out, x}, dim, length).for_each([&] {
      return [&, reader = RowReader<C>(), writer = RowWriter<C>()](const auto& line) mutable {
        const C* values = reader.read(line[1], x_stride, x.dtype(), length);
        C* results = writer.target(line[0], out_stride, out.dtype(), length);
        auto total = static_cast<Running<C>>(start);
        for (int64_t i = 0; i < length; ++i) {
          const int64_t at = reverse ? length - 1 - i : i;
          total = join(total, static_cast<Running<C>>(values[at]));
          results[at] = static_cast<C>(total);
        }
        writer.store();
      };
    });
  });
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
  scan(x, dim, reverse, 0, out, [](auto a, auto b) { return a + b; });
}

void cumprod(const Array& x, int dim, const Array& out) {
  scan(x, dim, false, 1, out, [](auto a, auto b) { return a * b; });
}

namespace {

// dx[i] = Π_{j < i} x[j] · s[i] with s[i] = dy[i] + x[i + 1] · s[i + 1] along `dim`. dy has x's
// shape, or one element a line, which is the last position's.
void products_backward(const char* name, const Array& x, const Array& dy, int dim,
                       const Array& dx) {
  visit_real(x.dtype(), name, [&](auto zero) {
    using C = decltype(zero);
    const int64_t length = x.size(dim), given_length = dy.size(dim);
    const auto stride_of = [dim](const Array& array) {
      return array.stride(dim) * size_of(array.dtype());
    };
    LineLoop({dx, x, dy}, dim, 2 * length).for_each([&] {
      return [&, x_reader = RowReader<C>(), dy_reader = RowReader<C>(), writer = RowWriter<C>(),
              before = std::vector<double>()](const auto& line) mutable {
        const C* factors = x_reader.read(line[1], stride_of(x), x.dtype(), length);
        const C* given = dy_reader.read(line[2], stride_of(dy), dy.dtype(), given_length);
        C* gradient = writer.target(line[0], stride_of(dx), dx.dtype(), length);
        const int64_t first_given = length - given_length;
        before.assign(static_cast<size_t>(length), 1.0);
        for (int64_t i = 1; i < length; ++i)
          before[i] = before[i - 1] * static_cast<double>(factors[i - 1]);
        double sum = 0;
        for (int64_t i = length - 1; i >= 0; --i) {
          const double next = i + 1 < length ? static_cast<double>(factors[i + 1]) : 0;
          sum *= next;
          if (i >= first_given) sum += static_cast<double>(given[i - first_given]);
          gradient[i] = static_cast<C>(before[i] * sum);
        }
        writer.store();
      };
    });
  });
}

}  // namespace

void cumprod_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  products_backward("cumprod_backward", x, dy, dim, dx);
}

void prod_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  products_backward("prod_backward", x, dy, dim, dx);
}

}  // namespace binade::kernels::cpu
