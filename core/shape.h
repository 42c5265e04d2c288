// Sizes and strides: a short vector of int64_t without heap allocation.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>

#include <binade/core/error.h>

namespace binade {

inline constexpr int kMaxDims = 8;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const int64_t> sizes) {
    check(sizes.size() <= kMaxDims, "a shape has at most ", kMaxDims, " dimensions, got ",
          sizes.size());
    std::copy(sizes.begin(), sizes.end(), sizes_.begin());
    dims_ = static_cast<int>(sizes.size());
  }
  // A shape of `dims` sizes, each `value`.
  static Shape filled(int dims, int64_t value) {
    check(dims >= 0 && dims <= kMaxDims, "a shape has at most ", kMaxDims, " dimensions");
    Shape shape;
    shape.dims_ = dims;
    std::fill_n(shape.sizes_.begin(), dims, value);
    return shape;
  }

  int dims() const { return dims_; }
  // Positions in [0, dims), others are an Error, negative ones too: at() counts these from the
  // back.
  int64_t operator[](int i) const { return sizes_[position(i)]; }
  int64_t& operator[](int i) { return sizes_[position(i)]; }
  // Negative positions count from the back.
  int64_t at(int i) const { return sizes_[static_cast<size_t>(wrap_dim(i))]; }
  int64_t back() const { return at(-1); }

  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + dims_; }
  std::span<const int64_t> span() const { return {sizes_.data(), static_cast<size_t>(dims_)}; }

  void push_back(int64_t size) {
    check(dims_ < kMaxDims, "a shape has at most ", kMaxDims, " dimensions");
    sizes_[static_cast<size_t>(dims_++)] = size;
  }
  void insert(int position, int64_t size);
  void erase(int position);

  // Product of the sizes; throws Error on int64 overflow or a negative size.
  int64_t numel() const;
  // Strides (in elements) of the row-major layout.
  Shape row_major_strides() const;
  // Position in [0, dims) of a possibly negative one; throws Error when out of range.
  int wrap_dim(int i) const {
    if (i < -dims_ || i >= dims_) [[unlikely]]
      out_of_range(i);
    return i < 0 ? i + dims_ : i;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.dims_ == b.dims_ && std::equal(a.begin(), a.end(), b.begin());
  }

 private:
  size_t position(int i) const {
    if (static_cast<unsigned>(i) >= static_cast<unsigned>(dims_)) [[unlikely]]
      out_of_range(i);
    return static_cast<size_t>(i);
  }
  [[noreturn]] void out_of_range(int i) const;

  std::array<int64_t, kMaxDims> sizes_{};
  int dims_ = 0;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);  // "(2, 3)"

// The shape both operands broadcast to (NumPy's rule); throws Error naming `op` if there is none.
Shape broadcast(const Shape& a, const Shape& b, const char* op);

}  // namespace binade
