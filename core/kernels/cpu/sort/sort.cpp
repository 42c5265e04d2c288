#include <algorithm>

#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/sort.h>

namespace binade::kernels::cpu {
namespace {

template <class C>
struct Entry {
  C key;
  int64_t position;
};

template <class C>
bool less(C a, C b) {  // NaN is the largest
  return a < b || (b != b && a == a);
}

// Orders by key, then by position, which makes any sort stable.
template <class C, bool Descending>
bool comes_before(const Entry<C>& a, const Entry<C>& b) {
  const bool first = Descending ? less(b.key, a.key) : less(a.key, b.key);
  const bool second = Descending ? less(a.key, b.key) : less(b.key, a.key);
  return first || (!second && a.position < b.position);
}

// The first `kept` of each line in order, to values and indices.
template <class C, bool Descending>
void order_lines(const Array& x, int64_t kept, int dim, const Array& values, const Array& indices) {
  const int64_t length = x.size(dim);
  const int64_t x_stride = x.stride(dim) * size_of(x.dtype());
  const int64_t value_stride = values.stride(dim) * size_of(values.dtype());
  const int64_t index_stride = indices.stride(dim) * size_of(indices.dtype());
  const int64_t cost = length * 16;  // comparisons and moves, against one read of an element
  LineLoop({values, indices, x}, dim, cost).for_each([&] {
    return [&, reader = RowReader<C>(), value_writer = RowWriter<C>(),
            index_writer = RowWriter<int64_t>(),
            entries = std::vector<Entry<C>>()](const auto& line) mutable {
      const C* keys = reader.read(line[2], x_stride, x.dtype(), length);
      entries.resize(static_cast<size_t>(length));
      for (int64_t i = 0; i < length; ++i) entries[i] = {keys[i], i};
      const auto before = comes_before<C, Descending>;
      if (kept == length)
        std::sort(entries.begin(), entries.end(), before);
      else
        std::partial_sort(entries.begin(), entries.begin() + kept, entries.end(), before);
      C* value = value_writer.target(line[0], value_stride, values.dtype(), kept);
      int64_t* index = index_writer.target(line[1], index_stride, indices.dtype(), kept);
      for (int64_t i = 0; i < kept; ++i) {
        value[i] = entries[i].key;
        index[i] = entries[i].position;
      }
      value_writer.store();
      index_writer.store();
    };
  });
}

}  // namespace

void sort(const Array& x, int dim, bool descending, const Array& values, const Array& indices) {
  visit_compute(x.dtype(), [&](auto zero) {
    using C = decltype(zero);
    if (descending)
      order_lines<C, true>(x, x.size(dim), dim, values, indices);
    else
      order_lines<C, false>(x, x.size(dim), dim, values, indices);
  });
}

void topk(const Array& x, int64_t k, int dim, const Array& values, const Array& indices,
          bool largest) {
  visit_compute(x.dtype(), [&](auto zero) {
    using C = decltype(zero);
    if (largest)
      order_lines<C, true>(x, k, dim, values, indices);
    else
      order_lines<C, false>(x, k, dim, values, indices);
  });
}

}  // namespace binade::kernels::cpu
