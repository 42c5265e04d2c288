// Keeping a key-value cache: places, writing, compaction, lengths.
#include <cstring>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/decode/pass_rows.h>

namespace binade::kernels::cpu {
namespace {

// (B, H, T, D) or (S, H, capacity, D) as rows of D elements.
struct HeadRows {
  explicit HeadRows(const Array& array) : array_(array) {}
  std::byte* at(int64_t batch, int64_t head, int64_t place) const {
    return static_cast<std::byte*>(array_.data()) +
           (batch * array_.stride(0) + head * array_.stride(1) + place * array_.stride(2)) *
               size_of(array_.dtype());
  }
  const Array& array_;
};

}  // namespace

void cache_positions(const PassRows& rows, const Array& depths, int64_t capacity, int64_t spare,
                     const Array& positions) {
  const int64_t batch = positions.size(0), tokens = positions.size(1);
  const PassView pass(rows, tokens);
  const RowReader32 depth(depths);
  const int64_t depth_row = depths.defined() && depths.dims() == 2 ? tokens : 0;
  auto* out = positions.data<int32_t>();
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = pass.length(b), count = pass.count(b);
    check(count == 0 || length + rows.first + count <= capacity + spare,
          "the key-value cache is full: row ", b, " holds ", length + rows.first,
          " tokens and gets ", count, " more, its capacity is ", capacity);
    for (int64_t t = 0; t < tokens; ++t)
      out[b * tokens + t] =
          t < count ? static_cast<int32_t>(std::min(
                          length + depth.at(b * depth_row + t, rows.first + t), capacity - 1))
                    : 0;
  }
}

void cache_write(const Array& keys, const Array& values, const PassRows& rows,
                 const Array& cached_keys, const Array& cached_values) {
  const int64_t batch = keys.size(0), heads = keys.size(1), tokens = keys.size(2);
  const int64_t capacity = cached_keys.size(2);
  const size_t bytes = static_cast<size_t>(keys.size(3) * size_of(keys.dtype()));
  const PassView pass(rows, tokens);
  const auto write = [&](const Array& fresh, const Array& cached) {
    const HeadRows from(fresh), to(cached);
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / (tokens * keys.size(3)));
    parallel_for(batch * heads, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / heads, head = i % heads, place = pass.begin(b);
        const int64_t count = std::min(pass.count(b), capacity - place);
        for (int64_t t = 0; t < count; ++t)
          std::memcpy(to.at(pass.slot(b), head, place + t), from.at(b, head, t), bytes);
      }
    });
  };
  write(keys, cached_keys);
  write(values, cached_values);
}

void cache_compact(const Array& nodes, const PassRows& rows, const Array& keys,
                   const Array& values) {
  const int64_t batch = nodes.size(0), most = nodes.size(1);
  const PassView pass(rows, most);
  const auto* node = nodes.data<int32_t>();
  const size_t bytes = static_cast<size_t>(keys.size(4) * size_of(keys.dtype()));
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t count = pass.count(b), length = pass.length(b);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = node[b * most + i];
      check(from >= 0 && from < kMostPending && length + from < keys.size(3) &&
                (i == 0 || from > node[b * most + i - 1]),
            "the accepted nodes of row ", b, " must ascend within the pending ones, got node ",
            from, " at place ", i);
    }
    for (const Array& cache : {keys, values}) {
      for (int64_t layer = 0; layer < cache.size(0); ++layer) {
        const Array of_layer = cache.select(0, layer);
        const HeadRows places(of_layer);
        for (int64_t head = 0; head < cache.size(2); ++head)
          for (int64_t i = 0; i < count; ++i)
            std::memmove(places.at(pass.slot(b), head, length + i),
                         places.at(pass.slot(b), head, length + node[b * most + i]), bytes);
      }
    }
  }
}

void cache_set_lengths(const PassRows& rows, bool add) {
  auto* lengths = rows.lengths.data<int32_t>();
  const auto* counts = rows.counts.data<int32_t>();
  const PassView pass(rows, INT32_MAX);
  for (int64_t b = 0; b < rows.counts.size(0); ++b) {
    if (add)
      lengths[pass.slot(b)] += std::max(counts[b], 0);
    else if (counts[b] >= 0)
      lengths[pass.slot(b)] = counts[b];
  }
}

}  // namespace binade::kernels::cpu
