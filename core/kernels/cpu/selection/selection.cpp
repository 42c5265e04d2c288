#include <binade/core/kernels/selection.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>
#include <vector>

#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/visit_bits.h>

namespace binade::kernels::cpu {

void count_mask(const Array& mask, const Array& ends) {
  const bool* values = mask.data<bool>();
  int64_t* counts = ends.data<int64_t>();
  const int64_t chunks = ends.numel(), count = mask.numel();
  parallel_for(chunks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      counts[c] =
          std::count(values + c * kMaskChunk, values + std::min(count, (c + 1) * kMaskChunk), true);
  });
  std::partial_sum(counts, counts + chunks, counts);
}

namespace {

// Calls run(i, place) for each element of the mask: `place` is the number of true ones before it.
template <class Run>
void for_each_masked(const Array& mask, const Array& ends, const Run& run) {
  const int64_t* counts = ends.data<int64_t>();
  const int64_t count = mask.numel();
  const bool* values = mask.data<bool>();
  parallel_for(ends.numel(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      int64_t place = c == 0 ? 0 : counts[c - 1];
      for (int64_t i = c * kMaskChunk; i < std::min(count, (c + 1) * kMaskChunk); ++i) {
        run(i, place);
        place += values[i] ? 1 : 0;
      }
    }
  });
}

}  // namespace

void mask_compact(const Array& x, const Array& mask, const Array& ends, const Array& out) {
  visit_bits(x.dtype(), [&]<class T>(T) {
    const bool* values = mask.data<bool>();
    const T* from = static_cast<const T*>(x.data());
    T* to = static_cast<T*>(out.data());
    for_each_masked(mask, ends, [=](int64_t i, int64_t place) {
      if (values[i]) to[place] = from[i];
    });
  });
}

void mask_expand(const Array& x, const Array& mask, const Array& ends, const Array& out) {
  visit_bits(x.dtype(), [&]<class T>(T) {
    const bool* values = mask.data<bool>();
    const T* from = static_cast<const T*>(x.data());
    T* to = static_cast<T*>(out.data());
    for_each_masked(mask, ends,
                    [=](int64_t i, int64_t place) { to[i] = values[i] ? from[place] : T(); });
  });
}

void flat_index(const Array& index, int64_t size, int64_t stride, const Array& out, float beta) {
  std::atomic<bool> found = false;
  std::atomic<int64_t> bad = 0;
  StridedLoop({out, index}).for_each([&](const Run& run) {
    TileReader<int64_t> reader;
    const int64_t* at = reader.read(run, 1, index.dtype());
    for (int64_t i = 0; i < run.count; ++i) {
      const int64_t position = at[i] < 0 ? at[i] + size : at[i];
      if (position < 0 || position >= size) {
        bad = at[i];
        found = true;
        return;
      }
      auto& to = *reinterpret_cast<int64_t*>(run.data[0] + i * run.stride[0]);
      to = (beta == 0 ? 0 : to) + stride * position;
    }
  });
  check(!found, "index ", bad.load(), " is out of range for a size of ", size);
}

void one_hot(const Array& index, const Array& out) {
  const int64_t classes = out.size(1), item = size_of(out.dtype());
  fill(out, 0);
  alignas(8) std::byte one[8];
  const double value = 1;
  convert(&value, DType::f64, one, out.dtype(), 1);
  const std::vector<int64_t> ids = index.to_vector<int64_t>();
  auto* data = static_cast<std::byte*>(out.data());
  for (size_t n = 0; n < ids.size(); ++n) {
    check(ids[n] >= 0 && ids[n] < classes, "one_hot: index ", ids[n], " is out of range for ",
          classes, " classes");
    std::copy_n(one, item, data + (static_cast<int64_t>(n) * classes + ids[n]) * item);
  }
}

void searchsorted(const Array& sorted, const Array& values, bool right, const Array& out) {
  const int64_t length = sorted.size(1), width = values.size(1);
  visit_compute(sorted.dtype(), [&](auto zero) {
    using C = decltype(zero);
    const Rows sorted_rows(sorted), value_rows(values);
    int64_t* positions = out.data<int64_t>();
    const bool shared = sorted.size(0) == 1;
    // Pieces of rows, so that a single long one is shared out, too.
    constexpr int64_t kPiece = 4096;
    const int64_t pieces = (width + kPiece - 1) / kPiece, item = size_of(values.dtype());
    const int64_t cost = 8 * std::min(width, kPiece) + length;
    parallel_for(values.size(0) * pieces, row_grain(cost), [&](int64_t begin, int64_t end) {
      RowReader<C> sorted_reader, value_reader;
      const C* read = nullptr;
      for (int64_t piece = begin, listed = -1; piece < end; ++piece) {
        const int64_t row = piece / pieces, first = piece % pieces * kPiece;
        const int64_t count = std::min(kPiece, width - first), wants = shared ? 0 : row;
        if (std::exchange(listed, wants) != wants)
          read = sorted_reader.read(sorted_rows[wants], sorted.dtype(), length);
        const C* const list = read;
        const C* wanted = value_reader.read(value_rows[row] + first * item, values.dtype(), count);
        int64_t* const places = positions + row * width + first;
        for (int64_t i = 0; i < count; ++i) {
          const C value = wanted[i];
          const auto lies_before = [&](C element) {
            return right ? !(element > value) : !(element >= value);
          };
          places[i] = std::partition_point(list, list + length, lies_before) - list;
        }
      }
    });
  });
}

void multinomial(const Array& weights, const PhiloxKey& key, bool replacement, const Array& out) {
  const int64_t rows = weights.size(0), width = weights.size(1), draws = out.size(1);
  const auto step = static_cast<uint64_t>(key.step.data<int64_t>()[0]);
  const Rows weight_rows(weights);
  int64_t* positions = out.data<int64_t>();
  parallel_for(
      rows, row_grain(width * (replacement ? 4 : 4 + draws)), [&](int64_t begin, int64_t end) {
        RowReader<double> reader;
        std::vector<uint64_t> units(static_cast<size_t>(width));
        for (int64_t row = begin; row < end; ++row) {
          const double* given = reader.read(weight_rows[row], weights.dtype(), width);
          double largest = 0;
          for (int64_t i = 0; i < width; ++i) {
            check(given[i] >= 0 && given[i] <= std::numeric_limits<double>::max(),
                  "multinomial: weight ", i, " of row ", row, " is ", given[i],
                  "; weights must be finite and not below 0");
            largest = std::max(largest, given[i]);
          }
          uint64_t total = 0;
          int64_t possible = 0;
          for (int64_t i = 0; i < width; ++i) {
            units[i] = largest > 0 ? multinomial_weight(given[i], largest) : 0;
            total += units[i];
            possible += units[i] > 0;
          }
          check(possible >= (replacement ? 1 : draws), "multinomial: row ", row, " has ", possible,
                " weights above 0, too few to draw ", draws,
                replacement ? " with replacement" : " without replacement");
          // Drawn ones do not leave: their sums stand, and a draw is a search among them.
          if (replacement) std::partial_sum(units.begin(), units.end(), units.begin());
          for (int64_t s = 0; s < draws; ++s) {
            const auto element = static_cast<uint64_t>(row * draws + s);
            const uint64_t bits = multinomial_bits(key.seed, step, key.place, element);
            const auto target =
                static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * total) >> 64);
            if (replacement) {
              positions[row * draws + s] =
                  std::upper_bound(units.begin(), units.end(), target) - units.begin();
              continue;
            }
            int64_t i = 0;
            for (uint64_t sum = units[0]; sum <= target; sum += units[i]) ++i;
            positions[row * draws + s] = i;
            total -= units[i];
            units[i] = 0;
          }
        }
      });
}

}  // namespace binade::kernels::cpu
