// Elementwise maps. Operands of any dtype are read tile by tile as the type that is computed in
// (double, float or int64_t); a contiguous operand that has this type already is used in place.
#pragma once

#include <algorithm>
#include <utility>

#include <binade/core/kernels/cpu/common/convert.h>
#include <binade/core/kernels/cpu/common/strided.h>

namespace binade::kernels::cpu {

// A run of at most kTile elements, read as C.
template <class C>
class TileReader {
 public:
  // The elements; valid until the next read.
  const C* read(const std::byte* data, int64_t stride, DType dtype, int64_t count) {
    const int64_t item = size_of(dtype);
    if (dtype == dtype_of<C>() && stride == item) return reinterpret_cast<const C*>(data);
    if (stride == 0) {
      convert(data, dtype, buffer_, dtype_of<C>(), 1);
      std::fill_n(buffer_, count, buffer_[0]);
    } else if (stride == item) {
      convert(data, dtype, buffer_, dtype_of<C>(), count);
    } else if (dtype == dtype_of<C>()) {
      gather_run(data, stride, item, reinterpret_cast<std::byte*>(buffer_), count);
    } else {
      alignas(64) std::byte packed[kTile * sizeof(double)];
      gather_run(data, stride, item, packed, count);
      convert(packed, dtype, buffer_, dtype_of<C>(), count);
    }
    return buffer_;
  }
  const C* read(const Run& run, int operand, DType dtype) {
    return read(run.data[operand], run.stride[operand], dtype, run.count);
  }

 private:
  alignas(64) C buffer_[kTile];
};

// A run of at most kTile elements to be written as C: fill target(), then store().
template <class C>
class TileWriter {
 public:
  C* target(std::byte* data, int64_t stride, DType dtype) {
    data_ = data;
    stride_ = stride;
    dtype_ = dtype;
    const bool in_place = dtype == dtype_of<C>() && stride == size_of(dtype);
    target_ = in_place ? reinterpret_cast<C*>(data) : buffer_;
    return target_;
  }
  C* target(const Run& run, int operand, DType dtype) {
    return target(run.data[operand], run.stride[operand], dtype);
  }
  void store(int64_t count) {
    if (target_ != buffer_) return;
    const int64_t item = size_of(dtype_);
    if (stride_ == item) {
      convert(buffer_, dtype_of<C>(), data_, dtype_, count);
      return;
    }
    alignas(64) std::byte packed[kTile * sizeof(double)];
    convert(buffer_, dtype_of<C>(), packed, dtype_, count);
    scatter_run(packed, data_, stride_, item, count);
  }

 private:
  std::byte* data_;
  int64_t stride_;
  DType dtype_;
  C* target_;
  alignas(64) C buffer_[kTile];
};

namespace detail {

template <class C, class Out, class Op, size_t... I>
void map_run(const Op& op, const Run& run, DType out_dtype,
             const std::array<DType, sizeof...(I)>& dtypes, std::index_sequence<I...>) {
  std::array<TileReader<C>, sizeof...(I)> readers;
  TileWriter<Out> writer;
  const std::array<const C*, sizeof...(I)> in = {
      readers[I].read(run, static_cast<int>(I) + 1, dtypes[I])...};
  Out* out = writer.target(run, 0, out_dtype);
  // An input may be the output itself, element by element, which the compiler cannot know.
#pragma omp simd
  for (int64_t i = 0; i < run.count; ++i) out[i] = op(in[I][i]...);
  writer.store(run.count);
}

}  // namespace detail

// out[i] = op(ins[i]...), computed in C; op gives an Out (C, or bool for tests). All have one
// shape.
template <class C, class Out = C, class Op, class... Ins>
void map(const Op& op, const View& out, const Ins&... ins) {
  const std::array<DType, sizeof...(Ins)> dtypes = {View(ins).dtype...};
  StridedLoop({out, View(ins)...}).for_each([&](const Run& run) {
    detail::map_run<C, Out>(op, run, out.dtype, dtypes, std::index_sequence_for<Ins...>());
  });
}

// Calls visitor(C{}) with the type that arithmetic on `dtype` is done in: double for f64, float for
// the other floating dtypes, int64_t for integers and bool.
template <class Visitor>
void visit_compute(DType dtype, Visitor&& visitor) {
  if (dtype == DType::f64) return visitor(double{});
  if (is_floating(dtype)) return visitor(float{});
  return visitor(int64_t{});
}

// The same for floating dtypes only; `op` names the caller in the error.
template <class Visitor>
void visit_real(DType dtype, const char* op, Visitor&& visitor) {
  check(is_floating(dtype), op, " needs a floating-point dtype, got ", name_of(dtype));
  if (dtype == DType::f64) return visitor(double{});
  return visitor(float{});
}

}  // namespace binade::kernels::cpu
