// Copies, joins, fills, ranges and triangles.
#include <cstring>

#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {
namespace {

// One run from any dtype to any other.
void copy_run(const Run& run, DType from, DType to) {
  const int64_t from_item = size_of(from), to_item = size_of(to);
  alignas(64) std::byte packed[kTile * sizeof(double)];
  alignas(64) std::byte converted[kTile * sizeof(double)];
  const std::byte* source = run.data[1];
  if (run.stride[1] != from_item) {
    gather_run(source, run.stride[1], from_item, packed, run.count);
    source = packed;
  }
  if (run.stride[0] == to_item) {
    convert(source, from, run.data[0], to, run.count);
  } else {
    convert(source, from, converted, to, run.count);
    scatter_run(converted, run.data[0], run.stride[0], to_item, run.count);
  }
}

}  // namespace

void copy(const Array& x, const Array& out) {
  StridedLoop({out, x}).for_each([&](const Run& run) { copy_run(run, x.dtype(), out.dtype()); });
}

void fill(const Array& out, double value) {
  const int64_t item = size_of(out.dtype());
  alignas(8) std::byte element[8];
  convert(&value, DType::f64, element, out.dtype(), 1);
  alignas(64) std::byte tile[kTile * sizeof(double)];
  gather_run(element, 0, item, tile, kTile);
  StridedLoop({out}).for_each([&](const Run& run) {
    if (run.stride[0] == item)
      std::memcpy(run.data[0], tile, static_cast<size_t>(run.count * item));
    else
      scatter_run(tile, run.data[0], run.stride[0], item, run.count);
  });
}

void triangle(const Array& x, int64_t diagonal, bool lower, const Array& out) {
  const int64_t rows = out.size(-2), columns = out.size(-1), item = size_of(out.dtype());
  if (out.numel() == 0) return;
  copy(x, out);
  auto* const data = static_cast<std::byte*>(out.data());
  parallel_for(out.numel() / columns, std::max<int64_t>(1, kGrain / columns),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   // Column row + diagonal is kept; what lies behind, or before it, is not.
                   const int64_t edge = i % rows + diagonal + (lower ? 1 : 0);
                   const int64_t cut = std::clamp<int64_t>(edge, 0, columns);
                   std::byte* row = data + i * columns * item;
                   if (lower)
                     std::memset(row + cut * item, 0, static_cast<size_t>((columns - cut) * item));
                   else
                     std::memset(row, 0, static_cast<size_t>(cut * item));
                 }
               });
}

void join(const std::vector<Array>& arrays, const Array& out) {
  auto* to = static_cast<double*>(out.data());
  for (const Array& array : arrays) {
    convert(array.data(), array.dtype(), to, DType::f64, array.numel());
    to += array.numel();
  }
}

void arange(const Array& out, double start, double step) {
  parallel_for(out.numel(), kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) double values[kTile];
    for (int64_t i = begin; i < end; i += kTile) {
      const int64_t count = std::min(kTile, end - i);
      for (int64_t k = 0; k < count; ++k) values[k] = start + static_cast<double>(i + k) * step;
      std::byte* target = static_cast<std::byte*>(out.data()) + i * size_of(out.dtype());
      convert(values, DType::f64, target, out.dtype(), count);
    }
  });
}

}  // namespace binade::kernels::cpu
