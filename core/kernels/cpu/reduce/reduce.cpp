// Reductions over any dimensions.
//
// Work is cut along both what is kept and what is reduced, by shape alone; each piece leaves a
// partial result, floating sums in double, and a last pass folds the partial results in order.
// Inside a piece, memory decides the way: along rows where the reduced dimension lies innermost, or
// column by column, a row at a time, where a kept one does.
#include <binade/core/kernels/reduce.h>

#include <cmath>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/rows.h>

namespace binade::kernels::cpu {
namespace {

// What of an element is folded.
struct Itself {
  template <class T>
  static T of(T x) {
    return x;
  }
};
struct Magnitude {
  template <class T>
  static T of(T x) {
    return x < 0 ? -x : x;
  }
};
struct Square {
  template <class T>
  static T of(T x) {
    return x * x;
  }
};
struct NotZero {
  template <class T>
  static T of(T x) {
    return static_cast<T>(x != 0);
  }
};

template <class C, class Term = Itself>
struct Sum {
  using Partial = std::conditional_t<std::is_integral_v<C>, int64_t, double>;
  static constexpr Partial kStart = 0;
  static Partial of_run(const C* x, int64_t count) {
    return sum_of<Partial>(count, [=](int64_t i) { return Term::of(static_cast<Partial>(x[i])); });
  }
  static C term(C x) { return Term::of(x); }
  template <class T>
  static T fold(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    return a + b;
  }
};

template <class C>
struct Product {
  using Partial = typename Sum<C>::Partial;
  static constexpr Partial kStart = 1;
  static Partial of_run(const C* x, int64_t count) {
    Partial result = 1;
    for (int64_t i = 0; i < count; ++i) result = fold(result, static_cast<Partial>(x[i]));
    return result;
  }
  static C term(C x) { return x; }
  template <class T>
  static T fold(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    return a * b;
  }
};

template <class C>
struct Max {
  using Partial = C;
  static constexpr C kStart = std::numeric_limits<C>::has_infinity
                                  ? -std::numeric_limits<C>::infinity()
                                  : std::numeric_limits<C>::lowest();
  static C of_run(const C* x, int64_t count) {
    return has_nan(x, count) ? std::numeric_limits<C>::quiet_NaN() : max_of(x, count);
  }
  static C term(C x) { return x; }
  static C fold(C a, C b) { return b > a || b != b ? b : a; }
};

template <class C>
struct MaxMagnitude {
  using Partial = C;
  static constexpr C kStart = 0;
  static C of_run(const C* x, int64_t count) {
    if (has_nan(x, count)) return std::numeric_limits<C>::quiet_NaN();
    return std::max(max_of(x, count), -min_of(x, count));
  }
  static C term(C x) { return Magnitude::of(x); }
  static C fold(C a, C b) { return Max<C>::fold(a, b); }
};

template <class C>
struct Min {
  using Partial = C;
  static constexpr C kStart = std::numeric_limits<C>::has_infinity
                                  ? std::numeric_limits<C>::infinity()
                                  : std::numeric_limits<C>::max();
  static C of_run(const C* x, int64_t count) {
    return has_nan(x, count) ? std::numeric_limits<C>::quiet_NaN() : min_of(x, count);
  }
  static C term(C x) { return x; }
  static C fold(C a, C b) { return b < a || b != b ? b : a; }
};

// x split into its kept and its reduced dimensions.
struct Split {
  View kept, reduced;
  bool by_columns;  // see above

  Split(const View& x, const Shape& out_shape) {
    kept = reduced = x;
    for (int dim = x.shape.dims() - 1; dim >= 0; --dim) {
      const bool is_reduced = out_shape[dim] == 1 && x.shape[dim] != 1;
      View& other = is_reduced ? kept : reduced;
      other = other.without(dim);
    }
    const Innermost row = innermost(reduced), column = innermost(kept);
    constexpr int64_t kShort = 16;
    by_columns = column.size >= 8 && (row.size < kShort || column.stride < row.stride);
  }

 private:
  struct Innermost {
    int64_t stride = INT64_MAX, size = 1;
  };
  static Innermost innermost(const View& view) {
    Innermost result;
    for (int dim = 0; dim < view.shape.dims(); ++dim)
      if (view.shape[dim] > 1 && view.strides[dim] < result.stride)
        result = {view.strides[dim], view.shape[dim]};
    return result;
  }
};

// One row-major array of partial results per chunk of the reduced elements.
template <class Partial>
struct Partials {
  std::vector<Partial> values;
  View view;  // of the first chunk, with the kept dimensions
  int64_t chunks;

  Partials(const Shape& kept, int64_t chunk_count)
      : values(static_cast<size_t>(kept.numel() * chunk_count)), chunks(chunk_count) {
    view.data = reinterpret_cast<std::byte*>(values.data());
    view.dtype = dtype_of<Partial>();
    view.shape = kept;
    view.strides = kept.row_major_strides();
    for (int dim = 0; dim < kept.dims(); ++dim) view.strides[dim] *= sizeof(Partial);
  }
  // The place in chunk `chunk` of a pointer into the first one.
  Partial& at(std::byte* first, int64_t chunk) const {
    return reinterpret_cast<Partial*>(first)[chunk * view.shape.numel()];
  }
};

template <class C, class Op>
void reduce_along_rows(const Split& split, const View& x, Partials<typename Op::Partial>& partials,
                       int64_t chunk_size) {
  const StridedLoop kept({partials.view, split.kept}), reduced({split.reduced});
  const int64_t outputs = kept.count(), length = reduced.count();
  const int64_t block = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, length));
  const int64_t blocks = (outputs + block - 1) / block;
  parallel_tasks(blocks * partials.chunks, [&](int64_t task) {
    const int64_t begin = task / partials.chunks * block, chunk = task % partials.chunks;
    TileReader<C> reader;
    kept.range(begin, std::min(outputs, begin + block), [&](const Run& outer) {
      for (int64_t i = 0; i < outer.count; ++i) {
        const int64_t shift = outer.data[1] + i * outer.stride[1] - x.data;
        auto total = Op::kStart;
        reduced.range(
            chunk * chunk_size, std::min(length, (chunk + 1) * chunk_size), [&](const Run& run) {
              const C* values = reader.read(run.data[0] + shift, run.stride[0], x.dtype, run.count);
              const C value = Op::of_run(values, run.count);
              total = Op::fold(total, static_cast<typename Op::Partial>(value));
            });
        partials.at(outer.data[0] + i * outer.stride[0], chunk) = total;
      }
    });
  });
}

template <class C, class Op>
void reduce_by_columns(const Split& split, const View& x, Partials<typename Op::Partial>& partials,
                       int64_t chunk_size) {
  using Partial = typename Op::Partial;
  constexpr int64_t kRowsAtOnce = 32;  // what is summed in C before it goes to the partial result
  const StridedLoop kept({partials.view, split.kept}), reduced({split.reduced});
  const int64_t outputs = kept.count(), length = reduced.count();
  const int64_t blocks = (outputs + kTile - 1) / kTile;
  parallel_tasks(blocks * partials.chunks, [&](int64_t task) {
    const int64_t begin = task / partials.chunks * kTile, chunk = task % partials.chunks;
    TileReader<C> reader;
    alignas(64) C some[kTile];
    alignas(64) Partial total[kTile];
    kept.range(begin, std::min(outputs, begin + kTile), [&](const Run& columns) {
      const int64_t count = columns.count;
      const int64_t shift = columns.data[1] - x.data;
      std::fill_n(total, count, Op::kStart);
      std::fill_n(some, count, static_cast<C>(Op::kStart));
      int64_t rows = 0;
      const auto flush = [&] {
        for (int64_t i = 0; i < count; ++i)
          total[i] = Op::fold(total[i], static_cast<Partial>(some[i]));
        std::fill_n(some, count, static_cast<C>(Op::kStart));
        rows = 0;
      };
      reduced.range(chunk * chunk_size, std::min(length, (chunk + 1) * chunk_size),
                    [&](const Run& run) {
                      for (int64_t r = 0; r < run.count; ++r) {
                        const std::byte* row = run.data[0] + r * run.stride[0] + shift;
                        const C* values = reader.read(row, columns.stride[1], x.dtype, count);
#pragma omp simd
                        for (int64_t i = 0; i < count; ++i)
                          some[i] = Op::fold(some[i], Op::term(values[i]));
                        if (++rows == kRowsAtOnce) flush();
                      }
                    });
      flush();
      for (int64_t i = 0; i < count; ++i)
        partials.at(columns.data[0] + i * columns.stride[0], chunk) = total[i];
    });
  });
}

// Folds the chunks' partial results, in order, and writes what finish(total) makes of each.
template <class Op, class Finish>
void store_folded(Partials<typename Op::Partial>& partials, const Array& out, float beta,
                  const Finish& finish) {
  using Partial = typename Op::Partial;
  const int64_t stride = partials.view.shape.numel();
  parallel_for(stride, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Partial total = partials.values[i];
      for (int64_t chunk = 1; chunk < partials.chunks; ++chunk)
        total = Op::fold(total, partials.values[chunk * stride + i]);
      partials.values[i] = finish(total);
    }
  });

  View result = partials.view;  // with the reduced dimensions of size 1 back in place
  result.shape = result.strides = out.shape();
  int64_t next = sizeof(Partial);
  for (int dim = out.dims() - 1; dim >= 0; --dim) {
    result.strides[dim] = next;
    next *= out.size(dim);
  }
  if (beta == 0)
    map<Partial>([](Partial value) { return value; }, out, result);
  else
    map<Partial>([](Partial old, Partial value) { return old + value; }, out, out, result);
}

// finish(total) makes the result of a fold over all elements.
template <class C, class Op, class Finish>
void reduce_with(const View& x, const Array& out, float beta, const Finish& finish) {
  using Partial = typename Op::Partial;
  const Split split(x, out.shape());
  const int64_t length = split.reduced.shape.numel();
  // A chunk is worth a task of its own, whatever is kept beside it.
  const int64_t beside =
      split.by_columns ? std::clamp<int64_t>(split.kept.shape.numel(), 1, kTile) : 1;
  const int64_t chunk_size = 4 * kGrain / beside;
  Partials<Partial> partials(split.kept.shape,
                             std::max<int64_t>(1, (length + chunk_size - 1) / chunk_size));
  if (split.by_columns)
    reduce_by_columns<C, Op>(split, x, partials, chunk_size);
  else
    reduce_along_rows<C, Op>(split, x, partials, chunk_size);
  store_folded<Op>(partials, out, beta, finish);
}

// Σ term(a, b), output by output.
template <class C, class Term>
void sum_pairs_along_rows(const Split& left, const Split& right, const View& a, const View& b,
                          Partials<double>& partials, int64_t chunk_size, const Term& term) {
  const StridedLoop kept({partials.view, left.kept, right.kept});
  const StridedLoop reduced({left.reduced, right.reduced});
  const int64_t outputs = kept.count(), length = reduced.count();
  const int64_t block = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, length));
  const int64_t blocks = (outputs + block - 1) / block;
  parallel_tasks(blocks * partials.chunks, [&](int64_t task) {
    const int64_t begin = task / partials.chunks * block, chunk = task % partials.chunks;
    TileReader<C> a_reader, b_reader;
    kept.range(begin, std::min(outputs, begin + block), [&](const Run& outer) {
      for (int64_t i = 0; i < outer.count; ++i) {
        const int64_t a_shift = outer.data[1] + i * outer.stride[1] - a.data;
        const int64_t b_shift = outer.data[2] + i * outer.stride[2] - b.data;
        double total = 0;
        reduced.range(
            chunk * chunk_size, std::min(length, (chunk + 1) * chunk_size), [&](const Run& run) {
              const C* x = a_reader.read(run.data[0] + a_shift, run.stride[0], a.dtype, run.count);
              const C* y = b_reader.read(run.data[1] + b_shift, run.stride[1], b.dtype, run.count);
              total += sum_of<double>(run.count, [=](int64_t k) {
                return term(static_cast<double>(x[k]), static_cast<double>(y[k]));
              });
            });
        partials.at(outer.data[0] + i * outer.stride[0], chunk) = total;
      }
    });
  });
}

template <class C, class Term>
void sum_pairs(const Array& a, const Array& b, const Array& out, const Term& term) {
  const Split left(a, out.shape()), right(b, out.shape());
  if (left.by_columns) {  // rows of terms, added up a row at a time
    const Array terms = Array::empty(a.shape(), dtype_of<C>());
    map<C>(term, terms, a, b);
    return reduce_with<C, Sum<C>>(terms, out, 0, [](double total) { return total; });
  }
  const int64_t length = left.reduced.shape.numel(), chunk_size = 4 * kGrain;
  Partials<double> partials(left.kept.shape,
                            std::max<int64_t>(1, (length + chunk_size - 1) / chunk_size));
  sum_pairs_along_rows<C>(left, right, a, b, partials, chunk_size, term);
  store_folded<Sum<C>>(partials, out, 0, [](double total) { return total; });
}

}  // namespace

void reduce(ReduceOp op, const Array& x, const Array& out, float beta) {
  visit_compute(x.dtype(), [&](auto zero) {
    using C = decltype(zero);
    const auto same = [](auto value) { return value; };
    switch (op) {
      case ReduceOp::sum:
        return reduce_with<C, Sum<C>>(x, out, beta, same);
      case ReduceOp::mean: {
        const double count = static_cast<double>(x.numel()) / static_cast<double>(out.numel());
        check(std::is_floating_point_v<C>, "mean needs a floating-point dtype");
        return reduce_with<C, Sum<C>>(x, out, beta, [=](auto total) {
          return static_cast<decltype(total)>(static_cast<double>(total) / count);
        });
      }
      case ReduceOp::max:
        return reduce_with<C, Max<C>>(x, out, 0, same);
      case ReduceOp::min:
        return reduce_with<C, Min<C>>(x, out, 0, same);
      case ReduceOp::prod:
        return reduce_with<C, Product<C>>(x, out, 0, same);
      default:
        break;
    }
    if constexpr (std::is_integral_v<C>) {
      fail("this reduction needs a floating-point dtype");
    } else {
      switch (op) {
        case ReduceOp::sum_abs:
          return reduce_with<C, Sum<C, Magnitude>>(x, out, 0, same);
        case ReduceOp::sum_squares:
          return reduce_with<C, Sum<C, Square>>(x, out, 0, same);
        case ReduceOp::max_abs:
          return reduce_with<C, MaxMagnitude<C>>(x, out, 0, same);
        default:
          return reduce_with<C, Sum<C, NotZero>>(x, out, 0, same);
      }
    }
  });
}

void reduce_pairs(PairOp op, const Array& a, const Array& b, const Array& out) {
  visit_real(a.dtype(), "reduce_pairs", [&](auto zero) {
    using C = decltype(zero);
    switch (op) {
      case PairOp::product:
        return sum_pairs<C>(a, b, out, [](auto x, auto y) { return x * y; });
      case PairOp::distance:
        return sum_pairs<C>(a, b, out, [](auto x, auto y) { return std::abs(x - y); });
    }
  });
}

void pair_products(const Array& a, const Array& b, const Array& aa, const Array& ab,
                   const Array& bb) {
  reduce(ReduceOp::sum_squares, a, aa, 0);
  reduce_pairs(PairOp::product, a, b, ab);
  reduce(ReduceOp::sum_squares, b, bb, 0);
}

// In two passes: what a sum of squares would lose beside a large mean never gets lost.
void moments(const Array& x, const Array& mean, const Array& squares) {
  reduce(ReduceOp::mean, x, mean, 0);
  visit_real(x.dtype(), "moments", [&](auto zero) {
    sum_pairs<decltype(zero)>(x, mean.expand(x.shape()), squares, [](auto value, auto center) {
      return (value - center) * (value - center);
    });
  });
}

}  // namespace binade::kernels::cpu
