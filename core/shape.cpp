#include <binade/core/shape.h>

#include <ostream>
#include <string>

namespace binade {

void Shape::insert(int position, int64_t size) {
  check(dims_ < kMaxDims && position >= 0 && position <= dims_, "cannot insert a dimension at ",
        position, " into ", *this);
  std::copy_backward(sizes_.begin() + position, sizes_.begin() + dims_, sizes_.begin() + dims_ + 1);
  sizes_[static_cast<size_t>(position)] = size;
  ++dims_;
}

void Shape::erase(int position) {
  check(position >= 0 && position < dims_, "cannot erase dimension ", position, " of ", *this);
  std::copy(sizes_.begin() + position + 1, sizes_.begin() + dims_, sizes_.begin() + position);
  --dims_;
}

void Shape::out_of_range(int i) const {
  fail("dimension ", i, " is out of range for a shape of ", dims_, " dimensions");
}

int64_t Shape::numel() const {
  // Sizes of 0 are left out of the product that is checked: strides are products of the others.
  int64_t product = 1;
  bool empty = false;
  for (int64_t size : *this) {
    check(size >= 0, "a size is negative in the shape ", *this);
    empty |= size == 0;
    check(!__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product), "the shape ",
          *this, " has more elements than int64 can count");
  }
  return empty ? 0 : product;
}

Shape Shape::row_major_strides() const {
  numel();  // throws where the products below would overflow
  Shape strides = Shape::filled(dims_, 1);
  for (int i = dims_ - 2; i >= 0; --i)
    strides[i] = strides[i + 1] * std::max<int64_t>((*this)[i + 1], 1);
  return strides;
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '(';
  // Not `out << size`: the stream of a caller may group digits.
  for (int i = 0; i < shape.dims(); ++i) out << (i ? ", " : "") << std::to_string(shape[i]);
  return out << ')';
}

Shape broadcast(const Shape& a, const Shape& b, const char* op) {
  const int dims = std::max(a.dims(), b.dims());
  Shape result = Shape::filled(dims, 1);
  for (int i = 1; i <= dims; ++i) {
    const int64_t x = i <= a.dims() ? a[a.dims() - i] : 1;
    const int64_t y = i <= b.dims() ? b[b.dims() - i] : 1;
    check(x == y || x == 1 || y == 1, op, ": shapes ", a, " and ", b, " do not broadcast: sizes ",
          x, " and ", y, " differ and neither is 1");
    result[dims - i] = x == 1 ? y : x;
  }
  return result;
}

}  // namespace binade
