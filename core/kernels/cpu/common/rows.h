// Rows: whole lines along one dimension, read as the type that is computed in.
#pragma once

#include <vector>

#include <binade/core/kernels/cpu/elementwise/map.h>

namespace binade::kernels::cpu {

// Rows of `width` elements, of any width, that are worth handing to another thread.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width));
}

// A line of any length, read as C; a contiguous line of C is used in place.
template <class C>
class RowReader {
 public:
  // `count` elements, `stride` bytes apart; valid until the next read.
  const C* read(const std::byte* data, int64_t stride, DType dtype, int64_t count) {
    const int64_t item = size_of(dtype);
    if (dtype == dtype_of<C>() && stride == item) return reinterpret_cast<const C*>(data);
    buffer_.resize(static_cast<size_t>(count));
    if (stride == item) {
      convert(data, dtype, buffer_.data(), dtype_of<C>(), count);
      return buffer_.data();
    }
    alignas(64) std::byte packed[kTile * sizeof(double)];
    for (int64_t i = 0; i < count; i += kTile) {
      const int64_t n = std::min(kTile, count - i);
      gather_run(data + i * stride, stride, item, packed, n);
      convert(packed, dtype, buffer_.data() + i, dtype_of<C>(), n);
    }
    return buffer_.data();
  }
  // A contiguous line.
  const C* read(const std::byte* data, DType dtype, int64_t count) {
    return read(data, size_of(dtype), dtype, count);
  }

 private:
  std::vector<C> buffer_;
};

// A line to be written as C: fill target(), then store().
template <class C>
class RowWriter {
 public:
  C* target(std::byte* data, int64_t stride, DType dtype, int64_t count) {
    data_ = data;
    stride_ = stride;
    dtype_ = dtype;
    count_ = count;
    direct_ = dtype == dtype_of<C>() && stride == size_of(dtype);
    if (direct_) return reinterpret_cast<C*>(data);
    buffer_.resize(static_cast<size_t>(count));
    return buffer_.data();
  }
  C* target(std::byte* data, DType dtype, int64_t count) {
    return target(data, size_of(dtype), dtype, count);
  }
  void store() {
    if (direct_) return;
    const int64_t item = size_of(dtype_);
    if (stride_ == item) {
      convert(buffer_.data(), dtype_of<C>(), data_, dtype_, count_);
      return;
    }
    alignas(64) std::byte packed[kTile * sizeof(double)];
    for (int64_t i = 0; i < count_; i += kTile) {
      const int64_t n = std::min(kTile, count_ - i);
      convert(buffer_.data() + i, dtype_of<C>(), packed, dtype_, n);
      scatter_run(packed, data_ + i * stride_, stride_, item, n);
    }
  }

 private:
  std::vector<C> buffer_;
  std::byte* data_ = nullptr;
  int64_t stride_ = 0, count_ = 0;
  DType dtype_ = DType::f32;
  bool direct_ = false;
};

// The lines along `dim` of arrays whose other dimensions are equal.
class LineLoop {
 public:
  // `length` is what one line costs, in elements.
  LineLoop(std::initializer_list<Array> arrays, int dim, int64_t length);

  int64_t count() const { return lines_.count(); }

  // make_body() is called once per block of lines (so that buffers are made once per block) and
  // gives body(pointers): the lines' first elements.
  template <class MakeBody>
  void for_each(const MakeBody& make_body) const {
    parallel_for(lines_.count(), grain_, [&](int64_t begin, int64_t end) {
      auto body = make_body();
      lines_.range(begin, end, [&](Run run) {
        for (int64_t i = 0; i < run.count; ++i) {
          body(run.data);
          for (int operand = 0; operand < operands_; ++operand)
            run.data[operand] += run.stride[operand];
        }
      });
    });
  }

 private:
  int operands_;
  int64_t grain_;
  StridedLoop lines_;
};

// Rows of a matrix (N, D) whose last dimension is contiguous.
struct Rows {
  std::byte* data;
  int64_t stride;  // bytes
  DType dtype;
  explicit Rows(const Array& matrix)
      : data(static_cast<std::byte*>(matrix.data())),
        stride(matrix.stride(0) * size_of(matrix.dtype())),
        dtype(matrix.dtype()) {}
  std::byte* operator[](int64_t row) const { return data + row * stride; }
};

}  // namespace binade::kernels::cpu
