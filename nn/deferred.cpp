#include <binade/nn/deferred.h>

#include <algorithm>
#include <utility>

namespace binade::nn {

namespace {

thread_local bool deferring = false;

constexpr int64_t kPiece = int64_t{4} << 20;  // elements, a multiple of what a draw makes at once

// Elements of `values` from `begin` on, in row-major order, to the (n) of `out`.
void copy_range(const Array& values, int64_t begin, const Array& out) {
  const int64_t count = out.numel();
  if (count == 0) return;
  if (values.is_contiguous()) {
    out.copy_from(values.view({values.numel()}).slice(0, begin, begin + count));
    return;
  }
  // The end of a row, whole rows, the beginning of another; a part of one row is a range of it.
  const int64_t row = values.numel() / values.size(0), first = begin / row, offset = begin % row;
  if (offset != 0 || count < row) {
    const int64_t head = std::min(count, row - offset);
    copy_range(values.select(0, first), offset, out.slice(0, 0, head));
    copy_range(values, begin + head, out.slice(0, head));
    return;
  }
  const int64_t rows = count / row;
  const Array whole = values.slice(0, first, first + rows);
  out.slice(0, 0, rows * row).view(whole.shape()).copy_from(whole);
  copy_range(values, begin + rows * row, out.slice(0, rows * row));
}

}  // namespace

Deferred::Deferred() : before_(std::exchange(deferring, true)) {}

Deferred::~Deferred() {
  deferring = before_;
}

bool Deferred::active() {
  return deferring;
}

ValueSource ValueSource::of(const Array& values) {
  return {values.shape(),
          [values](int64_t begin, const Array& out) { copy_range(values, begin, out); }};
}

void ValueSource::write(int64_t begin, const Array& out) const {
  const int64_t count = out.numel();
  check(out.dims() == 1 && begin >= 0 && begin + count <= shape_.numel(), "elements ", begin,
        " to ", begin + count, " were asked for of a source of ", shape_);
  for (int64_t done = 0; done < count; done += kPiece) {
    const Array piece = out.slice(0, done, std::min(done + kPiece, count));
    if (piece.dtype() == DType::f32 && piece.device().is_cpu()) {
      write_(begin + done, piece);
    } else {
      const Array host = Array::empty(piece.shape(), DType::f32);
      write_(begin + done, host);
      piece.copy_from(host);
    }
  }
  out.bump_version();
}

Array ValueSource::make(DType dtype, Device device) const {
  const Array all = Array::empty(shape_, dtype, device);
  write(0, all.view({all.numel()}));
  return all;
}

ValueSource ValueSource::rounded(DType dtype) const {
  return {shape_, [write = write_, dtype](int64_t begin, const Array& out) {
            write(begin, out);
            out.copy_from(out.to(dtype));
          }};
}

ValueSource ValueSource::padded(const Shape& shape, int64_t count) const {
  return {shape, [write = write_, count](int64_t begin, const Array& out) {
            const int64_t inside = std::clamp<int64_t>(count - begin, 0, out.numel());
            if (inside > 0) write(begin, out.slice(0, 0, inside));
            if (inside < out.numel()) out.slice(0, inside).zero();
          }};
}

}  // namespace binade::nn
