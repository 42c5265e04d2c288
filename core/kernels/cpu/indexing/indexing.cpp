#include <binade/core/kernels/indexing.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <binade/core/kernels/cpu/common/convert.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {
namespace {

// Throws Error unless all indices lie in [0, size).
void check_indices(const View& index, int64_t size, const char* op) {
  std::atomic<bool> found = false;
  std::atomic<int64_t> bad = 0;
  StridedLoop({index}).for_each([&](const Run& run) {
    TileReader<int64_t> reader;
    const int64_t* values = reader.read(run, 0, index.dtype);
    for (int64_t i = 0; i < run.count; ++i) {
      if (values[i] < 0 || values[i] >= size) {
        bad = values[i];
        found = true;
        return;
      }
    }
  });
  check(!found, op, ": index ", bad.load(), " is out of range for a size of ", size);
}

// A view of `x` in which stepping along `dim` stands still: the index moves there instead.
View standing_still(const View& x, int dim, const Shape& shape) {
  View view = x;
  view.shape = shape;
  view.strides[dim] = 0;
  return view;
}

// The vector `index` laid along `dim` of `shape`.
View along(const Array& index, int dim, const Shape& shape) {
  View view(index);
  const int64_t stride = view.strides[0];
  view.shape = shape;
  view.strides = Shape::filled(shape.dims(), 0);
  view.strides[dim] = stride;
  return view;
}

void gather_views(const View& x, int dim, const View& index, const View& out) {
  const int64_t step = x.strides[dim];
  visit_item(size_of(out.dtype), [&](auto zero) {
    using T = decltype(zero);
    StridedLoop({out, index, standing_still(x, dim, out.shape)}).for_each([&](const Run& run) {
      TileReader<int64_t> reader;
      const int64_t* at = reader.read(run, 1, index.dtype);
      const std::byte* source = run.data[2];
      std::byte* target = run.data[0];
      if (run.stride[1] == 0 && run.stride[0] == sizeof(T) && run.stride[2] == sizeof(T)) {
        std::copy_n(source + at[0] * step, run.count * sizeof(T), target);  // a row
        return;
      }
      for (int64_t i = 0; i < run.count; ++i)
        *reinterpret_cast<T*>(target + i * run.stride[0]) =
            *reinterpret_cast<const T*>(source + i * run.stride[2] + at[i] * step);
    });
  });
}

struct Assign {
  template <class T>
  void operator()(T& target, T value) const {
    target = value;
  }
};
struct AddTo {
  template <class T>
  void operator()(T& target, T value) const {
    target = static_cast<T>(target + value);
  }
};

struct MultiplyBy {
  template <class T>
  void operator()(T& target, T value) const {
    target = static_cast<T>(target * value);
  }
};
template <bool Largest>
struct Improve {  // NaN wins
  template <class T>
  void operator()(T& target, T value) const {
    const bool better = Largest ? value > target : value < target;
    if (better || value != value) target = value;
  }
};

// visit(elements, places) for every element of index: where it lies in each of `elements`, which
// have index's shape, and what it names in each of `places`. Lines along `dim` are independent;
// within a line, elements come in their order. Where lines that are neighbours share their indices,
// visit.row(elements, strides, places, strides, count) may take all of them; false: it does not.
template <size_t kElements, size_t kPlaces, class Visit>
void visit_places(const View& index, int dim, const std::array<View, kElements>& elements,
                  const std::array<View, kPlaces>& places, const Visit& visit) {
  const int64_t length = index.shape[dim];
  std::vector<View> operands{index.without(dim)};
  std::array<int64_t, kElements> element_steps;
  std::array<int64_t, kPlaces> place_steps;
  for (size_t k = 0; k < kElements; ++k) {
    operands.push_back(elements[k].without(dim));
    element_steps[k] = elements[k].strides[dim];
  }
  for (size_t k = 0; k < kPlaces; ++k) {
    operands.push_back(standing_still(places[k], dim, index.shape).without(dim));
    place_steps[k] = places[k].strides[dim];
  }
  const int64_t index_step = index.strides[dim];
  const int64_t grain = std::max<int64_t>(64, kGrain / std::max<int64_t>(length, 1));
  StridedLoop(operands).for_each(
      [&](const Run& run) {
        TileReader<int64_t> reader;
        const int64_t *element_strides = &run.stride[1],
                      *place_strides = &run.stride[1 + kElements];
        // Those of line i at position j, where the index is `to`.
        const auto elements_at = [&](int64_t i, int64_t j) {
          std::array<std::byte*, kElements> at;
          for (size_t k = 0; k < kElements; ++k)
            at[k] = run.data[1 + k] + i * element_strides[k] + j * element_steps[k];
          return at;
        };
        const auto places_at = [&](int64_t i, int64_t to) {
          std::array<std::byte*, kPlaces> at;
          for (size_t k = 0; k < kPlaces; ++k)
            at[k] = run.data[1 + kElements + k] + i * place_strides[k] + to * place_steps[k];
          return at;
        };
        if (run.count > 1 && run.stride[0] != 0) {
          for (int64_t j = 0; j < length; ++j) {
            const int64_t* to =
                reader.read(run.data[0] + j * index_step, run.stride[0], index.dtype, run.count);
            for (int64_t i = 0; i < run.count; ++i) visit(elements_at(i, j), places_at(i, to[i]));
          }
          return;
        }
        for (int64_t first = 0; first < length; first += kTile) {
          const int64_t count = std::min(kTile, length - first);
          const int64_t* to =
              reader.read(run.data[0] + first * index_step, index_step, index.dtype, count);
          for (int64_t k = 0; k < count; ++k) {
            if (visit.row(elements_at(0, first + k), element_strides, places_at(0, to[k]),
                          place_strides, run.count))
              continue;
            for (int64_t i = 0; i < run.count; ++i)
              visit(elements_at(i, first + k), places_at(i, to[k]));
          }
        }
      },
      grain);
}

// A visitor that takes elements one by one.
template <class Visit>
struct OneByOne : Visit {
  template <class... Row>
  bool row(const Row&...) const {
    return false;
  }
};
template <class Visit>
OneByOne(Visit) -> OneByOne<Visit>;

// store(place, element), of type T.
template <class T, class Store>
struct Storing {
  Store store;
  using Pointers = std::array<std::byte*, 1>;

  void operator()(const Pointers& element, const Pointers& place) const {
    store(*reinterpret_cast<T*>(place[0]), *reinterpret_cast<const T*>(element[0]));
  }
  bool row(const Pointers& element, const int64_t* element_stride, const Pointers& place,
           const int64_t* place_stride, int64_t count) const {
    if (*element_stride != sizeof(T) || *place_stride != sizeof(T)) return false;
    T* __restrict to = reinterpret_cast<T*>(place[0]);
    const T* __restrict from = reinterpret_cast<const T*>(element[0]);
    for (int64_t i = 0; i < count; ++i) store(to[i], from[i]);
    return true;
  }
};

template <class T, class Store>
void scatter_views(const View& out, int dim, const View& index, const View& source,
                   const Store& store) {
  visit_places(index, dim, std::array{source}, std::array{out}, Storing<T, Store>{store});
}

void scatter_add(const Array& out, int dim, const View& index, const Array& source) {
  if (is_half(out.dtype())) {  // sums in f32, rounded once
    const Array sums = out.to(DType::f32);
    scatter_add(sums, dim, index, source.to(DType::f32));
    copy(sums, out);
    return;
  }
  visit_all(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      scatter_views<T>(out, dim, index, source, AddTo{});
    else
      fail("scatter cannot add in ", out.dtype());
  });
}

// What changes nothing that it is folded with.
double identity_of(ScatterFold fold) {
  switch (fold) {
    case ScatterFold::prod:
      return 1;
    case ScatterFold::max:
      return -INFINITY;
    case ScatterFold::min:
      return INFINITY;
    default:
      return 0;
  }
}

template <class T>
void typed_scatter_reduce(const Array& out, int dim, const View& index, const Array& source,
                          ScatterFold fold, bool include_self) {
  if (!include_self) {
    T start{};
    if constexpr (std::is_floating_point_v<T>) {
      start = static_cast<T>(identity_of(fold));
    } else {
      if (fold == ScatterFold::max) start = std::numeric_limits<T>::lowest();
      if (fold == ScatterFold::min) start = std::numeric_limits<T>::max();
    }
    scatter_views<T>(out, dim, index, View::of_value(start, index.shape), Assign{});
  }
  switch (fold) {
    case ScatterFold::prod:
      return scatter_views<T>(out, dim, index, source, MultiplyBy{});
    case ScatterFold::max:
      return scatter_views<T>(out, dim, index, source, Improve<true>{});
    case ScatterFold::min:
      return scatter_views<T>(out, dim, index, source, Improve<false>{});
    default:
      scatter_views<T>(out, dim, index, source, AddTo{});
  }
  if (fold != ScatterFold::mean) return;
  const Array counts = Array::full(out.shape(), include_self ? 1 : 0, DType::i64);
  int64_t one = 1;  // f32 cannot count past 2^24
  scatter_views<int64_t>(counts, dim, index, View::of_value(one, index.shape), AddTo{});
  binary_scalar(BinaryOp::maximum, counts, 1, false, counts);
  binary(BinaryOp::div, out, counts.to(dtype_of<T>()), out);
}

// dx and dsource of scatter_extreme_backward, both computed.
template <class T>
void typed_extreme_backward(const Array& dy, const Array& x, int dim, const View& index,
                            const Array& source, const Array& y, bool include_self, const Array& dx,
                            const Array& dsource) {
  constexpr int64_t kNamed = 1, kWinner = 2;  // what of source does to its place's count
  const Array counts = Array::zeros(x.shape(), DType::i64),
              shares = Array::empty(x.shape(), dy.dtype());
  visit_places(index, dim, std::array{View(source)}, std::array{View(y), View(counts)},
               OneByOne{[](const auto& element, const auto& place) {
                 int64_t& count = *reinterpret_cast<int64_t*>(place[1]);
                 count |= kNamed;
                 if (*reinterpret_cast<const T*>(element[0]) == *reinterpret_cast<T*>(place[0]))
                   count += kWinner;
               }});
  const Array own = x.contiguous();
  const int64_t* count = counts.data<int64_t>();
  const T *given = dy.data<T>(), *value = own.data<T>(), *result = y.data<T>();
  T *share = shares.data<T>(), *gradient = dx.data<T>();
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool counted = include_self || (count[i] & kNamed) == 0;
      const bool wins = counted && value[i] == result[i];
      const int64_t winners = count[i] / kWinner + (wins ? 1 : 0);
      share[i] = given[i] / static_cast<T>(std::max<int64_t>(winners, 1));
      gradient[i] = wins ? share[i] : T{0};
    }
  });
  visit_places(
      index, dim, std::array{View(source), View(dsource)}, std::array{View(y), View(shares)},
      OneByOne{[](const auto& element, const auto& place) {
        const bool wins =
            *reinterpret_cast<const T*>(element[0]) == *reinterpret_cast<const T*>(place[0]);
        *reinterpret_cast<T*>(element[1]) = wins ? *reinterpret_cast<const T*>(place[1]) : T{0};
      }});
}

}  // namespace

void gather(const Array& x, int dim, const Array& index, const Array& out) {
  dim = x.shape().wrap_dim(dim);
  check_indices(index, x.size(dim), "gather");
  gather_views(x, dim, index, out);
}

void scatter(const Array& out, int dim, const Array& index, const Array& source, bool add) {
  dim = out.shape().wrap_dim(dim);
  check_indices(index, out.size(dim), "scatter");
  if (add) {
    scatter_add(out, dim, index, source);
    return;
  }
  visit_item(size_of(out.dtype()),
             [&](auto zero) { scatter_views<decltype(zero)>(out, dim, index, source, Assign{}); });
}

void scatter_reduce(const Array& out, int dim, const Array& index, const Array& source,
                    ScatterFold fold, bool include_self) {
  dim = out.shape().wrap_dim(dim);
  check_indices(index, out.size(dim), "scatter_reduce");
  if (is_half(out.dtype())) {  // folds in f32, rounded once
    const Array wide = out.to(DType::f32);
    scatter_reduce(wide, dim, index, source.to(DType::f32), fold, include_self);
    copy(wide, out);
    return;
  }
  visit_all(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      typed_scatter_reduce<T>(out, dim, index, source, fold, include_self);
    else
      fail("scatter_reduce cannot fold ", out.dtype());
  });
}

void scatter_extreme_backward(const Array& dy, const Array& x, int dim, const Array& index,
                              const Array& source, const Array& y, bool include_self,
                              const Array& dx, const Array& dsource) {
  const DType wide = is_half(y.dtype()) ? DType::f32 : y.dtype();
  const Array to_x = Array::empty(x.shape(), wide), to_source = Array::empty(index.shape(), wide);
  visit_real(wide, "scatter_extreme_backward", [&](auto zero) {
    typed_extreme_backward<decltype(zero)>(dy.to(wide), x.to(wide), x.shape().wrap_dim(dim), index,
                                           source.to(wide), y.to(wide), include_self, to_x,
                                           to_source);
  });
  if (dx.defined()) copy(to_x, dx);
  if (dsource.defined()) copy(to_source, dsource);
}

void index_select(const Array& x, int dim, const Array& index, const Array& out) {
  dim = x.shape().wrap_dim(dim);
  check_indices(index, x.size(dim), "index_select");
  gather_views(x, dim, along(index, dim, out.shape()), out);
}

void index_add(const Array& out, int dim, const Array& index, const Array& source, float beta) {
  if (beta == 0) fill(out, 0);
  dim = out.shape().wrap_dim(dim);
  check_indices(index, out.size(dim), "index_add");
  scatter_add(out, dim, along(index, dim, source.shape()), source);
}

void last_writers(const Array& index, const Array& last, const Array& kept) {
  const int64_t *to = index.data<int64_t>(), count = index.numel();
  int64_t *writer = last.data<int64_t>(), *place = kept.data<int64_t>();
  std::fill_n(writer, last.numel(), int64_t{-1});
  for (int64_t k = 0; k < count; ++k)
    if (to[k] >= 0) writer[to[k]] = k;
  for (int64_t k = 0; k < count; ++k) place[k] = to[k] >= 0 && writer[to[k]] == k ? to[k] : -1;
}

void merge_rows(const Array& base_in, const Array& source_in, int dim, const Array& from_in,
                const Array& out_in) {
  if (source_in.numel() == 0) return copy(base_in, out_in);
  const View base(base_in), source(source_in), out(out_in), from = along(from_in, dim, out.shape);
  const int64_t rows = out.shape[dim], from_step = from.strides[dim];
  const StridedLoop lines({out.without(dim), from.without(dim), base.without(dim),
                           standing_still(source, dim, out.shape).without(dim)});
  // Lines that are neighbours move together, but for the last dimension's.
  const int64_t least = dim + 1 < out.shape.dims() ? 64 : 1;
  const int64_t grain = std::max(least, kGrain / std::max<int64_t>(rows, 1));
  visit_item(size_of(out.dtype), [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t kItem = sizeof(T);
    lines.for_each(
        [&](const Run& run) {
          // Where row j of the run comes from, and its stride there.
          const auto source_of = [&](int64_t j) {
            const int64_t row = *reinterpret_cast<const int64_t*>(run.data[1] + j * from_step);
            return row < 0 ? std::pair(run.data[2] + j * base.strides[dim], run.stride[2])
                           : std::pair(run.data[3] + row * source.strides[dim], run.stride[3]);
          };
          const auto copy_element = [&](const auto& source_of_row, int64_t j, int64_t i) {
            std::memcpy(run.data[0] + j * out.strides[dim] + i * run.stride[0],
                        source_of_row.first + i * source_of_row.second, kItem);
          };
          if (run.stride[0] != kItem || run.count == 1) {
            for (int64_t i = 0; i < run.count; ++i)
              for (int64_t j = 0; j < rows; ++j) copy_element(source_of(j), j, i);
            return;
          }
          for (int64_t j = 0; j < rows; ++j) {
            const auto at = source_of(j);
            if (at.second == kItem)
              std::memcpy(run.data[0] + j * out.strides[dim], at.first, run.count * kItem);
            else
              for (int64_t i = 0; i < run.count; ++i) copy_element(at, j, i);
          }
        },
        grain);
  });
}

void embedding(const Array& table, const Array& index, const Array& out) {
  check_indices(index, table.size(0), "embedding");
  const int64_t width = table.size(1);
  const std::vector<int64_t> ids = index.to_vector<int64_t>();
  const Rows table_rows(table), out_rows(out);
  parallel_for(index.numel(), row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      convert(table_rows[ids[row]], table.dtype(), out_rows[row], out.dtype(), width);
  });
}

void embedding_backward(const Array& dout, const Array& index, const Array& dtable, float beta) {
  const int64_t vocabulary = dtable.size(0), width = dtable.size(1);
  check_indices(index, vocabulary, "embedding_backward");
  const std::vector<int64_t> ids = index.to_vector<int64_t>();

  // The rows of each id in order: a counting sort.
  std::vector<int64_t> starts(static_cast<size_t>(vocabulary) + 1);
  for (const int64_t id : ids) ++starts[id + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<int64_t> rows(ids.size()), next(starts.begin(), starts.end() - 1);
  for (size_t row = 0; row < ids.size(); ++row) rows[next[ids[row]]++] = static_cast<int64_t>(row);

  visit_real(dtable.dtype(), "embedding_backward", [&](auto zero) {
    using C = decltype(zero);
    const Rows dout_rows(dout), dtable_rows(dtable);
    const int64_t grain = row_grain(4 * width);
    parallel_for(vocabulary, grain, [&](int64_t begin, int64_t end) {
      constexpr int64_t kRowsAtOnce = 32;  // summed in C before they join the total
      RowReader<C> reader;
      RowWriter<C> writer;
      std::vector<C> some(static_cast<size_t>(width));
      std::vector<double> total(static_cast<size_t>(width));
      for (int64_t id = begin; id < end; ++id) {
        if (beta == 0) {
          std::fill(total.begin(), total.end(), 0.0);
        } else {
          if (starts[id] == starts[id + 1]) continue;
          convert(dtable_rows[id], dtable.dtype(), total.data(), DType::f64, width);
        }
        for (int64_t i = starts[id]; i < starts[id + 1]; i += kRowsAtOnce) {
          std::fill(some.begin(), some.end(), C{0});
          for (int64_t k = i; k < std::min(i + kRowsAtOnce, starts[id + 1]); ++k) {
            const C* gradient = reader.read(dout_rows[rows[k]], dout.dtype(), width);
            C* sums = some.data();
#pragma omp simd
            for (int64_t c = 0; c < width; ++c) sums[c] += gradient[c];
          }
          for (int64_t c = 0; c < width; ++c) total[c] += static_cast<double>(some[c]);
        }
        convert(total.data(), DType::f64, dtable_rows[id], dtable.dtype(), width);
      }
    });
  });
}

}  // namespace binade::kernels::cpu
