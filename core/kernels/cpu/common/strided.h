// Iteration over arrays of one shape and any strides, in runs along one dimension.
//
// Dimensions that lie behind one another in every operand are merged, so contiguous arrays are one
// long run; the rest are ordered by the first operand's strides (the output: it is written in
// memory order). Runs hold at most kTile elements, so that what is converted on the way stays in
// the first-level cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include <binade/core/array.h>
#include <binade/core/kernels/cpu/common/parallel.h>

namespace binade::kernels::cpu {

inline constexpr int64_t kTile = 1024;    // elements of a run
inline constexpr int64_t kGrain = 16384;  // elements worth handing to another thread

// An array as the kernels see it. Strides in bytes.
struct View {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;

  View() = default;
  View(const Array& array)  // NOLINT: an array is a view of itself
      : data(static_cast<std::byte*>(array.data())),
        dtype(array.dtype()),
        shape(array.shape()),
        strides(array.strides()) {
    for (int dim = 0; dim < strides.dims(); ++dim) strides[dim] *= size_of(dtype);
  }
  // One value of type T, expanded to `shape`.
  template <class T>
  static View of_value(T& value, const Shape& shape) {
    View view;
    view.data = reinterpret_cast<std::byte*>(&value);
    view.dtype = dtype_of<T>();
    view.shape = shape;
    view.strides = Shape::filled(shape.dims(), 0);
    return view;
  }
  int64_t item() const { return size_of(dtype); }
  // The same with dimension `dim` removed (at its position 0).
  View without(int dim) const;
};

// A run: `count` elements per operand, strides in bytes.
struct Run {
  static constexpr int kMaxOperands = 6;
  std::array<std::byte*, kMaxOperands> data;
  std::array<int64_t, kMaxOperands> stride;
  int64_t count;
};

class StridedLoop {
 public:
  explicit StridedLoop(std::span<const View> operands);
  StridedLoop(std::initializer_list<View> operands)
      : StridedLoop(std::span(operands.begin(), operands.size())) {}

  int64_t count() const { return count_; }

  // body(run) for all runs, on all threads; runs come in no particular order.
  template <class Body>
  void for_each(const Body& body, int64_t grain = kGrain) const {
    parallel_for(count_, grain, [&](int64_t begin, int64_t end) { range(begin, end, body); });
  }

  // body(run) for the runs that cover elements [begin, end), in order, on this thread.
  template <class Body>
  void range(int64_t begin, int64_t end, const Body& body) const {
    if (begin >= end) return;  // also where a dimension has no elements
    Shape position = Shape::filled(dims_, 0);
    Run run = seek(begin, position);
    const int last = dims_ - 1;
    while (begin < end) {
      run.count = std::min({sizes_[last] - position[last], end - begin, kTile});
      body(run);
      begin += run.count;
      advance(run, position);
    }
  }

 private:
  Run seek(int64_t element, Shape& position) const;
  void advance(Run& run, Shape& position) const;

  int operands_ = 0;
  int dims_ = 0;
  int64_t count_ = 0;
  std::array<int64_t, kMaxDims> sizes_;
  std::array<std::byte*, Run::kMaxOperands> data_;
  std::array<std::array<int64_t, kMaxDims>, Run::kMaxOperands> strides_;  // [operand][dimension]
};

}  // namespace binade::kernels::cpu
